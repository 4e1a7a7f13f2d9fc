"""Find records and metric logs below the paths that a command is given."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rsa_eval.records.record import Record, read_record
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.json_text import parse_json
from rsa_pretrain.plumbing.metrics_log import METRICS_FILE
from rsa_pretrain.plumbing.text_files import read_limited
from rsa_pretrain.plumbing.user_paths import real_path

RECORDS_FOLDER = "records"
# Folders of a run that contain no records and no other runs.
_NOT_SEARCHED = frozenset({"checkpoints", "tensorboard"})


def logs_and_records(path: Path) -> list[Path]:
    """Return the files of records and metric logs below a path, in a fixed order.

    A file is a record. A folder is searched recursively for ``metrics.jsonl`` and
    ``records/*.json``; if it is not itself a run, JSON files directly in it are records too.

    Args:
        path: A run folder, a record file, or a folder of either.

    Raises:
        UserError: If the path does not exist or contains neither.
    """
    if not path.exists():
        raise UserError(
            f"'{path}' does not exist; expected a run folder, a record, or a folder of either"
        )
    files = [path] if path.is_file() else list(_below(path))
    if not files:
        raise UserError(
            f"nothing to report in '{path}': expected {METRICS_FILE} or {RECORDS_FOLDER}/*.json "
            "in it or below it"
        )
    return files


def json_files(folder: Path) -> list[Path]:
    """Return the JSON files directly in a folder, sorted, without those being written."""
    return sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))


def read_records_below(paths: Sequence[Path]) -> list[tuple[Path, Record]]:
    """Read every record below some paths, each once, oldest first.

    Raises:
        UserError: If a path contains no record, or one cannot be read.
    """
    found: dict[Path, tuple[Path, Record]] = {}
    for path in paths:
        files = [file for file in logs_and_records(path) if file.name != METRICS_FILE]
        if not files:
            raise UserError(
                f"'{path}' contains no record ({RECORDS_FOLDER}/*.json); evaluate it first, for "
                f"example by 'rsa-eval knn {path}'"
            )
        for file in files:
            found.setdefault(real_path(file), (file, read_record(file)))
    return sorted(found.values(), key=lambda pair: (pair[1].created, str(pair[0])))


def _below(folder: Path) -> Iterator[Path]:
    if not (folder / METRICS_FILE).is_file() and folder.name != RECORDS_FOLDER:
        yield from (file for file in json_files(folder) if _may_be_record(file))
    yield from _search(folder)


def _may_be_record(file: Path) -> bool:
    """Return False for sound JSON of another kind, such as the numbers of a sweep or comparison."""
    try:
        tree = parse_json(read_limited(file))
    except ValueError:
        return True  # its reader says what is wrong
    return isinstance(tree, dict) and "schema_version" in tree


def _search(folder: Path) -> Iterator[Path]:
    if folder.name == RECORDS_FOLDER:
        yield from json_files(folder)
        return
    if (folder / METRICS_FILE).is_file():
        yield folder / METRICS_FILE
    for subfolder in sorted(folder.iterdir()):
        hidden = subfolder.name.startswith(".") or subfolder.name in _NOT_SEARCHED
        if subfolder.is_dir() and not subfolder.is_symlink() and not hidden:
            yield from _search(subfolder)
