"""Read Python's own containers in a pickle as dicts, lists and the stand-ins they contain."""

import pickle
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from rsa_pretrain.weights.files.pickle_reader import Builder, paired
from rsa_pretrain.weights.files.stand_in import Name, StandIn


def _mapping(content: Any = ()) -> dict[Any, Any]:
    """Stand in for ``OrderedDict`` and ``Counter``, made from nothing, pairs or a dict."""
    if isinstance(content, dict):
        return dict(content)
    if not isinstance(content, list | tuple):
        raise pickle.UnpicklingError("a mapping made from neither pairs nor a dict")
    return paired([part for pair in content for part in pair])


def _with_default(factory: Any = None) -> dict[Any, Any]:
    """Stand in for ``defaultdict``; the factory is dropped."""
    return {}


def _queue(items: Any = (), length: Any = None) -> list[Any]:
    """Stand in for ``deque``, whose items may also be appended later."""
    if not isinstance(items, list | tuple):
        raise pickle.UnpicklingError("a deque made from something other than a list")
    return list(items)


def _set(items: Any = ()) -> StandIn:
    """Stand in for ``set``."""
    return StandIn("builtins.set", items=list(items) if isinstance(items, list | tuple) else [])


def _object(made_by: Any, base: Any = None, state: Any = None) -> StandIn:
    """Stand in for ``copyreg._reconstructor``, with which old protocols write any object."""
    if not isinstance(made_by, Name):
        raise pickle.UnpicklingError("an object of an invalid class")
    return StandIn(str(made_by), (state,))


PLAIN_BUILDERS: Mapping[str, Builder] = MappingProxyType(
    {
        "collections.OrderedDict": _mapping,
        "collections.Counter": _mapping,
        "collections.defaultdict": _with_default,
        "collections.deque": _queue,
        "builtins.set": _set,
        "__builtin__.set": _set,
        "copyreg._reconstructor": _object,
        "copy_reg._reconstructor": _object,
    }
)
