"""Somebody's own annotated images made ready to train on: divided, measured and described.

What is written: a config, and the annotation files of the two parts where one set was divided.
"""

import json
import shlex
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from detection.categories import check_same_categories
from detection.coco import (
    Annotation,
    CocoSet,
    check_objects,
    first_of,
    open_coco,
    reason_to_leave_out,
    training_images,
)
from detection.coco_format import Entry
from detection.explained_config import Choice, explained_yaml, printable, to_nested
from detection.fitting import fit_settings, keep_empty_choice
from detection.generated import check_generated
from detection.image_list import list_files
from detection.recipe import EngineName, Recipe
from detection.splitting import PART_OPENING, Split, split_set
from rsa_pretrain.atomic_files import write_text
from rsa_pretrain.config_files import parse_tree
from rsa_pretrain.errors import UserError
from rsa_pretrain.read_rules import DEFAULT_RULES, ReadRules

_OPENING = "Fitted by rsa-detect init"
_RUNS = Path("runs", "detection")
_NAMED_CATEGORIES = 20
_NAMED_IMAGES = 3
_MUCH_MORE = 1.25


@dataclass(frozen=True)
class Request:
    """What a config is asked for."""

    annotations: Path
    images_dir: Path
    out: Path
    """Config to write; the parts' annotation files go beside it."""
    name: str
    """Of the data set, and of the run's folder."""
    test_share: float
    """Of the images, where no test set is given."""
    test_annotations: Path | None
    """None divides the images."""
    test_images_dir: Path
    epochs: int | None
    engine: EngineName
    seed: int
    rules: ReadRules


class Parts(NamedTuple):
    """The two sets of a run."""

    train: CocoSet
    test: CocoSet
    notes: list[str]
    new_files: tuple[CocoSet, ...]
    """Those whose annotation files are still to be written."""


class FittedRun(NamedTuple):
    """A config that was written, in words."""

    summary: str
    notes: list[str]
    """What may not be meant."""
    written: list[Path]
    next_commands: list[str]


def write_fitted_run(request: Request) -> FittedRun:
    """Write a config, and the annotation files of training and testing if the set is divided.

    Raises:
        UserError: If a set cannot be read, divided or trained on, an image cannot be opened or has
            another size than annotated, or a file to be written is somebody else's.
    """
    _check_targets(request)
    parts = _open_parts(request)
    kept = keep_empty_choice(parts.train)
    images = training_images(parts.train, keep_empty=kept.value)
    most = max(_most_objects(part) for part in (parts.train, parts.test))
    fit = fit_settings(images, most, request.epochs, request.engine)
    choices = [*_choices(request, parts, kept), *fit.choices]
    parse_tree(Recipe, to_nested(choices), str(request.out))
    header = _header(request, parts)
    for part in parts.new_files:
        write_text(part.annotations_path, json.dumps(part.tree) + "\n")
    write_text(request.out, explained_yaml(header, choices))
    return FittedRun(
        summary=header[0],
        notes=[*parts.notes, *_absent_categories(parts.train), *fit.notes],
        written=[request.out, *(part.annotations_path for part in parts.new_files)],
        next_commands=_next_commands(request),
    )


