"""Query and key networks: MoCo v1, v2, v3, and projects built on their code."""

from rsa_pretrain.weights.foreign.layout import Layout

MOCO = Layout(
    name="moco",
    made_by="MoCo v1 and v2",
    source="facebookresearch/moco moco/builder.py, main_moco.py, main_lincls.py (132aea9)",
    markers=(r"state_dict/encoder_q\.conv1\.", r"state_dict/encoder_q\.fc\."),
    networks={
        "query": ("state_dict/encoder_q.",),
        "key": ("state_dict/encoder_k.",),
    },
    drops={
        r"state_dict/encoder_[qk]\.fc\.": "projection head",
        r"state_dict/queue(_ptr)?$": "negatives",
    },
)

MOCO_V3 = Layout(
    name="moco_v3",
    made_by="MoCo v3 with a ResNet",
    source="facebookresearch/moco-v3 moco/builder.py, main_moco.py, main_lincls.py (c349e6e)",
    markers=(r"state_dict/base_encoder\.conv1\.",),
    networks={
        "base": ("state_dict/base_encoder.",),
        "momentum": ("state_dict/momentum_encoder.",),
    },
    drops={
        r"state_dict/(base|momentum)_encoder\.fc\.": "projection head",
        r"state_dict/predictor\.": "predictor",
    },
)

MEAN_SHIFT = Layout(
    name="mean_shift",
    made_by="Mean Shift (MSF)",
    source="UMBCvision/MSF train_msf.py, eval_linear.py (130191c)",
    markers=(
        r"state_dict/encoder_q\.conv1\.",
        r"state_dict/(encoder_t|predict_q)\.",
    ),
    networks={
        "online": ("state_dict/encoder_q.",),
        "target": ("state_dict/encoder_t.",),
    },
    drops={
        r"state_dict/encoder_[qt]\.fc\.": "projection head",
        r"state_dict/predict_q\.": "predictor",
        r"state_dict/(queue|queue_ptr|labels)$": "memory bank",
    },
)

RSA_RELEASE = Layout(
    name="rsa_release",
    made_by="the public release of RSA, its RSA and BYOL",
    source="tmllab/2022_NeurIPS_RSA methods/BYOL.py, train_multi.py, train_single.py (f4fa807)",
    markers=(r"encoder_q\.conv1\.", r"encoder_q_head\."),
    networks={
        "online": ("encoder_q.",),
        "target": ("encoder_k.",),
    },
    drops={
        r"encoder_[qk]_head\.": "projector",
        r"pred\.": "predictor",
    },
    has_cifar_stem=True,
)
