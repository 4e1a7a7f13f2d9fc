"""Trained detectors of both engines' formats."""

from pathlib import Path
from unittest.mock import patch

import torch

from benchmarks.faults.damage.mutants import (
    mutate,
    mutate_inside_zip,
    mutate_safetensors,
    mutate_text,
)
from benchmarks.faults.damage.runs import metadata
from benchmarks.faults.damage.trials import Kind
from detection.engines.torchvision import detector, pyramid_heads
from detection.exchange.trained import read_trained
from detection.exchange.whole_detector import exchange
from detection.job.detector_card import CARD_KEY, DetectorCard
from detection.recipe.architecture import ModelConfig, SamplingConfig
from rsa_eval.features.identity import tensors_sha256
from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.components.settings import BackboneConfig
from rsa_pretrain.weights.checkpoint import save_tensors
from rsa_pretrain.weights.foreign.layout import Pixels

_MODEL = ModelConfig(
    arch="resnet18", trunk_norm="BN", head_norm="BN", box_head_num_convs=1, mask_head_num_convs=1
)
_SLOW = 0.125
_NARROW, _FULL = 8, 64


def detector_kinds() -> list[Kind]:
    """Return the kinds of detectors' files; detectron2's have a trunk of full width."""
    return [
        Kind("detector.safetensors", _write_own, _read, mutate_safetensors),
        Kind(
            "detector .pth of detectron2", _write_pth, _read, mutate, has_checksum=True, share=_SLOW
        ),
        Kind("detector .pth, changed inside", _write_pth, _read, mutate_inside_zip, share=_SLOW),
        Kind("detector .pkl of detectron2", _write_pkl, _read, mutate, share=_SLOW),
        Kind("YAML beside a detector", _write_yaml, _read_beside, mutate_text, share=_SLOW),
    ]


def _write(folder: Path, width: int) -> Path:
    torch.manual_seed(0)
    backbone = BackboneConfig(arch="resnet18", width=width, stem="standard")
    with (
        patch.object(detector, "PYRAMID_CHANNELS", 8),
        patch.object(pyramid_heads, "FC_WIDTH", 8),
    ):
        pixels = Pixels(metadata().mean, metadata().std)
        body = build_backbone(backbone)
        model = detector.assemble(_MODEL, SamplingConfig(), body, pixels, num_classes=2)
    described = metadata().model_copy(
        update={"arch": "resnet18", "stem": "standard", "method": "mask_rcnn"}
    )
    path = folder / "model.safetensors"
    card = DetectorCard(model=_MODEL).model_dump_json()
    save_tensors(path, model.state_dict(), described, {CARD_KEY: card})
    return path


def _write_own(folder: Path) -> Path:
    return _write(folder, _NARROW)


def _write_pth(folder: Path) -> Path:
    return exchange(_write(folder, _FULL), folder / "detector.pth").weights


def _write_pkl(folder: Path) -> Path:
    return exchange(_write(folder, _FULL), folder / "detector.pkl").weights


def _write_yaml(folder: Path) -> Path:
    path = _write_pth(folder)
    content = torch.load(path, weights_only=True)
    torch.save({"model": content["model"]}, path)
    return path.with_suffix(".yaml")


def _read(path: Path) -> tuple[str, str, str]:
    trained = read_trained(path)
    described = trained.metadata.model_dump(mode="json") | {"parent": None}
    return tensors_sha256(trained.tensors), repr(described), trained.card.model_dump_json()


def _read_beside(path: Path) -> tuple[str, str, str]:
    return _read(path.with_suffix(".pth"))
