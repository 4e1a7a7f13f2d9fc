"""Name the files that an evaluation may write beside its record."""

from collections.abc import Collection
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from rsa_pretrain.plumbing.errors import UserError


@dataclass(frozen=True)
class Workspace:
    """Paths of the files an evaluation may write beside its record."""

    record: Path
    """The record to write."""

    @property
    def state(self) -> Path:
        """State from which a stopped evaluation resumes; removed when the record is written."""
        return self.record.with_suffix(".state.pt")

    def fold_state(self, fold: int) -> Path:
        """Return the state file of one of an evaluation's several training runs."""
        return self.state.with_name(f"{self.state.stem}.fold-{fold}.pt")

    @property
    def grid_state(self) -> Path:
        """File of the finished trials of a search for settings."""
        return self.state.with_name(f"{self.state.stem}.grid.pt")

    @property
    def states(self) -> list[Path]:
        """Existing files from which a stopped evaluation resumes."""
        folds = self.state.parent.glob(f"{escape(self.state.stem)}.fold-*.pt")
        return [path for path in (self.state, self.grid_state, *folds) if path.exists()]

    def remove_states(self) -> None:
        """Delete the states from which a stopped evaluation would resume."""
        for path in self.states:
            path.unlink(missing_ok=True)

    @property
    def artifacts(self) -> Path:
        """Folder of plots and tables that belong to the record."""
        return self.record.with_suffix(".artifacts")

    def check_artifacts(self, names: Collection[str]) -> None:
        """Refuse, before any work is done, to replace files the evaluation did not write.

        Args:
            names: Files the evaluation writes to the folder.

        Raises:
            UserError: If the folder's path is a file, or the folder contains any other file.
        """
        folder = self.artifacts
        if not folder.exists():
            return
        if not folder.is_dir():
            raise UserError(f"'{folder}' is a file; the plots need a folder there")
        foreign = sorted({path.name for path in folder.iterdir()} - set(names))
        if foreign:
            raise UserError(
                f"the plots would replace the folder '{folder}', which also contains "
                f"'{foreign[0]}'; move that, or give another --out"
            )
