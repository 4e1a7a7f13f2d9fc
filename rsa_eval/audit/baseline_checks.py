"""Check for the rows and seeds without which a difference has no meaning."""

from collections.abc import Sequence
from pathlib import Path

from rsa_eval.audit.entries import NamedRecord, list_names, row_of, show, sides_of
from rsa_eval.audit.finding import Finding
from rsa_eval.audit.row_kinds import is_control, is_random, is_self_supervised
from rsa_eval.records.groups import Group, group_records


def check_baselines(entries: Sequence[NamedRecord]) -> list[Finding]:
    """Name missing baselines, single seeds, and differing versions of the libraries."""
    found = [_random_weights(entries), _batchnorm_control(entries), *_seeds(entries)]
    found.append(_versions(entries))
    return [finding for finding in found if finding is not None]


def _random_weights(entries: Sequence[NamedRecord]) -> Finding | None:
    learned = [entry for entry in entries if is_self_supervised(entry.record)]
    if not learned or any(is_random(entry.record) for entry in entries):
        return None
    return Finding(
        "caution",
        "random weights",
        f"no random weights are evaluated beside {list_names(learned, entries)}: nothing shows how "
        "much of the accuracy is learned",
        "add a record of the same evaluation with --random-init",
    )


def _batchnorm_control(entries: Sequence[NamedRecord]) -> Finding | None:
    """Require, beside random weights, random weights with adapted BatchNorm statistics.

    Pretraining replaces the BatchNorm statistics of the network by those of the images, which
    alone changes an untrained network's accuracy by several points, in either direction.
    """
    learned = [entry for entry in entries if is_self_supervised(entry.record)]
    baselines = [entry for entry in entries if is_random(entry.record)]
    if not learned or not baselines or any(is_control(entry.record) for entry in entries):
        return None
    return Finding(
        "caution",
        "BatchNorm control",
        f"beside {list_names(learned, entries)} stand untouched random weights "
        f"({list_names(baselines, entries)}): pretraining also adapts the BatchNorm statistics, "
        "which alone can change the accuracy of random weights by several points",
        "add a run with the learning rate near zero (optimizer.base_lr=1e-9, one epoch)",
    )


def _seeds(entries: Sequence[NamedRecord]) -> list[Finding]:
    by_path = {entry.path: entry for entry in entries}
    groups = group_records([(entry.path, entry.record) for entry in entries])
    counts = {_row(group, by_path): len(set(group.labels)) for group in groups}
    found = []
    single = [
        group for group in groups if len(set(group.labels)) == 1 and is_self_supervised(group.first)
    ]
    if single:
        names = list_names([by_path[group.paths[0]] for group in single], entries)
        verb = "has" if len(single) == 1 else "have"
        found.append(
            Finding(
                "caution",
                "seeds",
                f"{names} {verb} a single seed: the variation between trainings is unknown",
                "train and evaluate with several seeds",
            )
        )
    several = {name: count for name, count in counts.items() if count > 1}
    if len(set(several.values())) > 1:
        listed = ", ".join(f"{name} has {count}" for name, count in several.items())
        found.append(
            Finding(
                "caution",
                "seeds",
                f"the numbers of seeds differ: {listed}",
                "use the same seeds for every row",
            )
        )
    return found


def _row(group: Group, by_path: dict[Path, NamedRecord]) -> str:
    return row_of(by_path[group.paths[0]])


def _versions(entries: Sequence[NamedRecord]) -> Finding | None:
    versions = {entry.name: entry.record.library_versions for entry in entries}
    every = {name for own in versions.values() for name in own}
    differing = sorted(
        name for name in every if len({own.get(name) for own in versions.values()}) > 1
    )
    if not differing:
        return None
    parts = []
    for name in differing:
        found = {own.get(name) for own in versions.values()}
        parts.append(f"{name} {', '.join(sorted(show(version) for version in found))}")
    sides = sides_of(
        entries,
        lambda entry: ", ".join(
            f"{name} {show(versions[entry.name].get(name))}" for name in differing
        ),
    )
    return Finding(
        "note",
        "library versions",
        f"the evaluations used several versions: {'; '.join(parts)}",
        "evaluate all with one installation where a small difference matters",
        sides,
    )
