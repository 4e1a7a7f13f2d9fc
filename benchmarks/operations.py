"""Count operations by part, on a CPU."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode

_PART = "part: "
OTHER = "other"
_ALLOCATIONS = ("aten::empty", "aten::new_empty")


class OperationCounter(TorchDispatchMode):
    """Counts what torch's dispatcher calls below autograd and autocast, while entered and active.

    On a GPU such an operation is a kernel or a few, unless it makes a view of a tensor or allocates
    one. The parts are the trainer's (``part``); an operation counts for the innermost.
    """

    def __init__(self) -> None:
        super().__init__()
        self.active = False
        self.every: Counter[str] = Counter()
        """Operations by part."""
        self.computing: Counter[str] = Counter()
        """The same without views and allocations."""
        self._open = [OTHER]

    def __torch_dispatch__(
        self, function: Any, types: object, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = str(function._schema.name)
        if name == "profiler::_record_function_enter_new":
            entered = args[0] if isinstance(args[0], str) else ""
            is_part = entered.startswith(_PART)
            self._open.append(entered.removeprefix(_PART) if is_part else self._open[-1])
        elif name == "profiler::_record_function_exit":
            self._open.pop()
        elif self.active:
            self.every[self._open[-1]] += 1
            if not (function.is_view or name.startswith(_ALLOCATIONS)):
                self.computing[self._open[-1]] += 1
        return function(*args, **(kwargs or {}))


@contextmanager
def counting() -> Iterator[OperationCounter]:
    """Count the block's operations; a profiler is active, for parts are named only then."""
    # Otherwise torch's profiler prints an error where there is no GPU.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    with profile(activities=[ProfilerActivity.CPU]), OperationCounter() as counter:
        yield counter


def name_forwards(method: nn.Module) -> None:
    """Make each forward of a method's networks a part."""
    for name, network in method.named_children():
        _enter_part_at_forward(name, network)


def _enter_part_at_forward(name: str, network: nn.Module) -> None:
    entered: list[record_function] = []

    def enter(*_: object) -> None:
        entered.append(record_function(f"{_PART}forward {name}"))
        entered[-1].__enter__()

    def leave(*_: object) -> None:
        entered.pop().__exit__(None, None, None)

    network.register_forward_pre_hook(enter)
    network.register_forward_hook(leave)
