"""SwAV, DINO, Barlow Twins, VICReg and VISSL: Meta's projects other than MoCo and SimSiam."""

from rsa_pretrain.weights.foreign.layout import IMAGENET_PIXELS, Layout, Pixels

SWAV = Layout(
    name="swav",
    made_by="SwAV and DeepCluster v2",
    source="facebookresearch/swav src/resnet50.py, main_swav.py, src/multicropdataset.py "
    "(06b1b7c); it divides red by 0.228, and pads before its first convolution, which comes to "
    "torchvision's padding",
    markers=(
        r"(state_dict/)?conv1\.",
        r"(state_dict/)?(projection_head|prototypes)\.",
    ),
    networks={"model": ("state_dict/", "")},
    drops={
        r"(state_dict/)?projection_head\.": "projector",
        r"(state_dict/)?prototypes\.": "prototypes",
    },
    pixels=Pixels(IMAGENET_PIXELS.mean, (0.228, 0.224, 0.225)),
)

DINO = Layout(
    name="dino",
    made_by="DINO with a ResNet, the training checkpoint",
    source="facebookresearch/dino main_dino.py, utils.py, vision_transformer.py (7c446df)",
    markers=(
        r"teacher/backbone\.conv1\.",
        r"student/backbone\.conv1\.",
    ),
    networks={
        "teacher": ("teacher/backbone.",),
        "student": ("student/backbone.",),
    },
    drops={
        r"(teacher|student)/head\.": "projection head",
        r"dino_loss/": "centre of the loss",
    },
)

BARLOW_TWINS = Layout(
    name="barlow_twins",
    made_by="Barlow Twins, the training checkpoint",
    source="facebookresearch/barlowtwins main.py (8e8d284)",
    markers=(r"model/backbone\.conv1\.", r"model/bn\.running_mean"),
    networks={"backbone": ("model/backbone.",)},
    drops={
        r"model/projector\.": "projector",
        r"model/bn\.": "norm of the projections",
    },
)

VICREG = Layout(
    name="vicreg",
    made_by="VICReg, the training checkpoint",
    source="facebookresearch/vicreg main_vicreg.py, resnet.py, augmentations.py (4e12602); it pads "
    "before its first convolution, which comes to torchvision's padding",
    markers=(r"model/backbone\.conv1\.", r"model/projector\."),
    networks={"backbone": ("model/backbone.",)},
    drops={r"model/projector\.": "projector"},
)

_TRUNK = r"(classy_state_dict/base_model/model/trunk|model_state_dict)/"
_MOMENTUM = r"(moco_encoder|momentum_(encoder|teacher))"  # of MoCo; of SwAV and DINO

VISSL = Layout(
    name="vissl",
    made_by="VISSL",
    source="facebookresearch/vissl vissl/models/trunks/resnext.py, vissl/models/base_ssl_model.py, "
    "vissl/hooks/{log,moco,swav_momentum,dino}_hooks.py, "
    "extra_scripts/convert_vissl_to_torchvision.py (09270ed)",
    markers=(rf"({_TRUNK})?(base_model\.)?_feature_blocks\.conv1\.",),
    networks={
        "trunk": (
            "classy_state_dict/base_model/model/trunk/_feature_blocks.",
            "classy_state_dict/base_model/model/trunk/base_model._feature_blocks.",
            "model_state_dict/_feature_blocks.",
            "_feature_blocks.",
        ),
        "ema": (
            "classy_state_dict/ema_model/model/trunk/_feature_blocks.",
            "classy_state_dict/ema_model/model/trunk/base_model._feature_blocks.",
        ),
        "momentum": (
            "loss/moco_encoder.trunk._feature_blocks.",
            "loss/momentum_encoder.trunk._feature_blocks.",
            "loss/momentum_teacher.trunk._feature_blocks.",
        ),
    },
    drops={
        r"classy_state_dict/(base|ema)_model/model/heads/": "heads",
        rf"loss/{_MOMENTUM}\.heads\.": "heads",
        r"classy_state_dict/((base|ema)_model/meta|optimizer|loss|hooks|train)/": "training state",
        rf"loss/(?!{_MOMENTUM}\.)": "training state",
        rf"({_TRUNK})?(base_model\.)?_feature_blocks\.fc\.": "classifier",
    },
)
