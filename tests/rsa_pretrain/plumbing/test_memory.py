import re
import resource

import numpy as np
import pytest
import torch

from rsa_pretrain.plumbing import memory
from rsa_pretrain.plumbing.command_line import run_command
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.memory import available_memory, require_memory, why_out_of_memory

MIB, GIB = 2**20, 2**30
V2, V1 = "0::/jobs/7\n", "4:cpu,memory:/jobs/7\n2:cpu:/elsewhere\n0::/\n"


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """A function that writes a made-up /proc and /sys/fs/cgroup, and asks for the memory.

    Files are given by their paths; sizes in MiB. The machine has 8 GiB free and no resource limit.
    """
    monkeypatch.setattr(
        resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    )
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)

    def ask(group=V2, files=None, free="MemAvailable: 8388608 kB\nSwapFree: 0 kB\n"):
        status = "VmSize:\t 2097152 kB\nVmData:\t 1048576 kB\n"
        proc = {"self/status": status, "self/cgroup": group, "meminfo": free}
        for folder, every in (("proc", proc), ("groups", files or {})):
            for name, content in every.items():
                path = tmp_path / folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(str(content * MIB if isinstance(content, int) else content))
        return available_memory(tmp_path / "proc", tmp_path / "groups")

    return ask


def test_without_limits_it_is_what_the_machine_has(kernel):
    """Groups without a limit, in either version, do not count; neither do files that are absent."""
    limits = {"jobs/7/memory.max": "max\n", "memory/jobs/7/memory.limit_in_bytes": 2**63 // MIB}
    used = {"jobs/7/memory.current": 5, "memory/jobs/7/memory.usage_in_bytes": 5}
    for group, files in ((V2, limits | used), (V1, limits | used), ("", {})):
        assert kernel(group, files) == (8 * GIB, "free memory of this machine")


def test_swap_counts(kernel):
    """Nothing is refused that fits with it; a group may have less of it."""
    free = "MemAvailable: 1024 kB\nSwapFree: 4096 kB\n"
    assert kernel(free=free).num_bytes == 5 * MIB
    files = {"jobs/7/memory.max": 2, "jobs/7/memory.current": 1}
    assert kernel(files=files, free=free).num_bytes == 5 * MIB
    files |= {"jobs/7/memory.swap.max": 3, "jobs/7/memory.swap.current": 1}
    assert kernel(files=files, free=free).num_bytes == 3 * MIB


@pytest.mark.parametrize(
    ("files", "left", "group"),
    [
        ({"7/memory.max": 600, "7/memory.current": 200}, 400, "/jobs/7"),
        ({"7/memory.max": 600, "7/memory.high": 500, "7/memory.current": 200}, 300, "/jobs/7"),
        ({"7/memory.max": 600, "7/memory.current": 700}, 0, "/jobs/7"),
        (
            {"7/memory.max": 600, "7/memory.current": 200}
            | {"memory.max": 700, "memory.current": 650},
            50,
            "/jobs",
        ),
    ],
)
def test_a_group_of_version_2_leaves_the_rest(kernel, files, left, group):
    """The tighter of its limit and those of the groups around it."""
    found = kernel(files={f"jobs/{name}": content for name, content in files.items()})
    assert found == (left * MIB, f"memory limit of control group '{group}'")


def test_cached_files_give_way(kernel):
    """Their pages count as used, but are dropped when a process needs memory."""
    stat = f"anon 7\nactive_file {30 * MIB}\ninactive_file {20 * MIB}\ntotal_active_file 9\n"
    files = {"memory.max": 600, "memory.current": 200, "memory.stat": stat}
    assert kernel(files={f"jobs/7/{name}": text for name, text in files.items()}).num_bytes == (
        450 * MIB
    )


def test_a_group_of_version_1_leaves_the_rest(kernel):
    """Its limit with swap is another; controllers of other kinds have other groups."""
    own = "memory/jobs/7"
    stat = f"active_file 7\ntotal_active_file {10 * MIB}\ntotal_inactive_file 0\n"
    files = {f"{own}/memory.limit_in_bytes": 600, f"{own}/memory.usage_in_bytes": 200}
    files[f"{own}/memory.stat"] = stat
    free = f"MemAvailable: 8388608 kB\nSwapFree: {100 * 1024} kB\n"
    assert kernel(V1, files, free) == (510 * MIB, "memory limit of control group '/jobs/7'")
    files |= {f"{own}/memory.memsw.limit_in_bytes": 650, f"{own}/memory.memsw.usage_in_bytes": 220}
    assert kernel(V1, files, free).num_bytes == 440 * MIB


def test_a_container_sees_its_own_group_as_the_root(kernel):
    """Its path may be one of the machine's, which the mount in the container lacks."""
    files = {"memory.max": 300, "memory.current": 100}
    assert kernel("0::/system/docker-1\n", files).num_bytes == 200 * MIB
    assert kernel("0::/\n", files) == (200 * MIB, "memory limit of control group '/'")


def test_resource_limits_leave_what_is_not_yet_taken(kernel, monkeypatch):
    """The process has 2 GiB of address space and 1 GiB of data; a limit may be below."""
    limits = {resource.RLIMIT_AS: 5 * GIB, resource.RLIMIT_DATA: 3 * GIB}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limits[kind], limits[kind]))
    assert kernel() == (2 * GIB, "data of this process, ulimit -d")
    limits[resource.RLIMIT_AS] = 3 * GIB
    assert kernel() == (GIB, "address space of this process, ulimit -v")
    limits[resource.RLIMIT_AS] = GIB
    assert kernel().num_bytes == 0


