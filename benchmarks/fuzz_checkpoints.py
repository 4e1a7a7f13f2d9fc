"""Read thousands of damaged checkpoints of every format and count the outcomes.

    python -m benchmarks.fuzz_checkpoints --count 2000 --seed 0

Each mutant must be refused with the toolkit's own error, or read. A file that is read is then
compared as in an import: names, shapes and types must be those of the network, or it is refused.
Accepted mutants may contain other numbers if their format has no checksum; a zip whose pickle was
changed and rewritten with correct checksums is another valid file, but a zip damaged from outside
must be refused. Any other exception, a crash of the process or a mutant that takes ten seconds is a
finding, and the exit code is 1. Each batch runs in a separate process, so that a crash is noticed.
"""

import argparse
import io
import multiprocessing
import pickle
import random
import resource
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from rsa_pretrain.plumbing.command_line import say
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.text_table import render_table
from rsa_pretrain.weights.files.file_content import read_checkpoint_file
from rsa_pretrain.weights.tensor_check import check_tensors

BATCH = 250
SECONDS_PER_MUTANT = 10
FINDINGS = ("another exception", "crash", "too slow", "other numbers despite checksums")

TENSORS = {
    f"layer{block}.{name}": tensor
    for block in range(4)
    for name, tensor in {
        "conv.weight": torch.arange(72.0).reshape(4, 2, 3, 3) + block,
        "norm.bias": torch.linspace(-1, 1, 4) * (block + 1),
        "norm.num_batches_tracked": torch.tensor(7 + block),
    }.items()
}
VALUES = {"epoch": 3, "args": argparse.Namespace(lr=0.1, schedule=[120, 160])}

Mutate = Callable[[bytes, random.Random], bytes]


class TooSlowError(BaseException):
    """Raised on timeout; no exception handler may take it for damage."""


def torch_file(content: Any, protocol: int = 2, *, legacy: bool = False) -> bytes:
    """Return a torch.save file, in the format before PyTorch 1.6 if ``legacy``."""
    buffer = io.BytesIO()
    torch.save(content, buffer, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def plain() -> dict[str, Any]:
    """Return weights and settings."""
    return {**TENSORS, **VALUES}


def beside() -> dict[str, Any]:
    """Return weights and objects that scripts save beside them."""
    others = {
        "numpy": np.random.default_rng(0),
        "rng": torch.get_rng_state(),
        "scalar": np.float64(0.5),
        "names": np.array(["a", "b"]),
        "out": PurePosixPath("/a"),
        "when": datetime(2026, 1, 1, tzinfo=UTC),
        "method": nn.ReLU().forward,
        "counts": Counter("aab"),
        "classes": {1, 2},
    }
    return plain() | {"beside": others}


def whole_network() -> nn.Module:
    """Return a network with the weights under their names, to be pickled whole."""
    root = nn.Module()
    for name, tensor in TENSORS.items():
        *folders, leaf = name.split(".")
        module = root
        for folder in folders:
            if folder not in module._modules:
                module.add_module(folder, nn.Module())
            module = module.get_submodule(folder)
        module.register_buffer(leaf, tensor)
    return root


def array_pickle() -> bytes:
    """Return a plain pickle of numpy arrays."""
    arrays = {name: tensor.numpy() for name, tensor in TENSORS.items()}
    return pickle.dumps({**arrays, "epoch": 3}, protocol=4)


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
        chosen = next(name for name in members if name.endswith("data.pkl"))
        if chance.random() < 0.1:
            chosen = chance.choice(members)
        for name in members:
            content = source.read(name)
            target.writestr(name, mutate(content, chance) if name == chosen else content)
    return buffer.getvalue()


def safetensors_header(data: bytes, chance: random.Random) -> bytes:
    """Change only the header, with its stated length corrected."""
    length = int.from_bytes(data[:8], "little")
    header = mutate(data[8 : 8 + length], chance)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


FORMATS: dict[str, tuple[Callable[[], bytes], Mutate]] = {
    "torch.save": (lambda: torch_file(plain()), mutate),
    "torch.save, pickle changed inside": (lambda: torch_file(plain()), mutate_inside_zip),
    "torch.save before 1.6": (lambda: torch_file(plain(), legacy=True), mutate),
    "other objects, pickle changed inside": (lambda: torch_file(beside()), mutate_inside_zip),
    "other objects, protocol 5, before 1.6": (
        lambda: torch_file(beside(), protocol=5, legacy=True),
        mutate,
    ),
    "whole network, pickle changed inside": (
        lambda: torch_file(whole_network(), protocol=4),
        mutate_inside_zip,
    ),
    "whole network before 1.6": (lambda: torch_file(whole_network(), legacy=True), mutate),
    "safetensors": (lambda: save(TENSORS), mutate),
    "safetensors, header changed": (lambda: save(TENSORS), safetensors_header),
    "pickle of numpy arrays": (array_pickle, mutate),
    "pickle of tensors": (lambda: pickle.dumps(plain()), mutate),
}
CHECKSUMMED = "torch.save"


def outcome(path: Path, name: str) -> str:
    """Read one mutant and return the outcome."""
    try:
        tensors: dict[str, Tensor] = dict(read_checkpoint_file(path).tensors)
    except UserError:
        return "refused when read"
    try:
        check_tensors(tensors, TENSORS, "mutant")
    except UserError:
        return "refused when compared"
    if all(torch.equal(tensors[key], TENSORS[key]) for key in TENSORS):
        return "same tensors"
    return "other numbers despite checksums" if name == CHECKSUMMED else "other numbers"


def run_batch(name: str, seeds: range, results: Connection) -> None:
    """Try a batch of mutants, sending each outcome immediately."""
    make, change = FORMATS[name]
    whole = make()

    def too_slow(*_: object) -> None:
        raise TooSlowError

    signal.signal(signal.SIGALRM, too_slow)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutant"
        for seed in seeds:
            path.write_bytes(change(whole, random.Random(f"{name} {seed}")))
            signal.alarm(SECONDS_PER_MUTANT)
            try:
                what = outcome(path, name)
            except TooSlowError:
                what = "too slow"
            except Exception as error:  # counted as a finding
                what = "another exception"
                results.send((seed, f"{type(error).__name__}: {error}"[:300]))
            signal.alarm(0)
            results.send((seed, what))
    results.send((-1, str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)))


