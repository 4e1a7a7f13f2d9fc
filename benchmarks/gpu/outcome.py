"""Record how each item of a GPU's time ended."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from benchmarks.measure import RESULTS, Result
from rsa_pretrain.plumbing.atomic_files import write_text
from rsa_pretrain.plumbing.config.files import Section
from rsa_pretrain.plumbing.errors import UserError

GPU_RESULTS = RESULTS / "gpu"
"""The outcomes of the last run on a GPU, an item a file."""

State = Literal["measured", "failed", "killed", "cut", "skipped", "interrupted"]


class Outcome(Section):
    """One item's end."""

    item: str
    state: State
    reason: str | None = None
    """Why there is no result."""
    seconds: float = 0.0
    """Time it took, its start included."""
    result: Result | None = None
    created: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    """UTC, ISO 8601."""


def write_outcome(outcome: Outcome, folder: Path) -> None:
    """Write an item's outcome, replacing the last one."""
    write_text(folder / f"{outcome.item}.json", outcome.model_dump_json(indent=2) + "\n")


def read_outcomes(folder: Path) -> dict[str, Outcome]:
    """Read the outcomes in a folder, by item.

    Raises:
        UserError: If a file is not an outcome.
    """
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            outcome = Outcome.model_validate_json(path.read_bytes())
        except ValueError:
            raise UserError(f"'{path}' is not the outcome of an item; remove it") from None
        found[outcome.item] = outcome
    return found
