"""solo-learn and lightly: PyTorch Lightning's ``.ckpt``."""

from dataclasses import replace

from rsa_pretrain.weights.foreign.layout import Layout, Unusable
from rsa_pretrain.weights.foreign.names import NUMBERED

_LIGHTNING = r"pytorch-lightning_version$"

SOLO_LEARN = Layout(
    name="solo_learn",
    made_by="solo-learn",
    source="vturrisi/solo-learn solo/methods/*.py, solo/data/pretrain_dataloader.py, "
    "main_linear.py (9187ea3)",
    markers=(_LIGHTNING, r"state_dict/(backbone|encoder)\.conv1\.", r"state_dict/classifier\."),
    networks={
        "online": ("state_dict/backbone.", "state_dict/encoder."),
        "momentum": ("state_dict/momentum_backbone.", "state_dict/momentum_encoder."),
    },
    drops={
        r"state_dict/(momentum_)?classifier\.": "online classifier",
        r"state_dict/(momentum_)?(projector|head|prototypes)\.": "projector",
        r"state_dict/predictor2?\.": "predictor",
        r"state_dict/(transformer_encoder|pos_enc)\.": "predictor",
        r"state_dict/(queue|queue_(y|ptr|index)|local_memory_(index|embeddings))$": "negatives",
        r"state_dict/dino_loss_func\.": "centre of the loss",
    },
    cifar_refusal="solo-learn's 3x3 stem pads by 2 where this toolkit's pads by 1, so the same "
    "weights compute other features",
)

_LIGHTLY_DROPS = {
    r"state_dict/\w*projection_head\w*\.": "projection head",
    r"state_dict/\w*prediction_head\w*\.": "prediction head",
    r"state_dict/(student|teacher)_head\.": "projection head",
    r"state_dict/online_classifier\.": "online classifier",
    r"state_dict/knn_classifier\.": "online classifier",
    r"state_dict/prototypes\.": "prototypes",
    r"state_dict/criterion\.": "state of the loss",
    r"state_dict/(memory_bank|queues)\.": "negatives",
}
_MOMENTUM = (
    "state_dict/backbone_momentum.",
    "state_dict/teacher_backbone.",
    "state_dict/key_backbone.",
)

LIGHTLY = Layout(
    name="lightly",
    made_by="lightly, its ImageNet benchmarks",
    source="lightly-ai/lightly benchmarks/imagenet/resnet50/*.py (e8d317f)",
    markers=(
        _LIGHTNING,
        r"state_dict/backbone\.conv1\.",
        r"state_dict/(projection_head|online_classifier)\.",
    ),
    networks={
        "backbone": ("state_dict/backbone.",),
        "momentum": _MOMENTUM,
        "student": ("state_dict/student_backbone.",),
    },
    drops=_LIGHTLY_DROPS,
)

LIGHTLY_EXAMPLE = Layout(
    name="lightly_example",
    made_by="lightly, its examples",
    source="lightly-ai/lightly examples/pytorch_lightning/*.py (e8d317f)",
    markers=(_LIGHTNING, r"state_dict/backbone\.0\.weight", r"state_dict/backbone\.7\."),
    networks={
        "backbone": ("state_dict/backbone.",),
        "momentum": _MOMENTUM,
    },
    drops=_LIGHTLY_DROPS,
    names=NUMBERED,
)

LIGHTLY_DINO = replace(
    LIGHTLY_EXAMPLE,
    name="lightly_dino",
    made_by="lightly, its DINO example",
    markers=(
        _LIGHTNING,
        r"state_dict/teacher_backbone\.0\.weight",
        r"state_dict/student_backbone\.0\.weight",
    ),
    networks={
        "teacher": ("state_dict/teacher_backbone.",),
        "student": ("state_dict/student_backbone.",),
    },
)

LIGHTLY_CIFAR = Unusable(
    name="lightly's CIFAR-10 benchmark",
    source="lightly-ai/lightly lightly/models/resnet.py, "
    "docs/source/getting_started/benchmarks/cifar10_benchmark.py (e8d317f)",
    markers=(r"state_dict/backbone\.0\.weight", r"state_dict/backbone\.2\.0\.conv1\."),
    why="its nn.Sequential of the network's children has no ReLU after the first convolution, so "
    "the same weights compute other features than a ResNet",
)
