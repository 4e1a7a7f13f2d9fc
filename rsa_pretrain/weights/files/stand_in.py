"""Stand in for everything in a pickle beyond numbers, text and containers.

A name is kept as text, and an object as its description. Nothing is imported or called.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle refers to."""

    module: str
    qualified: str
    """Its name in the module; attributes follow a dot."""

    def __str__(self) -> str:
        """Return the full name."""
        return f"{self.module}.{self.qualified}"


@dataclass(eq=False, repr=False)
class StandIn:
    """An object that a pickle describes; it is never created."""

    name: str
    """Its class, or the function that would have returned it."""
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)
    """Items appended to a list or set of some class."""
    entries: dict[Any, Any] = field(default_factory=dict)
    """Items set by key in a mapping of some class."""

    def __str__(self) -> str:
        """Return only the name; objects that share parts could print without end."""
        return self.name

    def build(self, state: Any) -> None:
        """Keep a state; if it has two parts, ``__dict__`` and slots, keep both."""
        if isinstance(state, tuple) and len(state) == 2:
            parts = [part for part in state if isinstance(part, dict)]
            state = {key: value for part in parts for key, value in part.items()} or state
        self.state = state

    def attribute(self, name: str) -> Any:
        """Return the state's value for a name, or None."""
        return self.state.get(name) if isinstance(self.state, dict) else None


class Deferred(ABC):
    """A tensor or array whose data may come later in the file than references to it."""

    def build(self, state: Any) -> None:  # noqa: B027  # most have no relevant state
        """Take the state from the pickle."""

    @abstractmethod
    def make(self) -> Any:
        """Return the tensor or array, or a stand-in if its elements are not plain numbers."""
