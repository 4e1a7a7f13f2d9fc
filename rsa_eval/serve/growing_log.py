"""Read a metrics log that grows, each line once."""

import os
from pathlib import Path
from typing import Any

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.metrics_log import parse_metrics
from rsa_pretrain.plumbing.regular_files import open_regular

_REMEMBERED = 64  # bytes before the last line's end, by which a rewritten file is recognised


class GrowingLog:
    """The lines of one ``metrics.jsonl``, of which a line being written is none yet.

    A resumed run replaces its log; another file is read from its start.

    Args:
        path: The log.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._forget(0)

    def read(self) -> list[dict[str, Any]]:
        """Return all whole lines so far, in a list that does not grow.

        Raises:
            UserError: If the log cannot be read, or a line is not a JSON object with a step.
        """
        try:
            with open_regular(self._path) as file:
                inode = os.fstat(file.fileno()).st_ino
                start = self._end - len(self._last_bytes)
                file.seek(start)
                content = file.read()
                if inode != self._inode or not content.startswith(self._last_bytes):
                    self._forget(inode)
                    file.seek(0)
                    content = file.read()
        except OSError as error:
            raise UserError(f"cannot read '{self._path}': {error.strerror}") from None
        self._add(content[len(self._last_bytes) : content.rfind(b"\n") + 1])
        return self._metrics

    def _forget(self, inode: int) -> None:
        self._inode = inode
        self._end = 0
        self._last_bytes = b""
        self._metrics: list[dict[str, Any]] = []

    def _add(self, lines: bytes) -> None:
        try:
            found = [parse_metrics(line) for line in lines.decode().splitlines()]
        except UnicodeDecodeError:
            raise UserError(f"cannot read '{self._path}': it is not UTF-8 text") from None
        if None in found:
            number = len(self._metrics) + found.index(None) + 1
            raise UserError(f"'{self._path}' line {number} is not a JSON object with a step")
        self._metrics = self._metrics + [entry for entry in found if entry is not None]
        self._end += len(lines)
        self._last_bytes = (self._last_bytes + lines)[-_REMEMBERED:]
