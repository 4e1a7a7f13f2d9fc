"""torchvision's own names, bare or wrapped by a training script."""

from rsa_pretrain.weights.foreign.layout import Layout
from rsa_pretrain.weights.foreign.names import NUMBERED

_CONV1 = r"(model/|state_dict/)?conv1\.weight"
_CLASSIFIER = {r"(model/|state_dict/|state_dict_ema/)?fc\.(weight|bias)$": "classifier"}

TORCHVISION = Layout(
    name="torchvision",
    made_by="torchvision; the final backbone files of Barlow Twins, VICReg and DINO; backbones "
    "extracted by OpenSelfSup and MMSelfSup; networks saved by byol-pytorch; this toolkit",
    source="pytorch/vision torchvision/models/resnet.py, references/classification/train.py; "
    "facebookresearch/barlowtwins main.py (8e8d284); facebookresearch/vicreg main_vicreg.py "
    "(4e12602); facebookresearch/dino hubconf.py (7c446df); open-mmlab/mmselfsup "
    "tools/model_converters/extract_backbone_weights.py (db861f3); lucidrains/byol-pytorch "
    "byol_pytorch/trainer.py (2993126)",
    markers=(_CONV1,),
    networks={"model": ("", "state_dict/", "model/")},
    drops=_CLASSIFIER
    | {r"model_ema/": "averaged network of the training script, not the one taken"},
)

TIMM = Layout(
    name="timm",
    made_by="timm",
    source="huggingface/pytorch-image-models timm/models/resnet.py, timm/utils/checkpoint_saver.py "
    "(1.0.31)",
    markers=(_CONV1,),
    networks={
        "model": ("", "state_dict/"),
        "ema": ("state_dict_ema/",),
    },
    drops=_CLASSIFIER,
)

# Not recognised by markers: its names are numbers, which many other networks have too.
NUMBERED_CHILDREN = Layout(
    name="numbered",
    made_by="nn.Sequential of the children of a torchvision network",
    source="pytorch/vision torchvision/models/resnet.py, its children in order",
    markers=(),
    networks={"model": ("",)},
    drops={},
    names=NUMBERED,
)
