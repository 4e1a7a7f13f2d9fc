"""Prepare a user's annotated images for training: split, measure and describe them.

Writes a config, and the annotation files of both parts if one set was split.
"""

import json
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from detection.coco.box_forms import Entry
from detection.coco.categories import check_same_categories
from detection.coco.data_settings import DetectionData
from detection.coco.image_list import list_files
from detection.coco.opening import open_set
from detection.coco.sets import CocoSet, check_objects, open_coco, training_images
from detection.recipe.recipe import EngineName, Recipe
from detection.survey.box_checks import compare_with_masks, find_repeats
from detection.survey.explained_config import ChosenValue, explained_yaml, printable
from detection.survey.findings import SetFindings, in_words
from detection.survey.fitting import fit_settings, keep_empty_choice
from detection.survey.splitting import PART_OPENING, TrainTestSets, split_set
from rsa_pretrain.data.read_settings import DEFAULT_RULES, ReadRules
from rsa_pretrain.plumbing.atomic_files import write_text
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.device import usable_cores
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.generated_files import check_generated
from rsa_pretrain.plumbing.name_lists import first_of
from rsa_pretrain.plumbing.user_paths import real_path

_OPENING = "Fitted by rsa-detect init"
_RUNS = Path("runs", "detection")
_LISTED, _NAMED = 20, 3
_MUCH_MORE = 1.25


@dataclass(frozen=True)
class InitRequest:
    """Inputs and choices for a config to be written."""

    annotations: Path
    images_dir: Path
    out: Path
    """Config to write; the parts' annotation files are written beside it."""
    test_share: float
    """Share of the images, if no test set is given."""
    test_annotations: Path | None
    """None splits the images."""
    test_images_dir: Path
    epochs: int | None
    engine: EngineName
    seed: int
    rules: ReadRules
    data: DetectionData | None = None
    """Section of the config that stands in place of annotation files; its test set is used."""

    @property
    def is_split(self) -> bool:
        """True if one set's images become both parts."""
        return self.test_annotations is None and self.data is None

    @property
    def name(self) -> str:
        """Name of the data set and of the run."""
        return self.out.stem

    @property
    def run_dir(self) -> Path:
        """The run's folder."""
        return _RUNS / self.name

    @property
    def part_paths(self) -> tuple[Path, Path]:
        """Annotation files of training and testing, if one set is split."""
        train, test = (self.out.with_name(f"{self.name}_{part}.json") for part in ("train", "test"))
        return train, test


class Parts(NamedTuple):
    """The two sets of a run."""

    train: CocoSet
    test: CocoSet
    notes: list[str]
    new_files: tuple[CocoSet, ...]
    """Sets whose annotation files are still to be written."""


class FittedRun(NamedTuple):
    """Description of a written config."""

    summary: str
    notes: list[str]
    """Findings that may be unintended."""
    written: list[Path]
    next_commands: list[str]


def write_fitted_run(request: InitRequest) -> FittedRun:
    """Write a config, and the annotation files of training and testing if the set is split.

    Raises:
        UserError: If a set cannot be read, split or trained on, an image cannot be opened or
            differs in size from its annotation, or a file to be written is somebody else's.
    """
    _check_targets(request)
    parts = _open_parts(request)
    kept = keep_empty_choice(parts.train)
    images = training_images(parts.train, keep_empty=kept.value)
    most_objects = max((parts.train.objects_per_image | parts.test.objects_per_image).values())
    fit = fit_settings(images, most_objects, request.epochs, request.engine)
    choices = [*_choices(request, parts, kept), *fit.choices]
    header = _header(request, parts)
    text = explained_yaml(header, choices)
    parse_tree(Recipe, yaml.safe_load(text), str(request.out))
    for part in parts.new_files:
        write_text(part.annotations_path, json.dumps(part.tree) + "\n")
    write_text(request.out, text)
    return FittedRun(
        summary=header[0],
        notes=[*parts.notes, *fit.notes],
        written=[request.out, *(part.annotations_path for part in parts.new_files)],
        next_commands=_next_commands(request),
    )


def _check_targets(request: InitRequest) -> None:
    """Refuse, before any work, to overwrite inputs or files not written here."""
    if request.out.suffix not in (".yaml", ".yml"):
        raise UserError(f"'{request.out}' should end in .yaml")
    openings = {request.out: f"# {_OPENING}"}
    if request.is_split:
        openings |= dict.fromkeys(request.part_paths, PART_OPENING)
    for path, opening in openings.items():
        if real_path(path) == real_path(request.annotations):
            raise UserError(f"'{path}' is an input and would be overwritten; name another OUT.yaml")
        check_generated(path, opening)


def _open_parts(request: InitRequest) -> Parts:
    given = _open_training(request)
    _check_sizes(given)
    notes = _box_notes(given)
    if request.is_split:
        split = split_set(given, request.test_share, request.seed)
        train, test = (
            replace(given, annotations_path=path, tree=tree)
            for path, tree in zip(request.part_paths, (split.train, split.test), strict=True)
        )
        notes += _split_notes(split, request.test_share)
        return Parts(train, test, notes, new_files=(train, test))
    test = _open_test(request)
    _check_sizes(test)
    check_same_categories(
        given.category_names,
        test.category_names,
        f"'{given.annotations_path}'",
        f"'{test.annotations_path}'",
    )
    check_objects(test.annotations_path, test.tree)
    return Parts(given, test, notes, new_files=())


