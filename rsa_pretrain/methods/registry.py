"""List the pretraining methods by name."""

from rsa_pretrain.methods.byol import BYOL
from rsa_pretrain.methods.moco_v2 import MoCoV2
from rsa_pretrain.methods.rsa import RSA
from rsa_pretrain.methods.simclr import SimCLR
from rsa_pretrain.methods.simsiam import SimSiam
from rsa_pretrain.methods.simsiam_rsa import SimSiamRSA
from rsa_pretrain.methods.supervised import Supervised

METHODS = {
    "rsa": RSA,
    "byol": BYOL,
    "simsiam": SimSiam,
    "simsiam_rsa": SimSiamRSA,
    "simclr": SimCLR,
    "moco_v2": MoCoV2,
    "supervised": Supervised,
}
