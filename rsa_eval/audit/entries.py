"""Name records briefly, and describe how they differ."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from rsa_eval.audit.finding import Side
from rsa_eval.records.record import Record
from rsa_pretrain.plumbing.name_lists import first_of

_TRIAL = re.compile(r"(?P<row>.+)/seed-\d+(?P<rest>/.*)?")
_RECORDS = "records"


@dataclass(frozen=True)
class NamedRecord:
    """A record with its file and a short name."""

    name: str
    path: Path
    record: Record


def name_records(found: Sequence[tuple[Path, Record]]) -> list[NamedRecord]:
    """Name each record by its run's folder, without the folders that all have in common.

    Records of one evaluator and data set in the same run also keep their file's name.
    """
    runs = [_run_of(path) for path, _ in found]
    shared = _num_shared([run.parts for run in runs])
    short = ["/".join(run.parts[shared:]) or run.name for run in runs]
    uses = Counter(
        (name, record.kind, record.data_set) for name, (_, record) in zip(short, found, strict=True)
    )
    entries = []
    for name, (path, record) in zip(short, found, strict=True):
        is_alone = uses[name, record.kind, record.data_set] == 1
        entries.append(NamedRecord(name if is_alone else f"{name}/{path.stem}", path, record))
    return entries


def _run_of(path: Path) -> PurePath:
    path = path.absolute()
    return path.parent.parent if path.parent.name == _RECORDS else path.with_suffix("")


def _num_shared(paths: Sequence[tuple[str, ...]]) -> int:
    """Count the leading parts that all paths share; each keeps its last part."""
    limit = min(map(len, paths)) - 1
    return next(
        (place for place in range(limit) if len({parts[place] for parts in paths}) > 1), limit
    )


def list_names(entries: Sequence[NamedRecord], among: Sequence[NamedRecord]) -> str:
    """List some of the records; all seeds of a row are named once, by their folder.

    Args:
        entries: Records to name.
        among: All records of the comparison.
    """
    own, every = (Counter(row_of(entry) for entry in some) for some in (entries, among))
    names = [
        row_of(entry) if own[row_of(entry)] == every[row_of(entry)] else entry.name
        for entry in entries
    ]
    return first_of(list(dict.fromkeys(names)))


def row_of(entry: NamedRecord) -> str:
    """Return the name of the row that a trial belongs to: x of x/seed-3."""
    match = _TRIAL.fullmatch(entry.name)
    return entry.name if match is None else match["row"] + (match["rest"] or "")


def sides_of(
    entries: Sequence[NamedRecord], value: Callable[[NamedRecord], str | None]
) -> tuple[Side, ...]:
    """Divide records by a value, in the order of its first occurrence.

    Args:
        entries: Records.
        value: Describes a record's value; None leaves the record out.
    """
    found: dict[str, list[str]] = {}
    for entry in entries:
        text = value(entry)
        if text is not None:
            found.setdefault(text, []).append(entry.name)
    return tuple(Side(text, tuple(names)) for text, names in found.items())


def describe_sides(sides: Sequence[Side], among: Sequence[NamedRecord]) -> str:
    """Return ``VALUE in NAMES; VALUE in NAMES``."""
    by_name = {entry.name: entry for entry in among}
    return "; ".join(
        f"{side.value} in {list_names([by_name[name] for name in side.records], among)}"
        for side in sides
    )


def differing_keys(settings: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the sorted keys whose values are not the same in all mappings."""
    keys = {key for own in settings for key in own}
    return sorted(key for key in keys if len({show(own.get(key)) for own in settings}) > 1)


def show(value: object) -> str:
    """Return a setting's value for a sentence."""
    if value is None:
        return "unset"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(show, value))}]"
    if isinstance(value, dict):
        known = (f"{key}: {show(part)}" for key, part in value.items() if part is not None)
        return f"{{{', '.join(known)}}}"
    return str(value)