def _open_training(request: InitRequest) -> CocoSet:
    if request.data is not None:
        return open_set(request.data, "train", request.rules)
    return open_coco(request.annotations, request.images_dir, request.rules, images_key="IMAGES")


def _open_test(request: InitRequest) -> CocoSet:
    if request.data is not None:
        return open_set(request.data, "test", request.rules)
    assert request.test_annotations is not None
    return open_coco(
        request.test_annotations,
        request.test_images_dir,
        request.rules,
        images_key="--test-images",
    )


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
            f"{len(wrong):,} of {len(files):,} images of '{coco.annotations_path}' differ in "
            f"size from the annotations: {first_of(wrong, _NAMED)}; annotate these files, or give "
            "--as-stored if they were annotated without their EXIF orientation"
        )


def _size(image: Entry) -> str:
    return f"{image['width']}x{image['height']}"


def _box_notes(coco: CocoSet) -> list[str]:
    """List the faults that ``data-check`` will find in the boxes that settings are fitted to."""
    found = SetFindings("train", coco)
    compare_with_masks(found)
    find_repeats(found)
    return [f"{line}; correct them and run init again" for line in in_words(found.errors, _NAMED)]


def _split_notes(split: TrainTestSets, test_share: float) -> list[str]:
    notes = []
    num_train, num_test = len(split.train["images"]), len(split.test["images"])
    if num_test > _MUCH_MORE * max(1, test_share * (num_train + num_test)):
        notes.append(
            f"the test part has {num_test:,} of {num_train + num_test:,} images, more than a share "
            f"of {test_share:g}, so that it has every category"
        )
    named = [f"{printable(name)} (on {count})" for name, count in split.one_sided.items()]
    alone = {"categories in training only, which are not evaluated": named} if named else {}
    return [*notes, *in_words(alone, _NAMED)]


def _choices(request: InitRequest, parts: Parts, kept: ChosenValue) -> list[ChosenValue]:
    """Return the choices that do not depend on the images' content."""
    return [
        ChosenValue("name", request.name),
        ChosenValue("engine", request.engine),
        ChosenValue("output_dir", str(request.run_dir)),
        ChosenValue("seed", request.seed),
        *(ChosenValue(f"data.{key}", value) for key, value in _sources(request, parts).items()),
        *(ChosenValue(f"data.{key}", value) for key, value in _unusual(request.rules).items()),
        kept,
        ChosenValue(
            "data.num_workers",
            min(4, usable_cores()),
            "Processes that read images: 4, or the number of cores if lower; 0: the main one.",
        ),
    ]


def _sources(request: InitRequest, parts: Parts) -> dict[str, Any]:
    """Return the settings that name the sets and say where they are."""
    if request.data is None:
        paths = {
            "train_annotations": parts.train.annotations_path,
            "train_images": parts.train.images_dir,
            "test_annotations": parts.test.annotations_path,
            "test_images": parts.test.images_dir,
        }
        return {"name": request.name} | {key: str(path) for key, path in paths.items()}
    tree = request.data.model_dump(mode="json", exclude_defaults=True)
    chosen_here = {*ReadRules.model_fields, "keep_empty_images", "num_workers"}
    return {key: value for key, value in tree.items() if key not in chosen_here}


def _unusual(rules: ReadRules) -> dict[str, Any]:
    """Return the rules that are not the default ones."""
    usual = DEFAULT_RULES.model_dump()
    return {key: value for key, value in rules.model_dump().items() if value != usual[key]}


def _header(request: InitRequest, parts: Parts) -> list[str]:
    train, test = parts.train, parts.test
    names = [printable(train.category_names[id_]) for id_ in train.category_ids]
    return [
        f"{_OPENING} to {printable(str(request.annotations))}: {len(train.images):,} training "
        f"images with {len(train.objects):,} objects, {len(test.images):,} test images with "
        f"{len(test.objects):,}; categories ({len(names):,}): {first_of(names, _LISTED)}.",
        "",
        *(f"  {printable(command)}" for command in _next_commands(request)),
        "",
        "CHECKPOINT is a pretrained backbone: a run folder or a file, of this toolkit or of "
        "another project; '--random-init model.arch=resnet50' instead trains the baseline. "
        "Hours and average precision: not yet measured. Edit freely; another init with the "
        "same OUT.yaml overwrites it.",
    ]


def _next_commands(request: InitRequest) -> list[str]:
    out, run, images, found = (
        shlex.quote(str(path))
        for path in (
            request.out,
            request.run_dir,
            request.images_dir if request.data is None else request.out,
            request.out.with_name(f"{request.name}_found.json"),
        )
    )
    # A detector stores the orientation rule, but no limit on image size.
    limit = _unusual(request.rules).get("max_megapixels")
    options = "--pictures" if limit is None else f"--pictures --max-megapixels {limit:.15g}"
    return [
        f"rsa-detect data-check {out}",
        f"rsa-detect train {out} --checkpoint CHECKPOINT",
        f"rsa-detect predict {run} {images} {found} {options}",
    ]
