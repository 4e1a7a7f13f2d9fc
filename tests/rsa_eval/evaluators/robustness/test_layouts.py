from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsa_eval.evaluators.robustness.corrupted import open_corrupted
from rsa_eval.evaluators.robustness.corruption_error import CORRUPTIONS
from rsa_eval.evaluators.robustness.other_images import open_other_images
from rsa_eval.evaluators.robustness.settings import RobustnessConfig, ShiftFolders
from rsa_eval.evaluators.robustness.shifts import SHIFTS, Shift, find_shifts
from rsa_pretrain.data.image_folder import ImageFiles, walk
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.read_settings import DEFAULT_RULES
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.errors import UserError

BY_NAME = {shift.name: shift for shift in SHIFTS}
# The same with one image in each class.
SMALL = {name: replace(shift, num_images=shift.num_classes) for name, shift in BY_NAME.items()}
IDS = [f"n{number:08d}" for number in range(1000)]


def _clean(count: int = 6) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)
    return ImageSet.from_array("cifar10", pixels, [n % 3 for n in range(count)], list("abc"))


@pytest.fixture
def cifar_c(tmp_path: Path) -> Path:
    """Six images of CIFAR-10-C's layout: image i of severity s is all 10 s + i."""
    values = np.array([10 * severity + image for severity in range(1, 6) for image in range(6)])
    blocks = np.broadcast_to(values[:, None, None, None], (30, 32, 32, 3)).astype(np.uint8)
    for name in (*CORRUPTIONS, "spatter"):
        np.save(tmp_path / f"{name}.npy", blocks)
    np.save(tmp_path / "labels.npy", np.tile(np.arange(6) % 3, 5).astype(np.uint8))
    return tmp_path


def _open_cifar(folder: Path, clean: ImageSet | None = None) -> dict[str, list[ImageSet]]:
    test = _clean() if clean is None else clean
    return open_corrupted(BY_NAME["cifar10_c"], folder, test, DEFAULT_RULES).by_corruption


def test_arrays_hold_one_severity_after_the_other(cifar_c: Path) -> None:
    """Each block is the test set; labels are the clean ones; a subset keeps its rows."""
    opened = _open_cifar(cifar_c)
    assert list(opened) == [*CORRUPTIONS, "spatter"]
    fog = opened["fog"]
    assert [images.array()[:, 0, 0, 0].tolist() for images in fog] == [
        [10 * severity + image for image in range(6)] for severity in range(1, 6)
    ]
    assert fog[2].name == "cifar10_c_fog_3"
    assert fog[2].labels == [0, 1, 2, 0, 1, 2]
    part = _open_cifar(cifar_c, _clean().select(np.array([4, 1])))["fog"][4]
    assert part.array()[:, 0, 0, 0].tolist() == [54, 51]
    assert part.labels == [1, 1]


def test_missing_corruptions_are_named(cifar_c: Path) -> None:
    """Without a file, a corruption of the 15 is missing; one of the others is not missed."""
    for name in ("fog", "spatter"):
        (cifar_c / f"{name}.npy").unlink()
    found = open_corrupted(BY_NAME["cifar10_c"], cifar_c, _clean(), DEFAULT_RULES)
    assert found.missing == ["fog"]
    assert len(found.by_corruption) == 14


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: _cut(folder / "fog.npy"), r"fog.npy' is damaged or no .npy file"),
        (lambda folder: (folder / "fog.npy").write_bytes(b""), "fog.npy' is damaged"),
        (
            lambda folder: np.save(folder / "fog.npy", np.array([{}]), allow_pickle=True),
            "fog.npy' is damaged or no .npy file .*zenodo",
        ),
        (
            lambda folder: np.savez((folder / "fog.npy").open("wb"), np.zeros(3)),
            "is no .npy file but an archive",
        ),
        (
            lambda folder: np.save(folder / "fog.npy", np.zeros((30, 32, 32, 3))),
            "has type float64 and shape .*expected uint8",
        ),
        (
            lambda folder: np.save(folder / "fog.npy", np.zeros((24, 32, 32, 3), np.uint8)),
            r"shape \(24, 32, 32, 3\), expected uint8 \(30, 32, 32, 3\), 6 images for each of 5",
        ),
        (lambda folder: (folder / "labels.npy").unlink(), r"no '.*labels.npy'; fetch CIFAR-10-C"),
        (
            lambda folder: np.save(folder / "labels.npy", np.zeros(29, np.uint8)),
            r"labels.npy' has type uint8 and shape \(29,\), expected integers \(30,\)",
        ),
        (
            lambda folder: np.save(folder / "labels.npy", np.tile([0, 1, 2, 0, 2, 1], 5)),
            "gives 2 of 6 images other classes than the test images of cifar10",
        ),
    ],
)
def test_damaged_arrays_are_refused(
    cifar_c: Path, damage: Callable[[Path], None], message: str
) -> None:
    """Each fault names the file, what is wrong and where the files come from."""
    damage(cifar_c)
    with pytest.raises(UserError, match=message):
        _open_cifar(cifar_c)


