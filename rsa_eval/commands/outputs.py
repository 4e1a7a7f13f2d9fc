"""Check output paths before a command starts its work."""

import os
from collections.abc import Sequence
from pathlib import Path

from rsa_eval.records.record import Record, read_record
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.user_paths import real_path


def check_output(path: Path, suffix: str, option: str = "--out") -> None:
    """Refuse, before any work is done, a path that cannot be written.

    Args:
        path: The file.
        suffix: Required ending of its name.
        option: The option that named it, for errors.

    Raises:
        UserError: If it has another suffix, is a folder, or cannot be created.
    """
    if path.suffix != suffix:
        raise UserError(f"{option} '{path}' should end in {suffix}")
    if path.is_dir():
        raise UserError(f"{option} '{path}' is a folder; name a file in it")
    _check_parents(path, option)


def check_record_output(path: Path, kind: str) -> Record | None:
    """Refuse, before any work is done, to write a record over anything but one of its kind.

    Args:
        path: The file that ``--out`` names.
        kind: The evaluator whose record is to be written.

    Returns:
        The record that will be replaced; None if there is none.

    Raises:
        UserError: If the path cannot be written, or is a file that is no record of this evaluator.
    """
    check_output(path, ".json")
    if not path.exists():
        return None
    advice = "name another file, or delete it first"
    try:
        former = read_record(path)
    except UserError as error:
        raise UserError(
            f"--out would replace a file that is no record: {error}; {advice}"
        ) from None
    if former.kind != kind:
        raise UserError(f"--out '{path}' is a record of {former.kind}, not of {kind}; {advice}")
    return former


def check_apart_from_records(path: Path, option: str, inputs: Sequence[Path]) -> None:
    """Refuse to write over a record, or beside records, where readers expect no other file.

    Args:
        path: The file.
        option: The option that named it, for errors.
        inputs: What the command reads.

    Raises:
        UserError: If it is one of the inputs, or in a folder of records.
    """
    from rsa_eval.records.find import RECORDS_FOLDER

    is_input = real_path(path) in {real_path(given) for given in inputs}
    if is_input or path.absolute().parent.name == RECORDS_FOLDER:
        raise UserError(f"{option} '{path}' is among the records; write it elsewhere")


def check_output_folder(path: Path, option: str = "--out") -> None:
    """Refuse, before any work is done, a folder that cannot be written to.

    Args:
        path: The folder.
        option: The option that named it, for errors.

    Raises:
        UserError: If it is a file or not writable.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{option} '{path}' is a file; name a folder")
    _check_parents(path / "file", option)


def _check_parents(path: Path, option: str) -> None:
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise UserError(f"cannot write {option} '{path}': '{nearest}' is not a writable folder")
