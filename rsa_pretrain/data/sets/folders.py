"""Read any tree of image files, with one folder per class or none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rsa_pretrain.data.image_folder import (
    ImageFiles,
    class_folders,
    class_of,
    find_images,
    report_left_out,
    walk_folders,
)
from rsa_pretrain.data.sets.base import AnySplit, DataSet
from rsa_pretrain.data.sets.imagenet import IMAGENET
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of

if TYPE_CHECKING:
    from rsa_pretrain.data.image_set import ImageSet
    from rsa_pretrain.data.settings import DataConfig


def _open(config: DataConfig, split: AnySplit) -> ImageSet:
    """Open ``root/train_dir`` or ``root/test_dir``.

    The classes of both splits are the class folders of the training split that contain an image,
    numbered by name. An image in no folder has no class. Folders that do not count are logged.
    """
    from rsa_pretrain.data.image_set import UNLABELLED, ImageSet

    assert config.root is not None
    train_folder, test_folder = config.root / config.train_dir, config.root / config.test_dir
    if split == "test":
        if not train_folder.is_dir():
            raise UserError(
                f"'{train_folder}' (data.train_dir) is not a folder; its class folders number the "
                "classes of both splits"
            )
        folder = test_folder
        names, left_out = find_images(folder, "data.test_dir", config.on_broken, config)
        classes = [class_of(name) for name in names]
        class_names = _training_classes(train_folder, config)
        _check_test_classes(classes, class_names, train_folder, test_folder)
    else:
        folder = train_folder
        names, left_out = find_images(folder, "data.train_dir", config.on_broken, config)
        classes = [class_of(name) for name in names]
        class_names = sorted({name for name in classes if name is not None})
        left_out |= _empty_folders(folder, class_names, left_out)
    report_left_out(folder, left_out)
    files = ImageFiles(folder, names, config)
    if not class_names:
        return ImageSet("imagefolder", files, None, [])
    number = {None: UNLABELLED} | {name: index for index, name in enumerate(class_names)}
    return ImageSet("imagefolder", files, [number[name] for name in classes], class_names)


def refuse_among_images(config: DataConfig, path: Path) -> None:
    """Refuse to write into a folder of images, where the output would be taken for an image.

    Args:
        config: The data set.
        path: File or folder to be written.

    Raises:
        UserError: If it is below the folder of a split.
    """
    if config.name != "imagefolder" or config.root is None:
        return
    for key in ("train_dir", "test_dir"):
        folder = config.root / getattr(config, key)
        if path.resolve().is_relative_to(folder.resolve()):
            raise UserError(
                f"'{path}' is below '{folder}' (data.{key}), where every file is taken for an "
                "image; write elsewhere"
            )


def _training_classes(folder: Path, config: DataConfig) -> list[str]:
    """Return the classes of the training split, decoding no more of it than necessary."""
    from rsa_pretrain.data.decode import fault_of

    found = set()
    for prefix, files in walk_folders(folder, {}):
        class_name = class_of(prefix)
        if class_name is None or class_name in found:
            continue
        paths = (str(folder / (prefix + name)) for name in files)
        if config.on_broken == "skip":
            paths = (path for path in paths if fault_of(path, config) is None)
        if any(paths):
            found.add(class_name)
    return sorted(found)


def _check_test_classes(
    classes: list[str | None], class_names: list[str], train_folder: Path, test_folder: Path
) -> None:
    # Images without classes may serve as both splits: no metric compares them.
    if class_names and test_folder.samefile(train_folder):
        raise UserError(
            f"'{test_folder}' is both data.train_dir and data.test_dir; training images cannot "
            "be test images, set data.test_dir to another folder"
        )
    unknown = sorted({name for name in classes if name is not None} - set(class_names))
    if not unknown:
        return
    spelt = {name.casefold(): name for name in class_names}
    shown = [
        f"{name} (training has {spelt[name.casefold()]})" if name.casefold() in spelt else name
        for name in unknown
    ]
    raise UserError(
        f"'{test_folder}' contains class folders that '{train_folder}' lacks ({len(unknown)}): "
        f"{first_of(shown)}; training has {first_of(class_names) or 'no class folders'}; rename "
        "or remove those of the test images, or correct data.train_dir"
    )


def _empty_folders(
    folder: Path, class_names: list[str], left_out: dict[str, str]
) -> dict[str, str]:
    """Return the folders that are not a class because no image in them can be read."""
    return {
        name: "no image in it can be read"
        for name in class_folders(folder).names
        if name not in left_out and class_of(f"{name}/") not in class_names
    }


def _download(root: Path, url: str | None) -> NoReturn:
    raise UserError(
        "imagefolder reads images of your own, which cannot be downloaded; put them as "
        f"{root}/train/CLASS/IMAGE and {root}/val/CLASS/IMAGE"
    )


IMAGE_FOLDER = DataSet(
    name="imagefolder",
    label="Image folder",
    normalisation=IMAGENET.normalisation,
    open=_open,
    download=_download,
)