def test_a_folder_without_corruptions_is_refused(tmp_path: Path) -> None:
    """The message names a file that should be there."""
    with pytest.raises(UserError, match=r"has none of the corruptions, such as fog\.npy; fetch"):
        _open_cifar(tmp_path)


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


@pytest.fixture
def imagenet_c(tmp_path: Path) -> tuple[Path, ImageSet]:
    """Three validation images of two classes, and their fog."""
    names = [f"{IDS[0]}/a.JPEG", f"{IDS[0]}/b.JPEG", f"{IDS[2]}/c.JPEG"]
    _touch(tmp_path / "val", *names)
    for severity in range(1, 6):
        _touch(tmp_path / "ImageNet-C" / "fog" / str(severity), *names)
    files = ImageFiles(tmp_path / "val", walk(tmp_path / "val").names, DEFAULT_RULES)
    return tmp_path / "ImageNet-C", ImageSet("imagenet", files, [0, 0, 2], IDS)


def test_trees_of_corrupted_files_are_matched_to_the_test_images(
    imagenet_c: tuple[Path, ImageSet],
) -> None:
    """By name and in their order, in the severity's folder; a subset takes its own files."""
    folder, test = imagenet_c
    fog = open_corrupted(BY_NAME["imagenet_c"], folder, test, DEFAULT_RULES).by_corruption["fog"]
    assert [images.keys() for images in fog] == [test.keys()] * 5
    assert fog[3].where(2) == f"{folder}/fog/4/{IDS[2]}/c.JPEG"
    assert fog[3].labels == [0, 0, 2]
    assert len({images.fingerprint() for images in fog} | {test.fingerprint()}) == 6
    part = test.select(np.array([2]))
    fog = open_corrupted(BY_NAME["imagenet_c"], folder, part, DEFAULT_RULES).by_corruption["fog"]
    assert fog[0].keys() == [f"{IDS[2]}/c.JPEG"]


def test_other_files_are_other_images(imagenet_c: tuple[Path, ImageSet], tmp_path: Path) -> None:
    """Files of the same names and other contents have other features in a cache."""
    folder, test = imagenet_c
    _touch(tmp_path / "r", *(f"{own}/x.jpg" for own in IDS[:200]))

    def fingerprints() -> tuple[str, ...]:
        fog = open_corrupted(BY_NAME["imagenet_c"], folder, test, DEFAULT_RULES).by_corruption
        found = open_other_images(SMALL["imagenet_r"], tmp_path / "r", IDS, DEFAULT_RULES)
        return *(images.fingerprint() for images in fog["fog"]), found.images.fingerprint()

    before = fingerprints()
    assert fingerprints() == before
    (folder / "fog" / "3" / IDS[2] / "c.JPEG").write_bytes(b"longer")
    (tmp_path / "r" / IDS[7] / "x.jpg").write_bytes(b"longer")
    after = fingerprints()
    assert [old == new for old, new in zip(before, after, strict=True)] == [
        *(True, True, False, True, True),
        False,
    ]


