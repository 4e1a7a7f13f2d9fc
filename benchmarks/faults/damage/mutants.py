"""Damage files: change bytes, text or JSON, or put something else in a file's place."""

import io
import json
import os
import random
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Mutate = Callable[[bytes, random.Random], bytes]

_NOBODY = 65534
_TOKENS = (
    *(b"", b"\xff\xfe", b"\xef\xbb\xbf", b"\x00", b"\xed\xa0\x80", b"\x85", b"\xe2\x80\xa8"),
    *(b"[" * 50_000, b'{"a":' * 50_000, b"- " * 20_000, b"{[" * 2_000, b"((" * 50_000),
    *(b"9" * 5_000, b"1e999", b"-1e999", b"1" + b"_0" * 3_000, b"0x", b"0o9", b"1:99:99.9"),
    *(b"NaN", b"-Infinity", b".nan", b".inf", b"null", b"~", b"true", b"-1", b"1e-400"),
    *(b"2026-13-45", b"2026-01-01 25:61:61", b"!!int x", b"!!float x", b"!!binary \xc3\xa9"),
    *(b"!!timestamp x", b"!!bool x", b"!!set {a, [b]}", b"!!omap [a]", b"!!python/object:os.x"),
    *(b"? [a]\n: b\n", b"? {a: b}\n: c\n", b"<<: 1\n", b"<<: [1]\n", b"&a [*a]", b"*a", b"%x\n"),
    *(
        b'"\\ud800"',
        b'"\\u0000"',
        b"''",
        b"|\n",
        b">\n",
        b"--- a\n--- b\n",
        b"\t",
        b"#",
        b"=",
        b"!",
    ),
)
_JUNK: list[Any] = [
    *(None, True, False, 0, -1, 1, 3, 1.5, 1e9, -1e9, float("nan"), float("inf"), 10**30, 10**400),
    *("", "x", "zzzz", "é", "0" * 50, "\ud800", "\x00", "../..", "/", "9" * 5_000),
    *([], {}, [[]], [1], [None], ["x"], {"x": 1}, {"": {}}),
]


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Change a few places: flip bits and bytes, inflate lengths, copy, repeat or delete pieces."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        if len(changed) < 2:
            break
        place = chance.randrange(len(changed))
        width = chance.choice((1, 2, 4, 8, 64))
        kind = chance.randrange(7)
        if kind == 0:
            changed[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            changed[place] = chance.randrange(256)
        elif kind == 2:
            huge = chance.choice((b"\xff", b"\x7f", b"\x00", b"\x80"))
            changed[place : place + width] = huge * min(width, len(changed) - place)
        elif kind == 3:
            del changed[place : place + width]
        elif kind == 4:
            start = chance.randrange(len(changed))
            changed[place:place] = changed[start : start + width]
        elif kind == 5:
            start = chance.randrange(len(changed))
            changed[place : place + width] = changed[start : start + width]
        else:
            del changed[place + 1 :]
    return bytes(changed)


def mutate_inside_zip(data: bytes, chance: random.Random) -> bytes:
    """Change the pickle or another small member, and rewrite the zip with correct checksums."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(buffer, "w") as target:
        members = source.namelist()
        chosen = next((name for name in members if name.endswith("data.pkl")), members[0])
        if chosen == members[0] or chance.random() < 0.1:
            chosen = chance.choice(members)
        for name in members:
            content = source.read(name)
            target.writestr(name, mutate(content, chance) if name == chosen else content)
    return buffer.getvalue()


def mutate_safetensors(data: bytes, chance: random.Random) -> bytes:
    """Change anything, or only the header, with its stated length corrected."""
    return mutate(data, chance) if chance.random() < 0.5 else mutate_header(data, chance)


def mutate_header(data: bytes, chance: random.Random) -> bytes:
    """Change only the header of a safetensors file, with its stated length corrected."""
    length = int.from_bytes(data[:8], "little")
    header = mutate_text(data[8 : 8 + length], chance)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def mutate_text(data: bytes, chance: random.Random) -> bytes:
    """Change bytes, or put one to three odd tokens into a text or in the place of a word."""
    if chance.random() < 0.5:
        return mutate(data, chance)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        place = chance.randrange(len(data) + 1)
        end = place
        if chance.random() < 0.5:
            place = max(data.rfind(mark, 0, place) for mark in (b" ", b"\n", b":", b'"')) + 1
            ends = [data.find(mark, place) for mark in (b" ", b"\n", b",", b'"')]
            end = min((found for found in ends if found >= 0), default=len(data))
        data = data[:place] + chance.choice(_TOKENS) + data[end:]
    return data


def mutate_json(data: bytes, chance: random.Random) -> bytes:
    """Change the text, or replace, drop, repeat or misspell one value, most often a deep one."""
    if chance.random() < 0.4:
        return mutate_text(data, chance)
    tree = json.loads(data)
    parent, key, node = None, None, tree
    while isinstance(node, dict | list) and node and (parent is None or chance.random() < 0.85):
        parent, key = (
            node,
            chance.choice(list(node) if isinstance(node, dict) else range(len(node))),
        )
        node = parent[key]
    kind = chance.random()
    if parent is None or kind < 0.02:
        tree = chance.choice(_JUNK)
    elif kind < 0.15:
        del parent[key]
    elif kind < 0.25 and isinstance(parent, list):
        parent.append(node)
    elif kind < 0.4 and isinstance(node, str):
        parent[key] = node[: chance.randrange(len(node) + 1)] + chance.choice("0azP`~") + node[1:]
    else:
        parent[key] = chance.choice(_JUNK)
    with _long_numbers():
        return json.dumps(tree).encode()


def _put_folder(path: Path) -> None:
    path.mkdir()


def _put_pipe(path: Path) -> None:
    os.mkfifo(path)


def _put_loop(path: Path) -> None:
    path.symlink_to(path)


def _put_dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("nothing-there"))


def _put_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _put_nothing(path: Path) -> None:
    path.symlink_to("/dev/null")


SWAPS: dict[str, Callable[[Path], None]] = {
    "folder": _put_folder,
    "pipe": _put_pipe,
    "endless device": _put_zeros,
    "empty device": _put_nothing,
    "loop of links": _put_loop,
    "dangling link": _put_dangling_link,
}
"""Things that may stand in a file's place; each is put at a free path."""
UNREADABLE = "unreadable"
"""The file itself, which the reader may not open."""


@contextmanager
def damaged(path: Path, content: bytes, change: Mutate, chance: random.Random) -> Iterator[str]:
    """Damage a file for the duration of the block, once of sixteen times as a swap.

    Args:
        path: The file.
        content: Its undamaged content.
        change: Changes bytes.
        chance: Chooses the damage.

    Yields:
        The name of the swap, empty for changed bytes.
    """
    swap = chance.choice((*SWAPS, UNREADABLE)) if chance.random() < 1 / 16 else ""
    remove(path)
    if swap in SWAPS:
        SWAPS[swap](path)
    else:
        path.write_bytes(
            content if swap else b"" if chance.random() < 0.01 else change(content, chance)
        )
    try:
        yield swap
    finally:
        remove(path)
        path.write_bytes(content)


def remove(path: Path) -> None:
    """Delete a file, or what stands in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def without_permission(path: Path) -> Iterator[None]:
    """Forbid reading; the mode stops everybody but root, who acts as nobody meanwhile."""
    path.chmod(0)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        path.chmod(0o600)


@contextmanager
def _long_numbers() -> Iterator[None]:
    """Let numbers of any length be written."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(before)
