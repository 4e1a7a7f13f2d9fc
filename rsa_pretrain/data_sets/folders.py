"""Any tree of image files, one folder per class or none."""

from pathlib import Path

from rsa_pretrain.data_config import DataConfig
from rsa_pretrain.data_sets import AnySplit
from rsa_pretrain.errors import UserError
from rsa_pretrain.image_folder import class_folders, find_images
from rsa_pretrain.image_set import ImageSet


def open_split(config: DataConfig, split: AnySplit) -> ImageSet:
    """Open ``root/train_dir`` or ``root/test_dir``; both number the training split's classes."""
    assert config.root is not None
    train_folder, test_folder = config.root / config.train_dir, config.root / config.test_dir
    if split == "test":
        files = find_images(test_folder, "data.test_dir", config.on_broken, config)
        folders = files.first_folders()
        class_names = _training_classes(train_folder)
        unknown = sorted({str(name) for name in folders} - set(class_names))
        if unknown:
            raise UserError(
                f"'{test_folder}' holds class folders that '{train_folder}' "
                f"lacks: {', '.join(unknown[:5])}"
            )
    else:
        files = find_images(train_folder, "data.train_dir", config.on_broken, config)
        folders = files.first_folders()
        class_names = [] if None in folders else sorted({str(name) for name in folders})
    number = {name: index for index, name in enumerate(class_names)}
    labels = [number[str(name)] for name in folders] if class_names else None
    return ImageSet("imagefolder", files, labels, class_names)


def _training_classes(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise UserError(f"'{folder}' (data.train_dir) is not a folder")
    return class_folders(folder)
