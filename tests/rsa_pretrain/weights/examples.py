"""Contents of every layout's checkpoints, by the names that each project's own code gives.

The file that gives the names stands beside each; revisions are in ``foreign/layouts``.
"""

import argparse
from dataclasses import dataclass, field
from typing import Any

import torch

from rsa_pretrain.weights.foreign.names import (
    C4_DETECTOR,
    DETECTRON2,
    NUMBERED,
    TORCHVISION,
    TRANSFORMERS,
    NameTable,
)

OPTIMIZER = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
TRAINED = {"epoch": 200, "arch": "resnet18", "optimizer": OPTIMIZER}
LIGHTNING = {
    "epoch": 399,
    "pytorch-lightning_version": "2.1.2",
    "optimizer_states": [OPTIMIZER],
    "callbacks": {"ModelCheckpoint{}": {"best_model_score": torch.tensor(1.0)}},
    "hyper_parameters": {"batch_size_per_device": 32},
}


@dataclass(frozen=True)
class Spec:
    """A file: containers are named by their path, ``""`` is the file itself."""

    networks: dict[str, tuple[str, str]]
    """Network → its container and the prefix of its names; the default comes first."""
    heads: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Container → other tensors in it; their names matter, their shapes do not."""
    again: tuple[str, ...] = ()
    """Second names of the default network, in its container."""
    beside: dict[str, Any] = field(default_factory=dict)
    """The other contents of the file."""
    names: NameTable = TORCHVISION
    kind: str = "torch"


def _one(name: str, container: str, prefix: str) -> dict[str, tuple[str, str]]:
    return {name: (container, prefix)}


def _two(container: str, **prefixes: str) -> dict[str, tuple[str, str]]:
    return {name: (container, prefix) for name, prefix in prefixes.items()}


SPECS = {
    "torchvision": Spec(_one("model", "", ""), {"": ("fc.weight", "fc.bias")}),
    "timm": Spec(  # timm/utils/checkpoint_saver.py
        {"model": ("state_dict", ""), "ema": ("state_dict_ema", "")},
        {"state_dict": ("fc.weight", "fc.bias"), "state_dict_ema": ("fc.weight",)},
        beside=TRAINED | {"args": argparse.Namespace(model="resnet18")},
    ),
    "moco": Spec(  # moco/builder.py, the MLP head of v2
        _two("state_dict", query="module.encoder_q.", key="module.encoder_k."),
        {
            "state_dict": (
                "module.encoder_q.fc.0.weight",
                "module.encoder_q.fc.2.bias",
                "module.encoder_k.fc.0.weight",
                "module.queue",
                "module.queue_ptr",
            )
        },
        beside=TRAINED,
    ),
    "moco_v3": Spec(  # moco/builder.py
        _two("state_dict", base="module.base_encoder.", momentum="module.momentum_encoder."),
        {
            "state_dict": (
                "module.base_encoder.fc.0.weight",
                "module.momentum_encoder.fc.4.running_mean",
                "module.predictor.0.weight",
            )
        },
        beside=TRAINED | {"scaler": {"scale": 65536.0}},
    ),
    "simsiam": Spec(  # simsiam/builder.py
        _one("encoder", "state_dict", "module.encoder."),
        {"state_dict": ("module.encoder.fc.0.weight", "module.predictor.3.bias")},
        beside=TRAINED,
    ),
    "rsa_release": Spec(  # methods/BYOL.py, train_multi.py
        _two("", online="module.encoder_q.", target="module.encoder_k."),
        {
            "": (
                "module.encoder_q_head.0.weight",
                "module.encoder_k_head.1.running_mean",
                "module.pred.3.weight",
            )
        },
    ),
    "byol_pytorch": Spec(  # byol_pytorch/byol_pytorch.py: net is online_encoder.net
        _two("", online="online_encoder.net.", target="target_encoder.net."),
        {
            "": (
                "net.fc.weight",
                "online_encoder.net.fc.weight",
                "target_encoder.net.fc.bias",
                "online_encoder.projector.0.weight",
                "online_predictor.0.weight",
            )
        },
        again=("net.",),
    ),
    "byol_sthalles": Spec(  # trainer.py, models/resnet_base_network.py
        {
            "online": ("online_network_state_dict", "encoder."),
            "target": ("target_network_state_dict", "encoder."),
        },
        {
            "online_network_state_dict": ("projetion.net.0.weight",),
            "target_network_state_dict": ("projetion.net.1.running_var",),
        },
        beside={"optimizer_state_dict": OPTIMIZER},
        names=NUMBERED,
    ),
    "byol_yaox12": Spec(  # model/byol_model.py, trainer/byol_trainer.py
        _two(
            "model",
            online="module.online_network.encoder.",
            target="module.target_network.encoder.",
        ),
        {
            "model": (
                "module.online_network.projetion.l1.weight",
                "module.target_network.projetion.bn1.running_mean",
                "module.predictor.predictor.l2.bias",
            )
        },
        beside={"optimizer": OPTIMIZER, "epoch": 300, "steps": 5, "amp": {}},
        names=NUMBERED,
    ),
    "simclr_sthalles": Spec(  # models/resnet_simclr.py, simclr.py
        _one("backbone", "state_dict", "backbone."),
        {"state_dict": ("backbone.fc.0.weight", "backbone.fc.2.bias")},
        beside=TRAINED,
    ),
    "simclr_spijkervet": Spec(  # simclr/simclr.py, model.py
        _one("encoder", "", "encoder."), {"": ("projector.0.weight", "projector.2.weight")}
    ),
    "simclr_atanov": Spec(  # models/encoder.py, models/ssl.py, train.py
        _one("convnet", "state_dict", "convnet."),
        {"state_dict": ("convnet.fc.weight", "projection.fc1.weight", "projection.bn2.bias")},
        beside={"hparams": argparse.Namespace(data="imagenet"), "opt_state_dict": OPTIMIZER},
    ),
    "swav": Spec(  # src/resnet50.py; the published files are bare
        _one("model", "", "module."),
        {"": ("module.projection_head.0.weight", "module.prototypes.weight")},
    ),
    "dino": Spec(  # main_dino.py, utils.py
        {
            "teacher": ("teacher", "module.backbone."),
            "student": ("student", "module.backbone."),
        },
        {
            "teacher": ("module.head.mlp.0.weight", "module.head.last_layer.weight_g"),
            "student": ("module.head.mlp.0.weight",),
            "dino_loss": ("center",),
        },
        beside={"optimizer": OPTIMIZER, "epoch": 300, "args": argparse.Namespace(lr=0.3)},
    ),
    "barlow_twins": Spec(  # main.py
        _one("backbone", "model", "module.backbone."),
        {"model": ("module.projector.0.weight", "module.bn.running_mean")},
        beside={"epoch": 1000, "optimizer": OPTIMIZER},
    ),
    "vicreg": Spec(  # main_vicreg.py
        _one("backbone", "model", "module.backbone."),
        {"model": ("module.projector.0.weight", "module.projector.1.running_mean")},
        beside={"epoch": 1000, "optimizer": OPTIMIZER},
    ),
    "pycontrast": Spec(  # networks/build_backbone.py, learning/contrast_trainer.py
        {"model": ("model", "module.encoder."), "model_ema": ("model_ema", "encoder.")},
        {
            "model": ("module.head.0.weight", "module.head_jig.fc1.weight"),
            "model_ema": ("head.0.weight",),
            "contrast": ("memory",),
        },
        beside={"optimizer": OPTIMIZER, "epoch": 800},
    ),
    "mean_shift": Spec(  # train_msf.py: each network in its own DataParallel
        _two("state_dict", online="encoder_q.module.", target="encoder_t.module."),
        {
            "state_dict": (
                "encoder_q.module.fc.0.weight",
                "encoder_t.module.fc.3.bias",
                "predict_q.module.0.weight",
                "queue",
                "labels",
                "queue_ptr",
            )
        },
        beside={"opt": argparse.Namespace(arch="resnet50"), "epoch": 200},
    ),
    "openselfsup": Spec(  # DenseCL's openselfsup/models/densecl.py: backbone is encoder_q.0
        _two("state_dict", online="backbone.", target="encoder_k.0."),
        {"state_dict": ("encoder_q.1.mlp.0.weight", "encoder_k.1.mlp2.0.weight", "queue2")},
        again=("encoder_q.0.",),
        beside={"meta": {"epoch": 200}, "optimizer": OPTIMIZER},
    ),
    "mmpretrain": Spec(  # mmselfsup/models/algorithms/byol.py, with the average's own names
        _two("state_dict", online="backbone.", target="target_net.module.0."),
        {
            "state_dict": (
                "target_net.steps",
                "target_net.module.1.fc0.weight",
                "neck.fc0.weight",
                "head.predictor.fc0.weight",
            )
        },
        beside={"meta": {"epoch": 200}},
    ),
    "vissl": Spec(  # vissl/models/base_ssl_model.py, vissl/models/trunks/resnext.py
        {
            "trunk": ("classy_state_dict/base_model/model/trunk", "_feature_blocks."),
            "ema": ("classy_state_dict/ema_model/model/trunk", "_feature_blocks."),
            "momentum": ("loss", "moco_encoder.trunk._feature_blocks."),
        },
        {
            "classy_state_dict/base_model/model/heads": ("0.clf.0.weight",),
            "classy_state_dict/ema_model/model/heads": ("0.clf.0.weight",),
            "loss": ("queue", "moco_encoder.heads.0.clf.0.weight"),
        },
        beside={"phase_idx": 3, "iteration": 9},
    ),
    "solo_learn": Spec(  # solo/methods/base.py, solo/methods/byol.py
        _two("state_dict", online="backbone.", momentum="momentum_backbone."),
        {
            "state_dict": (
                "classifier.weight",
                "projector.0.weight",
                "momentum_projector.0.weight",
                "predictor.0.weight",
                "predictor2.0.weight",  # solo/methods/all4one.py
                "transformer_encoder.layers.0.linear1.weight",
                "pos_enc.penc.penc.inv_freq",
                "queue",
                "queue_index",
                "local_memory_embeddings",  # solo/methods/deepclusterv2.py
            )
        },
        beside=LIGHTNING,
    ),
    "lightly": Spec(  # benchmarks/imagenet/resnet50/byol.py
        _two("state_dict", backbone="backbone.", momentum="teacher_backbone."),
        {
            "state_dict": (
                "projection_head.layers.0.weight",
                "teacher_projection_head.layers.0.weight",
                "prediction_head.layers.0.weight",
                "online_classifier.classification_head.weight",
            )
        },
        beside=LIGHTNING,
    ),
    "lightly_example": Spec(  # examples/pytorch_lightning/moco.py
        _two("state_dict", backbone="backbone.", momentum="backbone_momentum."),
        {
            "state_dict": (
                "projection_head.layers.0.weight",
                "projection_head_momentum.layers.0.weight",
                "criterion.memory_bank.bank",
            )
        },
        beside=LIGHTNING,
        names=NUMBERED,
    ),
    "lightly_dino": Spec(  # examples/pytorch_lightning/dino.py
        _two("state_dict", teacher="teacher_backbone.", student="student_backbone."),
        {"state_dict": ("student_head.layers.0.weight", "teacher_head.last_layer.weight_g")},
        beside=LIGHTNING,
        names=NUMBERED,
    ),
    "huggingface": Spec(  # models/resnet/modeling_resnet.py
        _one("model", "", "resnet."),
        {"": ("classifier.1.weight", "classifier.1.bias")},
        names=TRANSFORMERS,
        kind="safetensors",
    ),
    "detectron2": Spec(  # tools/convert-torchvision-to-d2.py
        _one("trunk", "model", ""),
        {"model": ("stem.fc.weight", "stem.fc.bias")},
        beside={"__author__": "torchvision", "matching_heuristics": True},
        names=DETECTRON2,
        kind="pickle",
    ),
    "detectron2_c4": Spec(  # modeling/roi_heads/roi_heads.py: Res5ROIHeads
        _one("trunk", "model", ""),
        {"model": ("roi_heads.box_predictor.cls_score.weight", "roi_heads.res5.norm.weight")},
        beside={"__author__": "torchvision"},
        names=C4_DETECTOR,
        kind="pickle",
    ),
}
