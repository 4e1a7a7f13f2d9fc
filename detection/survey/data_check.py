"""Count and decode a COCO-format set and find what would break or bias training."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from detection.coco.box_forms import FAULTS_OF_ALL, Entry
from detection.coco.categories import is_same_name
from detection.coco.counted_objects import is_difficult
from detection.coco.data_settings import SetRole
from detection.coco.image_places import where_images_are
from detection.coco.images import read_with_mode
from detection.coco.importers.voc import DIFFICULT
from detection.coco.masks import Size, has_mask, polygons
from detection.coco.opening import places_of, read_faulty
from detection.coco.sets import (
    CocoSet,
    FaultySet,
    check_objects,
    read_faulty_coco,
    reason_to_leave_out,
    training_images,
)
from detection.recipe.recipe import Recipe
from detection.survey.box_checks import compare_with_masks, find_repeats
from detection.survey.findings import SetFindings
from detection.survey.limit_checks import DetectorLimits, check_counts, check_sizes, limits_of
from rsa_pretrain.data.read_settings import DEFAULT_RULES, ReadRules
from rsa_pretrain.data.stored_modes import how_read
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.threads import map_in_threads

# Rounded coordinates commonly stick out by fractions of a pixel.
TOLERANCE_PIXELS = 1.0

_LEFT_OUT = "left out of training: "
_MASKLESS: dict[SetRole, str] = {
    "train": "instances without a mask, which train boxes alone",
    "test": "annotations without a mask, for which masks are not evaluated",
}


def check_set(
    annotations: Path,
    images_dir: Path,
    role: SetRole,
    rules: ReadRules = DEFAULT_RULES,
    limits: DetectorLimits | None = None,
    *,
    keep_empty: bool = False,
) -> SetFindings:
    """Check every entry of an annotation file and decode every image.

    Args:
        annotations: COCO-format JSON.
        images_dir: Folder that the file names are relative to.
        role: Training leaves some annotations out; testing needs a mask for each to evaluate masks.
        rules: How to read the images.
        limits: The detector's; None takes those of the default recipe.
        keep_empty: Whether to train on images without annotations, too.

    Raises:
        UserError: If the file or one of its lists cannot be read.
    """
    opened = read_faulty_coco(annotations, images_dir, rules, f"data.{role}_images")
    return _check_opened(opened, role, limits or limits_of(role), keep_empty=keep_empty)


def _check_opened(
    opened: FaultySet, role: SetRole, limits: DetectorLimits, *, keep_empty: bool
) -> SetFindings:
    coco, faults, _ = opened
    found = SetFindings(role, coco)
    found.notes.update({line: [] for line in found.coco.repairs})
    for fault in faults:
        found.add_error(fault.what, [fault.entry])
    _count_categories(found)
    _check_images(found)
    _note_categories(found)
    _note_annotations(found)
    _note_images(found, keep_empty=keep_empty)
    if FAULTS_OF_ALL.isdisjoint(fault.what for fault in faults):
        compare_with_masks(found)
        check_sizes(found, limits)
    find_repeats(found)
    if not faults:  # faults already explain an empty set
        _check_use(found, keep_empty=keep_empty)
        check_counts(found, limits)
    return found


def check_recipe(recipe: Recipe, role: SetRole | None, rules: ReadRules) -> list[SetFindings]:
    """Check the training and the test set of a recipe, and compare them.

    Args:
        recipe: The recipe.
        role: Check this set alone.
        rules: How to read the images.

    Raises:
        UserError: If the first file or one of its lists cannot be read; for the second this is a
            finding.
    """
    checks: list[SetFindings] = []
    if role != "test":
        checks.append(_check_set_of(recipe, "train", rules))
    if role != "train":
        try:
            checks.append(_check_set_of(recipe, "test", rules))
        except UserError as error:
            if not checks:
                raise
            checks.append(_unreadable_set(recipe, error))
    if len(checks) == 2 and all(found.category_sizes for found in checks):
        compare_sets(*checks)
    return checks


def _check_set_of(recipe: Recipe, role: SetRole, rules: ReadRules) -> SetFindings:
    sizes = recipe.model.anchor_sizes_pixels
    limits = limits_of(role, recipe.input, recipe.sampling, sizes)
    opened = read_faulty(recipe.data, role, rules)
    return _check_opened(opened, role, limits, keep_empty=recipe.data.keep_empty_images)


def _unreadable_set(recipe: Recipe, error: UserError) -> SetFindings:
    nothing: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    coco = CocoSet(*places_of(recipe.data, "test"), nothing)
    return SetFindings("test", coco, errors={str(error): []})


def _check_use(found: SetFindings, *, keep_empty: bool) -> None:
    """Add an error if a set of valid entries cannot be used."""
    try:
        if found.role == "train":
            training_images(found.coco, keep_empty=keep_empty)
        else:
            check_objects(found.coco.annotations_path, found.coco.tree)
    except UserError as error:
        found.errors[str(error)] = []


def compare_sets(train: SetFindings, test: SetFindings) -> None:
    """Report in the test set's findings categories that differ and files shared with training."""
    ours, theirs = (
        {number: name for number, (name, _, _) in found.category_sizes.items()}
        for found in (test, train)
    )
    if ours.keys() != theirs.keys():
        test.errors["category ids in only one of the two sets"] = [
            f"{number} ({(ours | theirs)[number]})"
            for number in sorted(ours.keys() ^ theirs.keys())
        ]
    renamed = [
        f"{number} ({theirs[number]}, here {ours[number]})"
        for number in sorted(ours.keys() & theirs.keys())
        if not is_same_name(ours[number], theirs[number])
    ]
    test.add_error("categories named differently than in training", renamed)
    seen = {_path(train, image) for image in train.coco.images}
    shared = [image["file_name"] for image in test.coco.images if _path(test, image) in seen]
    test.add_note("images that are also in the training set", shared)


