"""Find how much memory this process may still take, and refuse early what needs more."""

import errno
import logging
import os
import re
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from rsa_pretrain.plumbing.errors import UserError

RAISE_LIMIT = "free some memory or raise that limit"
"""Advice where no setting helps."""

_log = logging.getLogger(__name__)
# Limits that a warning has named: an evaluation asks several times.
_warned_of: set[str] = set()

_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_OWN_LIMITS = (
    (resource.RLIMIT_AS, "VmSize", "address space of this process, ulimit -v"),
    (resource.RLIMIT_DATA, "VmData", "data of this process, ulimit -d"),
)
# Above this share, what is not counted may no longer fit.
_MUCH = 0.8
_ALLOCATED = re.compile(r"allocate (\d+) bytes")
# Of torch on a CPU, of mapped files and of C++; of torch on a GPU and of cuBLAS.
_MARKS = (
    *("can't allocate memory", "Cannot allocate memory", "bad_alloc"),
    *("out of memory", "ALLOC_FAILED"),
)


class FreeMemory(NamedTuple):
    """Memory that this process may still take."""

    num_bytes: int
    limit: str
    """Name of the limit that it comes from, for errors."""


def available_memory(proc: Path = _PROC, groups: Path = _GROUPS) -> FreeMemory | None:
    """Return the memory this process may still take, by the tightest of all limits.

    They are the machine's memory and the limits of its control groups, of either version, each
    with swap and without the file cache and divided by the processes started on this machine, and
    this process's resource limits.

    Args:
        proc: Where the kernel describes processes.
        groups: Where the control groups are mounted.

    Returns:
        None where the system does not tell, as macOS.
    """
    found = [*_of_machine(proc), *_of_groups(proc, groups)]
    processes = _local_processes()
    shared = [FreeMemory(free // processes, limit) for free, limit in found]
    every = [*shared, *_of_process(proc)]
    return min(every) if every else None


def require_memory(num_bytes: int, what: str, advice: str) -> None:
    """Refuse what this process cannot hold; warn of what leaves little memory for the rest.

    Args:
        num_bytes: The least that it takes in this process.
        what: What it is, a plural, for errors.
        advice: What to do.

    Raises:
        UserError: If less is available.
    """
    free = available_memory()
    if free is None or num_bytes <= _MUCH * free.num_bytes:
        return
    each = "" if _local_processes() == 1 else f" in each of {_local_processes()} processes"
    text = (
        f"{what} take {_readable(num_bytes)} of memory{each}, and {_readable(free.num_bytes)} are "
        f"available ({free.limit})"
    )
    if num_bytes > free.num_bytes:
        raise UserError(f"{text}; {advice}")
    if free.limit not in _warned_of:
        _warned_of.add(free.limit)
        _log.warning("%s; if the rest does not fit, %s", text, advice)


def why_out_of_memory(error: BaseException) -> str | None:
    """Say in one line that memory was too small, and for what; None for any other error.

    Args:
        error: Raised by Python, NumPy or torch.
    """
    if isinstance(error, OSError):
        return "the memory is too small" if error.errno == errno.ENOMEM else None
    text = str(error).strip()
    if not isinstance(error, MemoryError) and not any(mark in text for mark in _MARKS):
        return None
    asked = _ALLOCATED.search(text)
    if asked is not None:
        return f"the memory is too small for {_readable(int(asked[1]))} more"
    # Loader processes send their whole traceback, whose last line is the error.
    line = text.rpartition("\n")[2] if "Traceback" in text else text.partition("\n")[0]
    reason = line.rpartition("Error: ")[2].partition(". ")[0].removeprefix("MemoryError").strip()
    where = "GPU's memory" if "CUDA" in reason else "memory"
    return f"the {where} is too small" + (f" ({reason})" if reason else "")


def _readable(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.0f} MiB"


def _local_processes() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _of_machine(proc: Path) -> Iterator[FreeMemory]:
    found = _numbers(proc / "meminfo")
    if "MemAvailable" in found:
        free = found["MemAvailable"] + found.get("SwapFree", 0)
        yield FreeMemory(1024 * free, "free memory of this machine")


def _of_process(proc: Path) -> Iterator[FreeMemory]:
    used = _numbers(proc / "self" / "status")
    for kind, name, limit in _OWN_LIMITS:
        most, _ = resource.getrlimit(kind)
        if most != resource.RLIM_INFINITY and name in used:
            yield FreeMemory(max(0, most - 1024 * used[name]), limit)


def _of_groups(proc: Path, groups: Path) -> Iterator[FreeMemory]:
    """Yield what each control group with a limit leaves, this process's and those around it."""
    swap = 1024 * _numbers(proc / "meminfo").get("SwapFree", 0)
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            own, room = groups, _room_v2
        elif "memory" in controllers.split(","):
            own, room = groups / "memory", _room_v1
        else:
            continue
        # In a container, the path may be one outside and the mount's root the container's group.
        for group in (Path(path), *Path(path).parents):
            free = room(own / group.relative_to("/"), swap)
            if free is not None:
                yield FreeMemory(max(0, free), f"memory limit of control group '{group}'")


def _room_v2(group: Path, swap: int) -> int | None:
    limits = [_number(group / name) for name in ("memory.max", "memory.high")]
    used, stat = _number(group / "memory.current"), _numbers(group / "memory.stat")
    known = [limit for limit in limits if limit is not None]
    if not known or used is None:
        return None
    most_swap = _number(group / "memory.swap.max")
    if most_swap is not None:
        swap = min(swap, most_swap - (_number(group / "memory.swap.current") or 0))
    return min(known) - used + _cache(stat, "") + swap


def _room_v1(group: Path, swap: int) -> int | None:
    cache = _cache(_numbers(group / "memory.stat"), "total_")
    rooms = []
    for kind, more in (("memory", swap), ("memory.memsw", 0)):
        most = _number(group / f"{kind}.limit_in_bytes")
        used = _number(group / f"{kind}.usage_in_bytes")
        if most is not None and used is not None:
            rooms.append(most - used + cache + more)
    return min(rooms) if rooms else None


def _cache(stat: Mapping[str, int], prefix: str) -> int:
    """Return the bytes of files in memory, which the kernel drops when it needs room."""
    return sum(stat.get(f"{prefix}{name}", 0) for name in ("active_file", "inactive_file"))


def _number(path: Path) -> int | None:
    """Return a file's number; None if it has none, as an unlimited group's, or does not exist."""
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _numbers(path: Path) -> dict[str, int]:
    """Return the numbers of a file by the words before them; none if it does not exist."""
    lines = (line.split() for line in _text(path).splitlines())
    return {
        words[0].rstrip(":"): int(words[1])
        for words in lines
        if len(words) > 1 and words[1].isdecimal()
    }


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""
