"""Recognise the layout of a file: how sure that is, and why."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of
from rsa_pretrain.weights.files.file_content import FileContent
from rsa_pretrain.weights.files.tree import SEPARATOR
from rsa_pretrain.weights.foreign.assign import networks_in
from rsa_pretrain.weights.foreign.layout import Layout, first_match
from rsa_pretrain.weights.foreign.layouts import LAYOUTS, NAMINGS, PLAIN, UNUSABLE
from rsa_pretrain.weights.foreign.plan import Plan, make_plan
from rsa_pretrain.weights.foreign.prefixes import NetworkPlace, nearest, network_at, networks_seen
from rsa_pretrain.weights.foreign.unwrap import Unwrapped, unwrapped

AUTO = "auto"
_SHOWN_GROUPS = 8
_CHOOSE = "choose one with rsa-pretrain import --prefix"


@dataclass(frozen=True)
class RecognisedLayout:
    """A plan, and why its layout was chosen."""

    plan: Plan
    how: str
    """One sentence: stated by the user, or how sure and on what evidence."""


def recognise(
    content: FileContent,
    layout: str = AUTO,
    network: str | None = None,
    *,
    prefix: str | None = None,
    finite: bool = True,
    cifar_stem: bool = False,
) -> RecognisedLayout:
    """Find the layout by its markers, or else the only network in the file; plan the import.

    Several layouts may read a file alike (the same tensors, the same pixel statistics): then the
    first one gives its name and the others are mentioned. If the file has no documented layout's
    markers, a network of any known naming is taken if it is the only one. Nothing else is guessed.

    Args:
        content: The file.
        layout: Name of a layout, or ``auto``.
        network: Which network to take; None takes the layout's default.
        prefix: Prefix of the network, instead of its layout's.
        finite: Refuse NaN and infinity.
        cifar_stem: As for ``make_plan``.

    Raises:
        UserError: If no layout accounts for the file, or several do and differ, or it contains
            several networks and none is documented as the one to take; lists them.
    """
    content = unwrapped(content)
    plan = partial(make_plan, content, finite=finite, cifar_stem=cifar_stem)
    if prefix is not None:
        if network is not None:
            raise UserError("give --network or --prefix, not both: each selects the network")
        return RecognisedLayout(plan(_layout_at(content, layout, prefix)), "its prefix is stated")
    if layout != AUTO:
        return RecognisedLayout(plan(find_layout(layout), network), "stated")
    candidates = matching_layouts(content)
    plans, refusals = _try(partial(plan, network=network), list(candidates))
    if not plans and network is not None:
        raise UserError(_refused(content, list(refusals.values())) or _no_network(content, network))
    if not plans:
        return _take_only_network(content, plan, list(candidates), _final(content, refusals))
    first, *others = plans
    if not all(_alike(first, plan) for plan in others):
        names = ", ".join(plan.layout.name for plan in plans)
        raise UserError(
            f"'{content.path}' is ambiguous: {names} all account for its tensors and differ in "
            "what they take; give one with rsa-pretrain import --layout"
        )
    names_of_others = [plan.layout.name for plan in others]
    return RecognisedLayout(first, _how(content, first, names_of_others, candidates))


def find_layout(name: str) -> Layout:
    """Return the layout with a name.

    Raises:
        UserError: If there is none.
    """
    for layout in LAYOUTS:
        if layout.name == name:
            return layout
    known = ", ".join(layout.name for layout in LAYOUTS)
    raise UserError(f"there is no layout '{name}'; choose one of: {AUTO}, {known}")


def matching_layouts(content: FileContent) -> dict[Layout, list[str]]:
    """Return the layouts whose markers a file has, all of them, each with a path per marker.

    Raises:
        UserError: If the file is known to contain no network this toolkit can build.
    """
    content = unwrapped(content)
    for unusable in UNUSABLE:
        if all(first_match(marker, content) for marker in unusable.markers):
            raise UserError(f"'{content.path}' is of {unusable.name}: {unusable.why}")
    found = {layout: layout.evidence(content) for layout in LAYOUTS}
    return {
        layout: [content.in_file.get(path, path) for path in evidence]
        for layout, evidence in found.items()
        if evidence is not None
    }


def _layout_at(content: Unwrapped, layout: str, prefix: str) -> Layout:
    """Return the layout that reads the network under a prefix that a user states."""
    documented = list(matching_layouts(content))
    asked = NAMINGS if layout == AUTO else [find_layout(layout)]
    found = network_at(content, prefix, asked, documented if layout == AUTO else asked)
    if found is None:
        seen = networks_seen(content, documented)
        there = f"networks are {_listed(seen)}" if seen else _groups(content)
        raise UserError(
            f"no network is under '{prefix}' in '{content.path}': no tensor there has the name "
            f"of a network's first one; {there}"
        )
    return found.layout


def _final(content: Unwrapped, refusals: dict[Layout, str]) -> dict[Layout, str]:
    """Return the refusals that rule out other readings: by layouts with unique markers."""
    return {
        layout: refusal
        for layout, refusal in refusals.items()
        if layout not in PLAIN or len(networks_in(content, layout)) > 1
    }


def _take_only_network(
    content: Unwrapped,
    plan: Callable[[Layout], Plan],
    documented: list[Layout],
    refusals: dict[Layout, str],
) -> RecognisedLayout:
    """Take the only network of any known naming in a file of no documented layout.

    Args:
        content: The file.
        plan: Plans the import under a layout.
        documented: Layouts whose markers the file has.
        refusals: Why some of those do not account for it and rule out other readings.
    """
    seen = networks_seen(content, documented)
    plans, others = _try(plan, [place.layout for place in seen])
    if refusals:
        whole = [place for place in seen if place.layout not in others]
        where = f"; a complete network is {_listed(whole)}: {_CHOOSE}" if whole else ""
        raise UserError(_refused(content, list(refusals.values())) + where)
    if not seen:
        raise UserError(_no_layout(content))
    if len(seen) > 1 and (others or not all(_alike(plans[0], plan) for plan in plans[1:])):
        raise UserError(f"'{content.path}' has {len(seen)} networks, {_listed(seen)}; {_CHOOSE}")
    if others:
        raise UserError(next(iter(others.values())))
    num_dropped = sum(len(paths) for paths in plans[0].dropped.values())
    how = (
        f"by its names: the one network of the file lies under '{plans[0].prefix}', and "
        f"{num_dropped} of {len(content.tensors)} tensors are ignored"
    )
    again = "; the same tensors lie " + _listed(seen[1:]) if seen[1:] else ""
    return RecognisedLayout(plans[0], how + again)


def _try(
    plan: Callable[[Layout], Plan], layouts: list[Layout]
) -> tuple[list[Plan], dict[Layout, str]]:
    plans, refusals = [], {}
    for layout in layouts:
        try:
            plans.append(plan(layout))
        except UserError as error:
            refusals[layout] = str(error)
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
        return f"weights unambiguous: {accounted}; read alike by {', '.join(others)}"
    return f"unambiguous: {accounted}; no other layout fits"


def _no_network(content: FileContent, network: str) -> str:
    return (
        f"'{content.path}' has no documented layout, and only those give names to networks; "
        f"instead of --network {network}, give its --prefix or its --layout"
    )


def _refused(content: FileContent, refusals: list[str]) -> str:
    if len(refusals) < 2:
        return "".join(refusals)
    return (
        f"'{content.path}' has the markers of {len(refusals)} layouts, but none accounts for it; "
        "give one with rsa-pretrain import --layout: " + " | ".join(refusals)
    )


def _listed(seen: Sequence[NetworkPlace]) -> str:
    return "under " + ", ".join(f"'{place.shown}'" for place in seen)


def _no_layout(content: Unwrapped) -> str:
    near = nearest(content)
    naming = ", ".join(f"{layout.name}'s" for layout in NAMINGS)
    return (
        f"'{content.path}' has no known layout: {_groups(content)}; "
        + (near or f"it has no stem and stages of a ResNet by {naming} names")
        + "; rsa-pretrain inspect shows its contents"
        + content.shares
    )


def _groups(content: Unwrapped) -> str:
    """Return the number of tensors under each module, the largest first."""
    counts: dict[str, int] = {}
    for path in content.in_file.values():
        folder, slash, name = path.rpartition(SEPARATOR)
        group = f"{folder}{slash}{name.partition('.')[0]}"
        counts[group] = counts.get(group, 0) + 1
    largest = sorted(counts, key=lambda group: -counts[group])
    groups = [f"'{group}' ({counts[group]})" for group in largest]
    return f"{len(content.tensors)} tensors under {first_of(groups, _SHOWN_GROUPS)}"
