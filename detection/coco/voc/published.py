"""PASCAL VOC's published archives of detection, and their numbers of images.

Addresses, checksums and layout as in torchvision.datasets.VOCDetection, whose archives all unpack
to ``VOCdevkit/VOC2007`` and ``VOCdevkit/VOC2012``. torchvision's own download starts a broken file
from its beginning and leaves a half-unpacked folder like a whole one.
"""

from collections.abc import Sequence
from pathlib import Path

from detection.coco.data_settings import VocDataConfig
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.fetch import Bundle, BundledFile, fetch

VOC_FOLDER = "VOCdevkit"
_ADDRESS = "https://thor.robots.ox.ac.uk/pascal/VOC"
_TRAINVAL2007 = BundledFile(
    f"{_ADDRESS}/voc2007/VOCtrainval_06-Nov-2007.tar", "c52e279531787c972589f7e41ab4ae64"
)
_TEST2007 = BundledFile(
    f"{_ADDRESS}/voc2007/VOCtest_06-Nov-2007.tar", "b6e924de25625d8de591ea690078ad9f"
)
_TRAINVAL2012 = BundledFile(
    f"{_ADDRESS}/voc2012/VOCtrainval_11-May-2012.tar", "6cd6e144f989b92b3379bac3b3de84fd"
)
VOC_FILES = {
    "2007": Bundle("VOC2007", (_TRAINVAL2007, _TEST2007), inside=f"{VOC_FOLDER}/VOC2007"),
    "2012": Bundle("VOC2012", (_TRAINVAL2012,), inside=f"{VOC_FOLDER}/VOC2012"),
}
"""Archives of each year."""
VOC_COUNTS = {
    "2007": {"2007/trainval": 5_011, "2007/test": 4_952},
    "2012": {"2012/trainval": 11_540},
}
"""Images of each year's lists; 16,551 to train on in papers of 07+12. The page of VOC2012 counts
11,530 annotated images in its trainval."""


def download_voc(years: Sequence[str], root: Path, url: str | None = None) -> dict[str, int]:
    """Download and unpack each year's archives to ``root/VOCdevkit``, and check its lists.

    Args:
        years: 2007, 2012 or both. A year that is there already is checked only.
        root: Folder to download into.
        url: Address of a mirror's folder with all their archives, ending in /.

    Returns:
        Number of images of each list.

    Raises:
        UserError: If the download fails, or a folder that was there already is another.
    """
    found = {}
    for year in years:
        fetch(VOC_FILES[year], root / VOC_FOLDER, url)
        for name, published in VOC_COUNTS[year].items():
            found[name] = _count(root / VOC_FOLDER, name)
            if found[name] != published:
                raise UserError(
                    f"'{root / VOC_FOLDER / VOC_FILES[year].folder}' has {found[name]:,} images of "
                    f"{name} with image and annotation file, published are {published:,}; move the "
                    "folder away and rerun the command"
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