def fuzz(name: str, count: int, seed: int) -> tuple[Counter[str], int]:
    """Run a format's mutants; return the outcomes and the largest memory of a batch, in MiB."""
    outcomes: Counter[str] = Counter()
    peak = 0
    context = multiprocessing.get_context("fork")
    known = {"refused when read", "refused when compared", "same tensors", "other numbers"}
    for start in range(seed, seed + count, BATCH):
        seeds = range(start, min(start + BATCH, seed + count))
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=run_batch, args=(name, seeds, sender))
        process.start()
        sender.close()
        last = start - 1
        try:
            while True:
                number, what = receiver.recv()
                if number < 0:
                    peak = max(peak, int(what))
                elif what in known or what in FINDINGS:
                    outcomes[what] += 1
                    last = number
                else:
                    say(f"finding: {name}, seed {number}: {what}")
        except EOFError:
            process.join()
        if process.exitcode != 0:
            outcomes["crash"] += 1
            say(f"finding: {name}, seed {last + 1}: the process ended with {process.exitcode}")
    return outcomes, peak


def main() -> int:
    """Fuzz every format and print the counts as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=2000, help="mutants per row (default 2000)")
    parser.add_argument("--seed", type=int, default=0, help="number of the first mutant")
    arguments = parser.parse_args()
    columns = ["refused when read", "refused when compared", "same tensors", "other numbers"]
    rows: list[list[object]] = []
    findings = total = 0
    for name in FORMATS:
        started = time.perf_counter()
        outcomes, peak = fuzz(name, arguments.count, arguments.seed)
        count, bad = sum(outcomes.values()), sum(outcomes[finding] for finding in FINDINGS)
        seconds = round(time.perf_counter() - started)
        rows.append([name, count, *(outcomes[c] for c in columns), bad, peak, seconds])
        findings += bad
        total += count
    heads = ["format", "mutants", *columns, "findings", "peak MiB", "seconds"]
    say(render_table(heads, rows, "markdown"))
    say(f"\n{total} mutants, {findings} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
