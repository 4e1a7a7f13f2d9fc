"""Which layout a file has, how sure that is, and why."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from rsa_pretrain.errors import UserError
from rsa_pretrain.foreign.file_content import FileContent
from rsa_pretrain.foreign.layout import Layout, first_match
from rsa_pretrain.foreign.layouts import LAYOUTS, UNUSABLE
from rsa_pretrain.foreign.plan import Plan, make_plan

AUTO = "auto"


@dataclass(frozen=True)
class Recognised:
    """A plan, and why its layout was chosen."""

    plan: Plan
    how: str
    """One sentence: stated by the user, or how sure and on what evidence."""


def recognise(
    content: FileContent,
    layout: str = AUTO,
    network: str | None = None,
    *,
    finite: bool = True,
    cifar_stem: bool = False,
) -> Recognised:
    """Find the layout by its marker keys, and plan the import.

    Several layouts may read a file alike (the same tensors, the same pixel statistics): then the
    first one gives its name and the others are mentioned. Nothing else is ever guessed.

    Args:
        content: The file.
        layout: Name of a layout, or ``auto``.
        network: Which network to take; None takes the layout's default.
        finite: Refuse NaN and infinity.
        cifar_stem: As for ``make_plan``.

    Raises:
        UserError: If no layout accounts for the file, or several do that differ; lists them.
    """
    plan = partial(make_plan, content, network=network, finite=finite, cifar_stem=cifar_stem)
    if layout != AUTO:
        return Recognised(plan(find_layout(layout)), "stated")
    candidates = matching_layouts(content)
    plans, refusals = _try(plan, list(candidates))
    if not plans:
        raise UserError(_no_layout(content, refusals))
    first, *others = plans
    differing = [plan for plan in others if not _alike(first, plan)]
    if differing:
        names = ", ".join(plan.layout.name for plan in plans)
        raise UserError(
            f"'{content.path}' is ambiguous: {names} all account for its tensors and differ in "
            "what they take; state one with rsa-pretrain import --layout"
        )
    return Recognised(
        first, _how(content, first, [plan.layout.name for plan in others], candidates)
    )


def find_layout(name: str) -> Layout:
    """Return a layout by its name.

    Raises:
        UserError: If there is none.
    """
    for layout in LAYOUTS:
        if layout.name == name:
            return layout
    known = ", ".join(layout.name for layout in LAYOUTS)
    raise UserError(f"there is no layout '{name}'; choose of: {AUTO}, {known}")


def matching_layouts(content: FileContent) -> dict[Layout, list[str]]:
    """Return the layouts all of whose markers a file bears, each with a path per marker.

    Raises:
        UserError: If the file is known to hold no network this toolkit can build.
    """
    for unusable in UNUSABLE:
        if all(first_match(marker, content) for marker in unusable.markers):
            raise UserError(f"'{content.path}' is of {unusable.name}: {unusable.why}")
    found = {layout: layout.evidence(content) for layout in LAYOUTS}
    return {layout: evidence for layout, evidence in found.items() if evidence is not None}


def _try(
    plan: Callable[[Layout], Plan], layouts: list[Layout]
) -> tuple[list[Plan], dict[str, str]]:
    plans, refusals = [], {}
    for layout in layouts:
        try:
            plans.append(plan(layout))
        except UserError as error:
            refusals[layout.name] = str(error)
    return plans, refusals


def _alike(first: Plan, second: Plan) -> bool:
    return (
        first.pixels == second.pixels
        and first.tensors.keys() == second.tensors.keys()
        and all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)
    )


def _how(
    content: FileContent, plan: Plan, others: list[str], candidates: dict[Layout, list[str]]
) -> str:
    keys = " and ".join(f"'{path}'" for path in candidates[plan.layout])
    num_dropped = sum(len(paths) for paths in plan.dropped.values())
    accounted = (
        f"it holds {keys}, and all {len(content.tensors)} tensors are accounted for "
        f"({len(content.tensors) - num_dropped} taken, {num_dropped} dropped by name)"
    )
    if others:
        return f"sure of the weights: {accounted}; {', '.join(others)} would read them alike"
    return f"certain: {accounted}, by no other layout"


def _no_layout(content: FileContent, refusals: dict[str, str]) -> str:
    if len(refusals) == 1:
        return next(iter(refusals.values()))
    if refusals:
        return (
            f"'{content.path}' could be of {', '.join(refusals)}, and none accounts for it; "
            "state one with rsa-pretrain import --layout: " + " | ".join(refusals.values())
        )
    heads = sorted({path.rpartition(".")[0].split(".")[0] for path in content.tensors})
    return (
        f"'{content.path}' has no layout that is known: {len(content.tensors)} tensors under "
        + ", ".join(f"'{head}'" for head in heads[:8])
        + f"; state one of {', '.join(layout.name for layout in LAYOUTS)} with rsa-pretrain import "
        "--layout"
    )
