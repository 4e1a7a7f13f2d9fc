"""Read a pickle without running any of it.

Python's own unpickler imports and calls whatever a file names. This one interprets the
opcodes that ``pickletools`` decodes: it builds numbers, text and containers, gives a few exact
names to this toolkit's builders, and keeps everything else as inert stand-ins. No opcode imports,
calls, sets an attribute or looks one up. Stated lengths reserve nothing: data is read from bytes
in memory or mapped, and the number of opcodes is bounded.
"""

import io
import pickle
import pickletools
from collections.abc import Callable, Mapping
from mmap import mmap
from typing import IO, Any, cast

from rsa_pretrain.weights.files.stand_in import Deferred, Name, StandIn

# An opcode makes at most an empty container, so this limits the memory to some 300 MB.
_MAX_OPCODES = 2_000_000
_MAX_NAME_LETTERS = 1000
_GETATTR = ("builtins.getattr", "__builtin__.getattr")
_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
_TEXTS = ("STRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
_BYTES = ("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
_PUSHED = frozenset(_NUMBERS + _TEXTS + _BYTES)
_IGNORED = frozenset({"PROTO", "FRAME", "STOP"})
_FRESH: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": lambda: StandIn("builtins.set"),
}
_KEYS = (str, int, float, bytes, type(None), Name, StandIn, Deferred)

Builder = Callable[..., Any]


def refuse_persistent(identity: Any) -> Any:
    """Refuse data that is stored outside the pickle."""
    raise pickle.UnpicklingError("it refers to data outside the pickle")


class PickleReader:
    """Reads pickles; ``names`` keeps every class and function that they refer to."""

    def __init__(
        self,
        builders: Mapping[str, Builder],
        persistent: Callable[[Any], Any] = refuse_persistent,
    ) -> None:
        """Set up a reader.

        Args:
            builders: Full name → function called in its place; must not trust its arguments.
            persistent: Returns the stand-in for an object that is stored outside the pickle.
        """
        self.names: dict[Name, None] = {}
        self._builders = builders
        self._persistent = persistent
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def read(self, stream: io.BytesIO | mmap) -> Any:
        """Return the content of the next pickle in a stream.

        Args:
            stream: Bytes in memory or mapped, where a read beyond the end reserves nothing.

        Returns:
            Dicts, lists, tuples, text, bytes, numbers, names, stand-ins and deferred tensors.

        Raises:
            pickle.UnpicklingError: If it is damaged.
        """
        self._stack, self._below, self._memo = [], [], {}
        try:
            for number, (opcode, argument, _) in enumerate(
                pickletools.genops(cast(IO[bytes], stream))
            ):
                if number >= _MAX_OPCODES:
                    raise pickle.UnpicklingError(f"it has more than {_MAX_OPCODES} opcodes")
                if opcode.name in _PUSHED:
                    self._stack.append(argument)
                elif opcode.name in _FRESH:
                    self._stack.append(_FRESH[opcode.name]())
                elif opcode.name not in _IGNORED:
                    self._step(opcode.name, argument)
            return self._stack.pop()
        except pickle.UnpicklingError:
            raise
        # Damaged opcodes surface as whatever Python meets in them: KeyError, IndexError,
        # TypeError, struct.error, UnicodeDecodeError, OverflowError, RecursionError …
        except Exception as error:
            raise pickle.UnpicklingError(f"it is damaged ({type(error).__name__})") from None

    def _step(self, opcode: str, argument: Any) -> None:
        """Rearrange the stack as an opcode asks; as long as the list of opcodes."""
        stack = self._stack
        match opcode:
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "MARK":
                self._below.append(stack)
                self._stack = []
            case "POP" if stack:
                stack.pop()
            case "POP" | "POP_MARK":
                self._since_mark()
            case "DUP":
                stack.append(stack[-1])
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._last(int(opcode[-1]))))
            case "LIST" | "TUPLE" | "DICT" | "FROZENSET" | "APPENDS" | "ADDITEMS" | "SETITEMS":
                self._collect(opcode, self._since_mark())
            case "APPEND":
                self._collect("APPENDS", self._last(1))
            case "SETITEM":
                self._collect("SETITEMS", self._last(2))
            case _:
                self._refer(opcode, argument)

    def _collect(self, opcode: str, items: list[Any]) -> None:
        """Make a container from the parts before it, or add them to the one below."""
        match opcode:
            case "LIST":
                self._stack.append(items)
            case "TUPLE":
                self._stack.append(tuple(items))
            case "DICT":
                self._stack.append(paired(items))
            case "FROZENSET":
                self._stack.append(StandIn("builtins.frozenset", items=items))
            case "SETITEMS":
                _entries(self._stack[-1]).update(paired(items))
            case _:
                _items(self._stack[-1]).extend(items)

    def _refer(self, opcode: str, argument: Any) -> None:
        """Record a name, a call, a state or a reference to data elsewhere."""
        match opcode:
            case "GLOBAL":
                made = self._named(*argument.split(" ", 1))
            case "STACK_GLOBAL":
                made = self._named(*self._last(2))
            case "REDUCE" | "NEWOBJ":
                made = self._made(*self._last(2))
            case "NEWOBJ_EX":
                made = self._made(*self._last(3)[:2])
            case "INST":
                made = self._made(self._named(*argument.split(" ", 1)), tuple(self._since_mark()))
            case "OBJ":
                made_by, *arguments = self._since_mark()
                made = self._made(made_by, tuple(arguments))
            case "BUILD":
                (state,) = self._last(1)
                made = _built(self._stack.pop(), state)
            case "PERSID":
                made = self._persistent(argument)
            case "BINPERSID":
                made = self._persistent(*self._last(1))
            case "EXT1" | "EXT2" | "EXT4":
                raise pickle.UnpicklingError(f"it refers to extension {argument}")
            case _:
                raise pickle.UnpicklingError(f"it has opcode {opcode}, which no checkpoint needs")
        self._stack.append(made)

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _last(self, size: int) -> list[Any]:
        items = self._stack[-size:]
        if len(items) < size:
            raise pickle.UnpicklingError("it pops more than it pushed")
        del self._stack[-size:]
        return items

    def _named(self, module: Any, qualified: Any) -> Name:
        if not isinstance(module, str) or not isinstance(qualified, str):
            raise pickle.UnpicklingError("it refers to a name that is not text")
        if len(module) + len(qualified) > _MAX_NAME_LETTERS:
            raise pickle.UnpicklingError(f"it refers to a name of over {_MAX_NAME_LETTERS} letters")
        name = Name(module, qualified)
        self.names[name] = None
        return name

    def _made(self, made_by: Any, arguments: Any) -> Any:
        """Return what a builder makes, or a stand-in for what a call would have returned."""
        if not isinstance(arguments, tuple):
            raise pickle.UnpicklingError("it calls with arguments that are not a tuple")
        if isinstance(made_by, StandIn):
            return StandIn(made_by.name, arguments)
        if not isinstance(made_by, Name):
            raise pickle.UnpicklingError("it calls an object that is not a class or function")
        if str(made_by) in _GETATTR and len(arguments) == 2:
            return self._attribute(*arguments)
        builder = self._builders.get(str(made_by))
        return StandIn(str(made_by), arguments) if builder is None else builder(*arguments)

    def _attribute(self, owner: Any, attribute: Any) -> Name | StandIn:
        """Name an attribute, which is how methods and members of enumerations are written."""
        if not isinstance(attribute, str):
            raise pickle.UnpicklingError("it refers to a name that is not text")
        if isinstance(owner, Name):
            return self._named(owner.module, f"{owner.qualified}.{attribute}")
        kind = owner.name if isinstance(owner, StandIn) else type(owner).__name__
        return StandIn(f"{kind}.{attribute}")


def _built(made: Any, state: Any) -> Any:
    if isinstance(made, StandIn | Deferred):
        made.build(state)
    elif not isinstance(made, dict | list):  # their state is attributes, not parts
        raise pickle.UnpicklingError("it changes an object that it did not make")
    return made


def _items(made: Any) -> list[Any]:
    if not isinstance(made, list | StandIn):
        raise pickle.UnpicklingError("it appends to an object that is not a list")
    return made.items if isinstance(made, StandIn) else made


def _entries(made: Any) -> dict[Any, Any]:
    if not isinstance(made, dict | StandIn):
        raise pickle.UnpicklingError("it sets keys of an object that is not a mapping")
    return made.entries if isinstance(made, StandIn) else made


def paired(parts: list[Any]) -> dict[Any, Any]:
    """Return a dict of alternating keys and values."""
    return {_key(key): value for key, value in zip(parts[::2], parts[1::2], strict=True)}


def _key(key: Any) -> Any:
    """Return a key that is cheap to hash: tuples that share parts could nest without end."""
    flat = isinstance(key, tuple) and all(isinstance(part, _KEYS) for part in key)
    return key if flat or isinstance(key, _KEYS) else StandIn(type(key).__name__)
