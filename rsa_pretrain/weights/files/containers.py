"""Open stand-ins that contain tensors: networks pickled whole, namespaces, configs, mappings."""

from collections.abc import Iterator
from typing import Any

from rsa_pretrain.weights.files.stand_in import Deferred, StandIn

_MODULE_PARTS = ("_parameters", "_buffers", "_modules")
_SCRIPTED = "__torch__."
_NAMESPACES = ("argparse.Namespace", "types.SimpleNamespace")
_CONFIGS = "omegaconf."


def is_scripted(thing: object) -> bool:
    """Return whether something is a module of a TorchScript program."""
    return (
        isinstance(thing, StandIn)
        and thing.name.startswith(_SCRIPTED)
        and isinstance(thing.state, dict)
    )


def is_module(thing: object) -> bool:
    """Return whether something has the state of an ``nn.Module``, or of a scripted one."""
    return isinstance(thing, StandIn) and (
        is_scripted(thing) or all(isinstance(thing.attribute(part), dict) for part in _MODULE_PARTS)
    )


def parts_of(thing: StandIn, *, is_whole_file: bool) -> Any:
    """Return the parts of an object that contains others by name or position.

    Args:
        thing: The object.
        is_whole_file: Open it whatever its class.

    Returns:
        A dict or list; a configured value; or the object itself, if it is not a container.
    """
    if is_module(thing):
        return dict(_module_parts(thing))
    if thing.name in _NAMESPACES:
        return thing.state or {}
    if thing.name.startswith(_CONFIGS) and isinstance(thing.state, dict):
        return thing.state.get("_content", thing.state.get("_val"))
    if thing.entries or (thing.items and not thing.name.startswith("builtins.")):
        return thing.entries or thing.items
    if is_whole_file:
        return thing.state if isinstance(thing.state, dict) else thing.arguments
    return thing


def _module_parts(module: StandIn) -> Iterator[tuple[object, Any]]:
    """Yield a module's tensors and submodules by name, without None or non-persistent ones.

    In a scripted module, parameters, buffers and submodules are all attributes.
    """
    if is_scripted(module):
        for name, part in module.state.items():
            if isinstance(part, Deferred) or is_module(part):
                yield name, part
        return
    apart = module.attribute("_non_persistent_buffers_set")
    not_saved = apart.items if isinstance(apart, StandIn) else []
    for kind in _MODULE_PARTS:
        for name, part in module.attribute(kind).items():
            if part is not None and not (kind == "_buffers" and name in not_saved):
                yield name, part