def _path(found: SetFindings, image: Entry) -> Path:
    return found.coco.images_dir.absolute() / str(image["file_name"])


def _count_categories(found: SetFindings) -> None:
    tree = found.coco.tree
    instances: Counter[int] = Counter()
    images: dict[int, set[int]] = {}
    for entry in tree["annotations"]:
        if not entry.get("iscrowd", 0):
            instances[entry["category_id"]] += 1
            images.setdefault(entry["category_id"], set()).add(entry["image_id"])
    names = found.coco.category_names
    for number in sorted(names):
        sizes = (names[number], instances[number], len(images.get(number, ())))
        found.category_sizes[number] = sizes


def _check_images(found: SetFindings) -> None:
    images = found.coco.images
    see = partial(_see_image, found.coco)
    seen = map_in_threads(see, images, f"{found.role} images", "img")
    for image, (mode, fault) in zip(images, seen, strict=True):
        if fault is None:
            found.usable.add(image["id"])
        else:
            what, entry = fault
            found.add_error(what, [entry])
        rules = [f"{part}: {how}" for part, how in how_read([mode]).items()]
        if rules:
            found.add_note(f"images stored as {mode} ({'; '.join(rules)})", [image["file_name"]])
    folder = found.coco.images_dir
    missing = found.errors.pop(_absent_from(folder), None)
    if missing:
        places = where_images_are(missing, folder, found.coco.images_key)
        found.errors[_absent_from(folder) + places] = missing


def _absent_from(folder: Path) -> str:
    return f"images that are not in '{folder}'"


def _see_image(coco: CocoSet, image: Entry) -> tuple[str, tuple[str, str] | None]:
    """Return the name of an image's stored mode, and its fault if there is one."""
    name = image["file_name"]
    path = coco.images_dir / name
    if not path.is_file():
        return "", (_absent_from(coco.images_dir), name)
    try:
        found, mode = read_with_mode(path, coco.rules)
    except UserError as error:
        return "", ("images that cannot be decoded", str(error).removeprefix("image "))
    expected = (image["width"], image["height"])
    if found.size == expected:
        return mode, None
    sizes = [f"{width}x{height}" for width, height in (found.size, expected)]
    fault = f"{name} (is {sizes[0]}, annotated {sizes[1]})"
    return mode, ("images whose size differs from the annotated one", fault)


def _note_categories(found: SetFindings) -> None:
    ids = found.coco.category_ids
    if ids and ids != list(range(1, len(ids) + 1)):
        found.notes[
            f"category ids are not 1 to {len(ids)} but range from {ids[0]} to {ids[-1]}; "
            "the detector's labels close the gaps, results keep the ids"
        ] = []
    names = Counter(name for name, _, _ in found.category_sizes.values())
    repeated = [name for name, count in names.items() if count > 1]
    found.add_note("category names shared by several ids", repeated)
    without = [name for name, instances, _ in found.category_sizes.values() if not instances]
    found.add_note("categories without instances", without)
    parents = [
        entry["supercategory"]
        for entry in found.coco.tree["categories"]
        if entry.get("supercategory") != entry["name"] and "supercategory" in entry
    ]
    placeholders = [name for name in without if name in parents]
    found.add_note("categories that only group others, yet count as a class", placeholders)


def _note_annotations(found: SetFindings) -> None:
    sizes = found.coco.sizes
    prefix = _LEFT_OUT if found.role == "train" else ""
    for entry in found.coco.tree["annotations"]:
        name = found.name_of(entry)
        size = sizes[entry["image_id"]]
        reason = reason_to_leave_out(entry, size)
        if reason is not None:
            found.add_note(f"{prefix}{reason}", [name])
        if is_difficult(entry):
            found.add_note(DIFFICULT, [name])
        x, y, width, height = entry["bbox"]
        if _sticks_out([x, y, x + width, y + height], size):
            found.add_note("boxes that leave the image", [name])
        segmentation = entry.get("segmentation")
        if reason is None and not has_mask(segmentation):
            found.add_note(_MASKLESS[found.role], [name])
        parts = polygons(segmentation)
        if any(_sticks_out(part, size) for part in parts):
            found.add_note("polygons that leave the image", [name])
        if isinstance(segmentation, list) and len(parts) < len(segmentation):
            found.add_note("outlines with parts that are not polygons, which are ignored", [name])


def _note_images(found: SetFindings, *, keep_empty: bool) -> None:
    annotated = {entry["image_id"] for entry in found.coco.tree["annotations"]}
    images = found.coco.images
    without = [image["file_name"] for image in images if image["id"] not in annotated]
    prefix = _LEFT_OUT if found.role == "train" else ""
    found.add_note(f"{'' if keep_empty else prefix}images without annotations", without)
    crowds_alone = annotated - found.coco.objects_per_image.keys()
    crowded = [image["file_name"] for image in images if image["id"] in crowds_alone]
    found.add_note(f"{prefix}images with only crowds", crowded)
    names = Counter(image["file_name"] for image in images)
    found.add_note(
        "files listed for several images", [n for n, count in names.items() if count > 1]
    )


def _sticks_out(coordinates: Sequence[float], size: Size) -> bool:
    """Return whether x, y pairs leave an image of that size."""
    return any(
        min(values) < -TOLERANCE_PIXELS or max(values) > side + TOLERANCE_PIXELS
        for values, side in zip((coordinates[1::2], coordinates[::2]), size, strict=True)
    )