def test_processes_share_a_machine_but_not_their_own_limits(kernel, monkeypatch):
    """Four ranks have a quarter of 8 GiB each."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert kernel().num_bytes == 2 * GIB
    limit = (4 * GIB, 4 * GIB)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limit)
    assert kernel().num_bytes == 2 * GIB


def test_a_system_without_proc_has_no_answer(tmp_path):
    """As macOS; nothing is refused then."""
    assert available_memory(tmp_path, tmp_path) is None


def test_only_what_cannot_fit_is_refused(monkeypatch, caplog):
    """To the byte; what leaves little for the rest is a warning, half of the memory is not."""
    free = memory.FreeMemory(2 * GIB, "ulimit")
    monkeypatch.setattr(memory, "available_memory", lambda: free)
    monkeypatch.setattr(memory, "_warned_of", set())
    require_memory(GIB, "the cats", "feed fewer")
    assert not caplog.records
    for _ in range(2):
        require_memory(2 * GIB, "the cats", "feed fewer")
    (record,) = caplog.records
    assert "the cats take 2.0 GiB of memory, and 2.0 GiB are available" in record.message
    expected = r"^the cats take 2\.0 GiB .* 2\.0 GiB are available \(ulimit\); feed fewer$"
    with pytest.raises(UserError, match=expected):
        require_memory(2 * GIB + 1, "the cats", "feed fewer")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(UserError, match="of memory in each of 2 processes, and"):
        require_memory(3 * GIB, "the cats", "feed fewer")
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    require_memory(2**60, "the cats", "feed fewer")


LOADER = "Caught MemoryError in DataLoader worker process 0.\nOriginal Traceback (most recent call"
REFUSALS = {
    "torch": (lambda: torch.empty(2**60, dtype=torch.uint8), r"for 1073741824\.0 GiB more;"),
    "numpy": (
        lambda: np.empty(2**60, np.uint8),
        r" \(Unable to allocate 1\.00 EiB for an array.*\);",
    ),
    "python": (lambda: bytearray(2**60), ";"),
}


@pytest.mark.parametrize("who", REFUSALS)
def test_a_refused_allocation_is_one_line(who, capfd):
    """It ends a command as an error with advice, refused by any of the three."""
    allocate, reason = REFUSALS[who]
    assert run_command(lambda: allocate() and 0) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert re.search(f"^error: the memory is too small.*{reason}.*fewer data.num_workers$", line)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "the memory is too small"),
        (MemoryError(f"{LOADER} last):\n  x\nMemoryError"), "the memory is too small"),
        (OSError(12, "Cannot allocate memory"), "the memory is too small"),
        (RuntimeError("CUDA out of memory. Tried 9 GiB. GPU 0"), "the GPU's memory is too small "),
        (RuntimeError("CUDA error: out of memory\nCompile"), "the GPU's memory is too small "),
    ],
)
def test_lack_of_memory_is_recognised(error, reason):
    """Of the machine or of a GPU, in this process or in a loader's."""
    assert why_out_of_memory(error).startswith(reason)


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), OSError(2, "no file"), KeyError()]
)
def test_other_errors_keep_their_traceback(error):
    """They are not explained by memory."""
    assert why_out_of_memory(error) is None
