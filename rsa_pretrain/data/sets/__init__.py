"""The data sets: one module each, and one entry of ``DATA_SETS``."""

from rsa_pretrain.data.sets.base import AnySplit, Counts, DataSet, Split
from rsa_pretrain.data.sets.caltech101 import CALTECH101, CALTECH101_BACKGROUND
from rsa_pretrain.data.sets.cifar import CIFAR10, CIFAR100
from rsa_pretrain.data.sets.cub200 import CUB200
from rsa_pretrain.data.sets.digits import DIGITS, SCATTERED_DIGITS
from rsa_pretrain.data.sets.dtd import DTD
from rsa_pretrain.data.sets.eurosat import EUROSAT
from rsa_pretrain.data.sets.fgvc_aircraft import FGVC_AIRCRAFT
from rsa_pretrain.data.sets.flowers102 import FLOWERS102
from rsa_pretrain.data.sets.folders import IMAGE_FOLDER
from rsa_pretrain.data.sets.food101 import FOOD101
from rsa_pretrain.data.sets.gtsrb import GTSRB
from rsa_pretrain.data.sets.imagenet import IMAGENET, IMAGENET100
from rsa_pretrain.data.sets.imagenette import IMAGENETTE
from rsa_pretrain.data.sets.oxford_pets import OXFORD_PETS
from rsa_pretrain.data.sets.pcam import PCAM
from rsa_pretrain.data.sets.resisc45 import RESISC45
from rsa_pretrain.data.sets.stanford_cars import STANFORD_CARS
from rsa_pretrain.data.sets.stl10 import STL10
from rsa_pretrain.data.sets.sun397 import SUN397
from rsa_pretrain.data.sets.svhn import SVHN
from rsa_pretrain.data.sets.tiny_imagenet import TINY_IMAGENET
from rsa_pretrain.data.sets.webdataset import WEBDATASET
from rsa_pretrain.plumbing.errors import UserError

__all__ = ["DATA_SETS", "AnySplit", "Counts", "DataSet", "Split", "data_set", "is_pixels"]

DATA_SETS: tuple[DataSet, ...] = (
    CALTECH101,
    CALTECH101_BACKGROUND,
    CIFAR10,
    CIFAR100,
    CUB200,
    DIGITS,
    DTD,
    EUROSAT,
    FGVC_AIRCRAFT,
    FLOWERS102,
    FOOD101,
    GTSRB,
    IMAGE_FOLDER,
    IMAGENET,
    IMAGENET100,
    IMAGENETTE,
    OXFORD_PETS,
    PCAM,
    RESISC45,
    SCATTERED_DIGITS,
    STANFORD_CARS,
    STL10,
    SUN397,
    SVHN,
    TINY_IMAGENET,
    WEBDATASET,
)


def data_set(name: str) -> DataSet:
    """Return the data set with a name.

    Raises:
        UserError: If there is none; lists the names.
    """
    for entry in DATA_SETS:
        if entry.name == name:
            return entry
    raise UserError(f"expected one of {', '.join(entry.name for entry in DATA_SETS)}")


def is_pixels(name: object) -> bool:
    """Return whether a data set is stored as pixels; False if the name is unknown."""
    return any(entry.is_pixels for entry in DATA_SETS if entry.name == name)