def test_incomplete_trees_are_refused(imagenet_c: tuple[Path, ImageSet]) -> None:
    """An image or a severity that is not there is an error, not a smaller test set."""
    folder, test = imagenet_c
    (folder / "fog" / "4" / IDS[2] / "c.JPEG").unlink()
    message = rf"fog/4' lacks 1 of the 3 test images: {IDS[2]}/c.JPEG; fetch noise.tar"
    with pytest.raises(UserError, match=message):
        open_corrupted(BY_NAME["imagenet_c"], folder, test, DEFAULT_RULES)
    (folder / "fog" / "4").rename(folder / "fog" / "four")
    with pytest.raises(UserError, match="fog/4' is not a folder"):
        open_corrupted(BY_NAME["imagenet_c"], folder, test, DEFAULT_RULES)


def test_class_numbers_of_v2_are_numbers(tmp_path: Path) -> None:
    """Folder 10 is class 10, though it sorts as the third; every class may be predicted."""
    _touch(tmp_path, *(f"{number}/image.jpeg" for number in range(1000)))
    found = open_other_images(SMALL["imagenet_v2"], tmp_path, IDS, DEFAULT_RULES)
    labels, keys = found.images.require_labels(), found.images.keys()
    assert labels == [int(key.partition("/")[0]) for key in keys]
    assert labels[:4] == [0, 1, 10, 100]
    assert found.classes == list(range(1000))


def test_class_numbers_of_v2_are_complete(tmp_path: Path) -> None:
    """WordNet ids in place of numbers, or a folder too few, would shift the classes."""
    _touch(tmp_path, *(f"{number}/image.jpeg" for number in range(999)))
    with pytest.raises(UserError, match=r"folders 0 to 999, the class numbers; 1 are .*: 999"):
        open_other_images(SMALL["imagenet_v2"], tmp_path, IDS, DEFAULT_RULES)


@pytest.mark.parametrize("name", ["imagenet_r", "imagenet_a"])
def test_the_classes_of_r_and_a_are_those_of_their_ids(tmp_path: Path, name: str) -> None:
    """200 of the 1,000 may be predicted, with the training numbers; README.txt is no image."""
    _touch(tmp_path, "README.txt", *(f"{own}/x.jpg" for own in IDS[3:1000:5]))
    found = open_other_images(SMALL[name], tmp_path, IDS, DEFAULT_RULES)
    assert found.classes == found.images.labels == list(range(3, 1000, 5))


def test_only_training_classes_are_read(tmp_path: Path) -> None:
    """With a hundred training classes, images of the others are left out."""
    _touch(tmp_path, *(f"{own}/x.jpg" for own in IDS[:200]))
    found = open_other_images(SMALL["imagenet_r"], tmp_path, IDS[150:250], DEFAULT_RULES)
    assert found.images.keys() == [f"{own}/x.jpg" for own in IDS[150:200]]
    assert found.classes == found.images.labels == list(range(50))


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (IDS[:199], "has 199 class folders, ImageNet-R has 200; fetch imagenet-r.tar"),
        ([*IDS[:199], "cat"], "has 1 folders that are no training class: cat; expected WordNet"),
        ([str(number) for number in range(200)], "has 200 folders that are no training class"),
    ],
)
def test_other_folders_are_refused(tmp_path: Path, folders: list[str], message: str) -> None:
    """A class too few, and a name that is no training class, are errors."""
    _touch(tmp_path, *(f"{own}/x.jpg" for own in folders))
    with pytest.raises(UserError, match=message):
        open_other_images(SMALL["imagenet_r"], tmp_path, IDS, DEFAULT_RULES)


@pytest.mark.parametrize(
    ("name", "folders", "count"),
    [
        ("imagenet_v2", [str(number) for number in range(1000)], "10,000"),
        ("imagenet_r", IDS[:200], "30,000"),
        ("imagenet_a", IDS[:200], "7,500"),
        ("imagenet_sketch", IDS, "50,889"),
    ],
)
def test_an_incomplete_set_is_refused(
    tmp_path: Path, name: str, folders: list[str], count: str
) -> None:
    """An unpacking or a copy that stopped leaves every folder, but not every image."""
    _touch(tmp_path, *(f"{own}/x.jpg" for own in folders))
    message = rf"has {len(folders):,} images, {BY_NAME[name].label} has {count}; fetch"
    with pytest.raises(UserError, match=message):
        open_other_images(BY_NAME[name], tmp_path, IDS, DEFAULT_RULES)


