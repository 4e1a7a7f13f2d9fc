"""OpenSelfSup, DenseCL, MMSelfSup and MMPretrain: ``backbone.`` and its neighbours."""

from rsa_pretrain.weights.foreign.layout import Layout

_HEADS = {r"(ema_)?state_dict/(neck|head)\.": "neck and head"}
_QUEUES = {r"state_dict/queue2?(_ptr)?$": "negatives"}
_CLUSTERS = {  # of NPID and ODC; of DeepCluster and ODC
    r"state_dict/memory_bank\.": "memory of the images",
    r"state_dict/loss_weight$": "state of the loss",
}

OPENSELFSUP = Layout(
    name="openselfsup",
    made_by="OpenSelfSup with a momentum network; DenseCL",
    source="open-mmlab/OpenSelfSup openselfsup/models/{moco,byol}.py (1db69ec); WXinlong/DenseCL "
    "openselfsup/models/densecl.py, necks.py (b64bbb6)",
    markers=(
        r"state_dict/backbone\.conv1\.",
        r"state_dict/(encoder_q|online_net)\.0\.conv1\.",
    ),
    networks={
        "online": ("state_dict/backbone.",),
        "target": ("state_dict/encoder_k.0.", "state_dict/target_net.0."),
    },
    drops={
        r"state_dict/(encoder_q|online_net)\.0\.": "the backbone under a second name",
        r"state_dict/(encoder_[qk]|online_net|target_net)\.1\.": "neck",
    }
    | _HEADS
    | _QUEUES,
)

MMPRETRAIN = Layout(
    name="mmpretrain",
    made_by="MMPretrain, MMClassification and MMSelfSup; OpenSelfSup without momentum network",
    source="open-mmlab/mmpretrain mmpretrain/models/backbones/resnet.py, "
    "mmpretrain/models/selfsup/{moco,byol}.py, tools/model_converters/torchvision_to_mmpretrain.py "
    "(ee7f2e8); open-mmlab/mmselfsup mmselfsup/models/algorithms/*.py (db861f3); stride in the 3x3 "
    "convolution (style 'pytorch', the projects' default); open-mmlab/mmengine "
    "mmengine/runner/runner.py, mmengine/hooks/ema_hook.py",
    markers=(r"state_dict/backbone\.conv1\.", r"meta/|message_hub/|state_dict/(neck|head)\."),
    networks={
        "online": ("state_dict/backbone.",),
        "target": (
            "state_dict/encoder_k.0.",
            "state_dict/target_net.0.",
            "state_dict/momentum_encoder.0.",
        ),
        # Its EMAHook swaps: the averaged weights are in state_dict, the trained ones here.
        "ema_state_dict": ("ema_state_dict/backbone.",),
    },
    drops={
        r"state_dict/(encoder_k|target_net|momentum_encoder)\.(steps$|1\.)": "neck",
        r"(ema_)?state_dict/data_preprocessor\.": "input normalisation",
        r"ema_state_dict/steps$": "training state",
    }
    | _HEADS
    | _QUEUES
    | _CLUSTERS,
)
