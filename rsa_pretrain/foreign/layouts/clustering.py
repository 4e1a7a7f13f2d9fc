"""SwAV, DINO, Barlow Twins, VICReg and VISSL: Meta's projects beside MoCo and SimSiam."""

from rsa_pretrain.foreign.layout import Layout, Pixels

_TRAINING = {r"(optimizer|scaler|amp|fp16_scaler)/": "optimizer state"}

SWAV = Layout(
    name="swav",
    made_by="SwAV and DeepCluster v2",
    source="facebookresearch/swav src/resnet50.py, main_swav.py, src/multicropdataset.py "
    "(06b1b7c); it divides red by 0.228, and pads before its first convolution, which comes to "
    "torchvision's padding",
    markers=(
        r"(state_dict/)?(module\.)?conv1\.",
        r"(state_dict/)?(module\.)?(projection_head|prototypes)\.",
    ),
    networks={"model": ("state_dict/module.", "module.", "state_dict/", "")},
    drops={
        r"(state_dict/)?(module\.)?projection_head\.": "projector",
        r"(state_dict/)?(module\.)?prototypes\.": "prototypes",
    }
    | _TRAINING,
    pixels=Pixels((0.485, 0.456, 0.406), (0.228, 0.224, 0.225)),
)

DINO = Layout(
    name="dino",
    made_by="DINO with a ResNet, the training checkpoint",
    source="facebookresearch/dino main_dino.py, utils.py, vision_transformer.py (7c446df)",
    markers=(
        r"teacher/(module\.)?backbone\.conv1\.",
        r"student/(module\.)?backbone\.conv1\.",
    ),
    networks={
        "teacher": ("teacher/module.backbone.", "teacher/backbone."),
        "student": ("student/module.backbone.", "student/backbone."),
    },
    drops={
        r"(teacher|student)/(module\.)?head\.": "projection head",
        r"dino_loss/": "centre of the loss",
    }
    | _TRAINING,
)

BARLOW_TWINS = Layout(
    name="barlow_twins",
    made_by="Barlow Twins, the training checkpoint",
    source="facebookresearch/barlowtwins main.py (8e8d284)",
    markers=(r"model/(module\.)?backbone\.conv1\.", r"model/(module\.)?bn\.running_mean"),
    networks={"backbone": ("model/module.backbone.", "model/backbone.")},
    drops={
        r"model/(module\.)?projector\.": "projector",
        r"model/(module\.)?bn\.": "norm of the projections",
    }
    | _TRAINING,
)

VICREG = Layout(
    name="vicreg",
    made_by="VICReg, the training checkpoint",
    source="facebookresearch/vicreg main_vicreg.py, resnet.py, augmentations.py (4e12602); it pads "
    "before its first convolution, which comes to torchvision's padding",
    markers=(r"model/(module\.)?backbone\.conv1\.", r"model/(module\.)?projector\."),
    networks={"backbone": ("model/module.backbone.", "model/backbone.")},
    drops={r"model/(module\.)?projector\.": "projector"} | _TRAINING,
)

_TRUNK = r"(classy_state_dict/base_model/model/trunk|model_state_dict)/"

VISSL = Layout(
    name="vissl",
    made_by="VISSL",
    source="facebookresearch/vissl vissl/models/trunks/resnext.py, vissl/models/base_ssl_model.py, "
    "vissl/hooks/log_hooks.py, extra_scripts/convert_vissl_to_torchvision.py (09270ed)",
    markers=(rf"({_TRUNK})?(base_model\.)?_feature_blocks\.conv1\.",),
    networks={
        "trunk": (
            "classy_state_dict/base_model/model/trunk/_feature_blocks.",
            "classy_state_dict/base_model/model/trunk/base_model._feature_blocks.",
            "model_state_dict/_feature_blocks.",
            "_feature_blocks.",
        )
    },
    drops={
        r"classy_state_dict/base_model/model/heads/": "heads",
        r"classy_state_dict/(base_model/meta|optimizer|loss|hooks|train)/": "training state",
        r"loss/": "training state",
        rf"({_TRUNK})?(base_model\.)?_feature_blocks\.fc\.": "classifier",
    },
)
