"""What stands in the place of everything a pickle asks for beyond numbers, text and containers.

A name is kept as text and an object as what was said of it. Nothing is imported or called.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle refers to."""

    module: str
    qualified: str
    """Its name in the module; an attribute of another follows a dot."""

    def __str__(self) -> str:
        """Return the whole name."""
        return f"{self.module}.{self.qualified}"


@dataclass(eq=False, repr=False)
class StandIn:
    """An object that a pickle describes, never made."""

    name: str
    """Its class, or the function that would have returned it."""
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)
    """What was appended, of a list or set of some class."""
    entries: dict[Any, Any] = field(default_factory=dict)
    """What was set by key, of a mapping of some class."""

    def __str__(self) -> str:
        """Return the name; what shares parts could be shown without end."""
        return self.name

    def build(self, state: Any) -> None:
        """Keep a state; of one in two parts, ``__dict__`` and slots, both."""
        if isinstance(state, tuple) and len(state) == 2:
            parts = [part for part in state if isinstance(part, dict)]
            state = {key: value for part in parts for key, value in part.items()} or state
        self.state = state

    def attribute(self, name: str) -> Any:
        """Return what the state holds under a name, or None."""
        return self.state.get(name) if isinstance(self.state, dict) else None


class Deferred(ABC):
    """A tensor or array, whose data may come later in the file than what refers to it."""

    def build(self, state: Any) -> None:  # noqa: B027  # most have no state that counts
        """Take the state that a pickle gives it."""

    @abstractmethod
    def make(self) -> Any:
        """Return the tensor or array, or a stand-in where its elements are not plain numbers."""
