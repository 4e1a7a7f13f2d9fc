"""Log a run's metrics as JSON lines, TensorBoard scalars and optionally to Weights & Biases."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch.utils.tensorboard import SummaryWriter

from rsa_pretrain.plumbing.atomic_files import write_text
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.extras import import_extra
from rsa_pretrain.plumbing.json_text import parse_shown_json
from rsa_pretrain.plumbing.regular_files import is_there
from rsa_pretrain.plumbing.text_files import read_text

METRICS_FILE = "metrics.jsonl"
# A million lines of 200 bytes take 200.
_LARGEST_MIB = 1024


class MetricsLog:
    """Append-only log of one run; a resumed run continues it without gaps or repeats.

    Args:
        run_dir: Run folder, for ``metrics.jsonl`` and ``tensorboard/``.
        start_step: Optimizer steps already taken; later lines, written after the checkpoint
            that is resumed from, are dropped.
        wandb_project: Weights & Biases project to log to as well; the run there is named after
            the folder and continued when the folder's run is resumed.

    Raises:
        UserError: If a project is named and the package ``wandb`` is not installed.
    """

    def __init__(self, run_dir: Path, start_step: int, wandb_project: str | None = None) -> None:
        self._wandb = None if wandb_project is None else _start_wandb(run_dir, wandb_project)
        path = run_dir / METRICS_FILE
        if is_there(path):
            kept = [line for line in read_metrics(path) if line["step"] <= start_step]
            write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=start_step + 1)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add one line; ``step`` counts the optimizer steps taken so far."""
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(dict(metrics), step=step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with ExitStack() as closing:  # all of them, also if one fails as its disk is full
            closing.callback(self._board.close)
            closing.callback(self._file.close)
        if self._wandb is not None:
            self._wandb.finish(exit_code=0 if error is None else 1)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a ``metrics.jsonl``; a last line cut short by a kill is dropped.

    Raises:
        UserError: If it cannot be read, is not UTF-8 text, or another line is not a JSON object
            with a ``step``.
    """
    metrics = [parse_metrics(line) for line in read_text(path, _LARGEST_MIB).splitlines()]
    if None in metrics[:-1]:
        number = metrics.index(None) + 1
        raise UserError(f"'{path}' line {number} is not a JSON object with a step")
    return [entry for entry in metrics if entry is not None]


def parse_metrics(line: str) -> dict[str, Any] | None:
    """Parse one line of a ``metrics.jsonl``; return None if it is no JSON object with a step."""
    try:
        entry = parse_shown_json(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("step"), int) else None


def _start_wandb(run_dir: Path, project: str) -> Any:
    wandb = import_extra("wandb", f"monitor.wandb_project={project}")
    identity = hashlib.sha256(str(run_dir.resolve()).encode()).hexdigest()[:16]
    return wandb.init(
        project=project, name=run_dir.name, id=identity, resume="allow", dir=str(run_dir)
    )
