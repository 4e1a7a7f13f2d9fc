"""Write to standard output and standard error, of which either may be closed, cut off or full."""

import os
import select
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import Any, TextIO

# In UTF-8 less than the smallest buffer of a stream, 4096 bytes: an empty one takes it whole.
_CHARACTERS_AT_ONCE = 1000

_failures: list[str] = []  # of this process's standard output


def prepare_streams() -> None:
    """Make the standard streams take any text.

    Those that the caller has closed (``>&-``), which Python has ``None`` for, lead to the null
    device. Characters that a locale's encoding lacks become escapes.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for good
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def write_output(text: str) -> None:
    """Write text to standard output at once; a full pipe is waited for.

    Where that fails, this and all further text is dropped, so that the work is not lost;
    ``take_output_failure`` returns the reason.
    """
    _write(sys.stdout, text)


def write_error(text: str) -> None:
    """Write text to standard error at once; it is dropped where that fails."""
    _write(sys.stderr, text)


def take_output_failure() -> str | None:
    """Empty both streams, and return once why standard output is incomplete.

    Returns:
        None if it is complete, or if its reader has left, as that of ``… | head -1`` does.
    """
    for stream in (sys.stdout, sys.stderr):
        _write(stream, "")
    found = _failures[0] if _failures else None
    _failures.clear()
    return found


class ErrorStream:
    """Standard error for writers such as tqdm, which otherwise end with an error if it is cut off.

    Each call writes to what is then ``sys.stderr``.
    """

    def write(self, text: str) -> None:
        """Write text; it is dropped where that fails."""
        write_error(text)

    def flush(self) -> None:
        """Do nothing; every text is written at once."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


def _write(stream: TextIO, text: str) -> None:
    try:
        for start in range(0, len(text) or 1, _CHARACTERS_AT_ONCE):
            _write_whole(stream, text[start : start + _CHARACTERS_AT_ONCE])
    except OSError as error:
        if stream is sys.stdout and not isinstance(error, BrokenPipeError):
            _failures.append(
                f"cannot write to standard output: {error.strerror or error}; free some space or "
                "print elsewhere (files that the command wrote are whole)"
            )
        _drop(stream)


def _write_whole(stream: TextIO, text: str) -> None:
    """Write text that the stream's buffer holds, waiting for a pipe that does not block."""
    with suppress(BlockingIOError):  # of a flush at a line's end: the text is in the buffer
        stream.write(text)
    while True:
        try:
            stream.flush()
        except BlockingIOError:
            select.select([], [stream], [])
        else:
            return


def _drop(stream: TextIO) -> None:
    """Send the rest of a stream, with what is still in its buffer, to the null device."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
    with suppress(OSError):
        stream.flush()