def test_a_single_shared_class_is_refused(tmp_path: Path) -> None:
    """Every image would be predicted right."""
    _touch(tmp_path, *(f"{own}/x.jpg" for own in IDS[:200]))
    with pytest.raises(UserError, match=f"only {IDS[199]} is a training class, so that every"):
        open_other_images(SMALL["imagenet_r"], tmp_path, IDS[199:299], DEFAULT_RULES)


def test_an_empty_class_is_refused(tmp_path: Path) -> None:
    """An unpacking that stopped leaves folders without images."""
    _touch(tmp_path, *(f"{own}/x.jpg" for own in IDS[:199]))
    (tmp_path / IDS[199]).mkdir()
    with pytest.raises(UserError, match=f"has no image of 1 classes: {IDS[199]}; fetch"):
        open_other_images(SMALL["imagenet_r"], tmp_path, IDS, DEFAULT_RULES)


def _find(data_set: str, **folders: Any) -> tuple[dict[Shift, Path], dict[str, str]]:
    return find_shifts(ShiftFolders(**folders), data_set)


def test_published_folders_are_found_below_the_root(tmp_path: Path) -> None:
    """The others are left out with what to fetch; a named folder precedes the root's."""
    for name in ("imagenet-r", "sketch", "CIFAR-10-C", "elsewhere"):
        (tmp_path / name).mkdir()
    present, absent = _find("imagenet", root=tmp_path, imagenet_r=tmp_path / "elsewhere")
    assert {shift.name: folder.name for shift, folder in present.items()} == {
        "imagenet_r": "elsewhere",
        "imagenet_sketch": "sketch",
    }
    assert list(absent) == ["imagenet_c", "imagenet_v2", "imagenet_a"]
    assert "imagenet-a.tar" in absent["imagenet_a"]


def test_nothing_to_test_on_is_an_error(tmp_path: Path) -> None:
    """No folder, a root without any, and a named one that is not there."""
    with pytest.raises(UserError, match="no shifted test images of cifar10 are present; set shif"):
        _find("cifar10")
    with pytest.raises(UserError, match=r"are present below '.*' \(shifts.root\); .*fetch CIFAR-"):
        _find("cifar10", root=tmp_path)
    with pytest.raises(UserError, match=r"'.*none' \(shifts.cifar10_c\) is not a folder; fetch"):
        _find("cifar10", cifar10_c=tmp_path / "none")


@pytest.mark.parametrize("data_set", ["cifar10", "digits"])
def test_a_mistyped_root_is_refused(tmp_path: Path, data_set: str) -> None:
    """Also where corruptions are generated, which need none."""
    with pytest.raises(UserError, match=r"'.*typo' \(shifts.root\) is not a folder; set it to"):
        _find(data_set, root=tmp_path / "typo", generate=True)


def test_published_corruptions_are_not_generated(tmp_path: Path) -> None:
    """Both would have the same metrics; without published ones nothing need be present."""
    assert _find("digits", generate=True) == ({}, {})
    with pytest.raises(UserError, match="generate is for data without published corruptions, but"):
        _find("cifar10", generate=True, cifar10_c=tmp_path)


@pytest.mark.parametrize(
    ("data", "shifts", "message"),
    [
        ("digits", {}, "no published shifted images of 'digits'; set shifts.generate=true, or"),
        (
            "cifar10",
            {"imagenet_r": "r"},
            "imagenet_r belongs to imagenet or imagenet100, not to 'c",
        ),
        ("digits", {"generate": True}, "generate needs data.image_size of 32 or more, found 16"),
        ("imagenet100", {"imagenet_v2": "v"}, "imagenet_v2 belongs to imagenet, not to"),
    ],
)
def test_settings_of_other_data_sets_are_refused(
    data: str, shifts: dict[str, Any], message: str
) -> None:
    """Before anything is loaded."""
    root = {} if data == "digits" else {"root": "images"}
    tree = {"data": {"name": data, "image_size": 16, **root}, "shifts": shifts}
    with pytest.raises(UserError, match=message):
        parse_tree(RobustnessConfig, tree, "test")
