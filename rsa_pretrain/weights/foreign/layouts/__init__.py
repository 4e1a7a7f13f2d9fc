"""List every known layout: one literal tuple, searched in order."""

from rsa_pretrain.weights.foreign.layout import Layout, Unusable
from rsa_pretrain.weights.foreign.layouts.clustering import BARLOW_TWINS, DINO, SWAV, VICREG, VISSL
from rsa_pretrain.weights.foreign.layouts.detectron2 import CAFFE2, DETECTRON2, DETECTRON2_C4
from rsa_pretrain.weights.foreign.layouts.huggingface import HUGGINGFACE
from rsa_pretrain.weights.foreign.layouts.lightning import (
    LIGHTLY,
    LIGHTLY_CIFAR,
    LIGHTLY_DINO,
    LIGHTLY_EXAMPLE,
    SOLO_LEARN,
)
from rsa_pretrain.weights.foreign.layouts.moco import MEAN_SHIFT, MOCO, MOCO_V3, RSA_RELEASE
from rsa_pretrain.weights.foreign.layouts.openmmlab import MMPRETRAIN, OPENSELFSUP
from rsa_pretrain.weights.foreign.layouts.plain import NUMBERED_CHILDREN, TIMM, TORCHVISION
from rsa_pretrain.weights.foreign.layouts.pycontrast import CMC, PYCONTRAST
from rsa_pretrain.weights.foreign.layouts.siamese import (
    BYOL_PYTORCH,
    BYOL_STHALLES,
    BYOL_YAOX12,
    SIMCLR_ATANOV,
    SIMCLR_SPIJKERVET,
    SIMCLR_STHALLES,
    SIMSIAM,
)

# If two layouts read a file alike, the earlier one gives its name.
LAYOUTS: tuple[Layout, ...] = (
    TORCHVISION,
    TIMM,
    MOCO,
    MOCO_V3,
    SIMSIAM,
    RSA_RELEASE,
    BYOL_PYTORCH,
    BYOL_STHALLES,
    BYOL_YAOX12,
    SIMCLR_STHALLES,
    SIMCLR_SPIJKERVET,
    SIMCLR_ATANOV,
    SWAV,
    DINO,
    BARLOW_TWINS,
    VICREG,
    PYCONTRAST,
    MEAN_SHIFT,
    OPENSELFSUP,
    MMPRETRAIN,
    VISSL,
    SOLO_LEARN,
    LIGHTLY,
    LIGHTLY_EXAMPLE,
    LIGHTLY_DINO,
    HUGGINGFACE,
    DETECTRON2,
    DETECTRON2_C4,
)
# Possible names of any network's tensors, under any prefix; timm's names are torchvision's.
NAMINGS: tuple[Layout, ...] = (TORCHVISION, NUMBERED_CHILDREN, HUGGINGFACE, DETECTRON2)
# Their markers are the first names of any such network, so another reading may fit better.
PLAIN: tuple[Layout, ...] = (TORCHVISION, TIMM)
UNUSABLE: tuple[Unusable, ...] = (CMC, LIGHTLY_CIFAR, CAFFE2)
