"""Where an evaluation leaves files."""

from collections.abc import Collection
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from rsa_pretrain.errors import UserError


@dataclass(frozen=True)
class Workspace:
    """Where an evaluation may leave files beside its result; nothing is there unless it does."""

    record: Path
    """The record to be written."""

    @property
    def state(self) -> Path:
        """What a stopped evaluation goes on from; removed when the record is written."""
        return self.record.with_suffix(".state.pt")

    def fold_state(self, fold: int) -> Path:
        """Return the state of one of several trainings of an evaluation."""
        return self.state.with_name(f"{self.state.stem}.fold-{fold}.pt")

    def remove_states(self) -> None:
        """Delete what a stopped evaluation goes on from."""
        folds = f"{escape(self.state.stem)}.fold-*.pt"
        for path in (self.state, *self.state.parent.glob(folds)):
            path.unlink(missing_ok=True)

    @property
    def artifacts(self) -> Path:
        """Folder of pictures and tables that belong to the record."""
        return self.record.with_suffix(".artifacts")

    def check_artifacts(self, names: Collection[str]) -> None:
        """Refuse, before any work is done, to replace what is not the evaluation's own.

        Args:
            names: Files the evaluation writes to the folder.

        Raises:
            UserError: If there is a file in the folder's place, or another file in the folder.
        """
        folder = self.artifacts
        if not folder.exists():
            return
        if not folder.is_dir():
            raise UserError(f"'{folder}' is a file, and the pictures need a folder there")
        foreign = sorted({path.name for path in folder.iterdir()} - set(names))
        if foreign:
            raise UserError(
                f"the pictures would replace the folder '{folder}', which also holds "
                f"'{foreign[0]}'; move that, or give another --out"
            )
