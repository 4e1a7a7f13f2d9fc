"""PASCAL VOC's published archives of detection, and their numbers of images.

Addresses, checksums and layout as in torchvision.datasets.VOCDetection, whose archives all unpack
to ``VOCdevkit/VOC2007`` and ``VOCdevkit/VOC2012``. torchvision's own download starts a broken file
from its beginning and leaves a half-unpacked folder like a whole one.
"""

from pathlib import Path

from detection.coco.data_settings import VocDataConfig
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.fetch import Bundle, BundledFile, fetch

VOC_FOLDER = "VOCdevkit"
_ADDRESS = "https://thor.robots.ox.ac.uk/pascal/VOC"
VOC0712_FILES = Bundle(
    VOC_FOLDER,
    (
        BundledFile(
            f"{_ADDRESS}/voc2007/VOCtrainval_06-Nov-2007.tar", "c52e279531787c972589f7e41ab4ae64"
        ),
        BundledFile(
            f"{_ADDRESS}/voc2007/VOCtest_06-Nov-2007.tar", "b6e924de25625d8de591ea690078ad9f"
        ),
        BundledFile(
            f"{_ADDRESS}/voc2012/VOCtrainval_11-May-2012.tar", "6cd6e144f989b92b3379bac3b3de84fd"
        ),
    ),
    inside=VOC_FOLDER,
)
VOC0712_COUNTS = {"2007/trainval": 5_011, "2007/test": 4_952, "2012/trainval": 11_540}
"""Images of each list; together 16,551 to train on, as in papers of 07+12. The page of VOC2012
counts 11,530 annotated images in its trainval."""


def download_voc0712(root: Path, url: str | None = None) -> dict[str, int]:
    """Download and unpack the archives to ``root/VOCdevkit``, and check the lists.

    Args:
        root: Folder to download into.
        url: Address of a mirror's folder with all three archives, ending in /.

    Returns:
        Number of images of each set.

    Raises:
        UserError: If the download fails, or a folder that was there already is another.
    """
    fetch(VOC0712_FILES, root, url)
    found = {name: _count(root / VOC_FOLDER, name) for name in VOC0712_COUNTS}
    for name, count in found.items():
        if count != VOC0712_COUNTS[name]:
            raise UserError(
                f"'{root / VOC_FOLDER}' has {count:,} images of {name} with image and annotation "
                f"file, published are {VOC0712_COUNTS[name]:,}; move the folder away and rerun the "
                "command"
            )
    return found


def _count(root: Path, name: str) -> int:
    from detection.coco.voc.reading import listed_images

    data = VocDataConfig(name="voc", format="voc", root=root, train=(name,), test=(name,))
    try:
        listed = list(listed_images(data, "test"))
    except UserError:
        return 0
    return sum((root / i.image).is_file() and (root / i.annotations).is_file() for i in listed)