def objects_of(coco: CocoSet) -> list[Annotation]:
    """Return the annotations of objects: neither of crowds nor of boxes without area."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in coco.images}
    return [
        entry
        for entry in coco.tree["annotations"]
        if reason_to_leave_out(entry, *sizes[entry["image_id"]]) is None
    ]


def _most_objects(coco: CocoSet) -> int:
    """Return how many objects the fullest image has."""
    return max(Counter(entry["image_id"] for entry in objects_of(coco)).values(), default=0)


def _part_paths(request: Request) -> tuple[Path, Path]:
    out = request.out
    return out.with_name(f"{out.stem}_train.json"), out.with_name(f"{out.stem}_test.json")


def _check_targets(request: Request) -> None:
    """Refuse, before any work, to write over what was not written here, or is read."""
    if request.out.suffix not in (".yaml", ".yml"):
        raise UserError(f"'{request.out}' should end in .yaml")
    if Path(request.name).name != request.name or request.name == "..":
        raise UserError(f"'{request.name}' is no name for a run folder: expected one without '/'")
    check_generated(request.out, f"# {_OPENING}")
    if request.test_annotations is not None:
        return
    for path in _part_paths(request):
        if path.resolve() == request.annotations.resolve():
            raise UserError(f"'{path}' is read and would be written over; name another OUT.yaml")
        check_generated(path, PART_OPENING)


def _open_parts(request: Request) -> Parts:
    given = open_coco(request.annotations, request.images_dir, request.rules, images_key="IMAGES")
    _check_sizes(given)
    if request.test_annotations is None:
        split = split_set(given, request.test_share, request.seed)
        train, test = (
            replace(given, annotations_path=path, tree=tree)
            for path, tree in zip(_part_paths(request), (split.train, split.test), strict=True)
        )
        return Parts(train, test, _split_notes(split, request.test_share), (train, test))
    test = open_coco(
        request.test_annotations,
        request.test_images_dir,
        request.rules,
        images_key="--test-images",
    )
    _check_sizes(test)
    check_same_categories(
        given.category_names,
        test.category_names,
        f"'{given.annotations_path}'",
        f"'{test.annotations_path}'",
    )
    check_objects(test.annotations_path, test.tree)
    return Parts(given, test, [], new_files=())


def _split_notes(split: Split, test_share: float) -> list[str]:
    notes = []
    num_train, num_test = len(split.train["images"]), len(split.test["images"])
    if num_test > _MUCH_MORE * max(1, test_share * (num_train + num_test)):
        notes.append(
            f"the test part has {num_test:,} of {num_train + num_test:,} images, more than a share "
            f"of {test_share:g}, for each category to be in it"
        )
    named = [f"{printable(name)} (on {count})" for name, count in split.one_sided.items()]
    if named:
        notes.append(
            f"{len(named):,} categories are in training alone, and not evaluated: {first_of(named)}"
        )
    return notes


def _check_sizes(coco: CocoSet) -> None:
    files = [coco.images_dir / image["file_name"] for image in coco.images]
    found = {entry["file_name"]: _size(entry) for entry in list_files(files, coco.rules)}
    wrong = [
        f"{image['file_name']} (is {found[file.as_posix()]}, annotated {_size(image)})"
        for image, file in zip(coco.images, files, strict=True)
        if found[file.as_posix()] != _size(image)
    ]
    if wrong:
        raise UserError(
            f"{len(wrong):,} of {len(files):,} images of '{coco.annotations_path}' have another "
            f"size than annotated: {first_of(wrong, _NAMED_IMAGES)}; annotate these files, or give "
            "--as-stored if they were annotated without their EXIF orientation"
        )


def _size(image: Entry) -> str:
    return f"{image['width']}x{image['height']}"


def _absent_categories(train: CocoSet) -> list[str]:
    used = {entry["category_id"] for entry in objects_of(train)}
    absent = [printable(name) for id_, name in train.category_names.items() if id_ not in used]
    if not absent:
        return []
    return [f"{len(absent)} categories have no object to be learnt from: {first_of(absent)}"]


def _choices(request: Request, parts: Parts, kept: Choice) -> list[Choice]:
    """Return what does not depend on the images' content."""
    paths = {
        "train_annotations": parts.train.annotations_path,
        "train_images": parts.train.images_dir,
        "test_annotations": parts.test.annotations_path,
        "test_images": parts.test.images_dir,
    }
    rules = {
        name: getattr(request.rules, name)
        for name in ReadRules.model_fields
        if getattr(request.rules, name) != getattr(DEFAULT_RULES, name)
    }
    return [
        Choice("name", request.name),
        Choice("engine", request.engine),
        Choice("output_dir", _plain_path(_RUNS / request.name)),
        Choice("seed", request.seed),
        Choice("data.name", request.name),
        *(Choice(f"data.{key}", _plain_path(path)) for key, path in paths.items()),
        *(Choice(f"data.{key}", value) for key, value in rules.items()),
        kept,
        Choice("data.num_workers", 4, "Processes that read images; 0 reads in the main one."),
    ]


def _plain_path(path: Path) -> str:
    """Return a path that a config reads as it is: there, too, a leading ~ is a home folder."""
    return str(path.absolute() if str(path).startswith("~") else path)


def _header(request: Request, parts: Parts) -> list[str]:
    images = [len(part.images) for part in (parts.train, parts.test)]
    objects = [len(objects_of(part)) for part in (parts.train, parts.test)]
    names = [printable(parts.train.category_names[id_]) for id_ in parts.train.category_ids]
    return [
        f"{_OPENING} to {printable(str(request.annotations))}: {images[0]:,} training and "
        f"{images[1]:,} test images with {objects[0]:,} and {objects[1]:,} objects of "
        f"{len(names)} categories: {first_of(names, _NAMED_CATEGORIES)}.",
        "",
        *(f"  {printable(command)}" for command in _next_commands(request)),
        "",
        "CHECKPOINT is a pretrained backbone: a run folder or a file, of this toolkit or of another "
        "project. Hours and average precision: not yet measured. Change what you like; another "
        "init with the same OUT.yaml writes over it.",
    ]


def _next_commands(request: Request) -> list[str]:
    out, run, images, found = (
        shlex.quote(f"./{path}" if str(path).startswith(("-", "~")) else str(path))
        for path in (
            request.out,
            _RUNS / request.name,
            request.images_dir,
            request.out.with_name(f"{request.out.stem}_found.json"),
        )
    )
    return [
        f"rsa-detect data-check {out}",
        f"rsa-detect train {out} --checkpoint CHECKPOINT",
        f"rsa-detect predict {run} {images} {found} --pictures",
    ]
