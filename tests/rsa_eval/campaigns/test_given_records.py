"""Records of features from files say where these come from."""

from pathlib import Path

import pytest
import torch

from rsa_eval.campaigns.given_records import make_record_of_features
from rsa_eval.evaluators.given import GIVEN_EVALUATORS
from rsa_eval.features.cache import CacheEntry
from rsa_eval.features.identity import FeatureIdentity
from rsa_pretrain.plumbing.config.files import parse_tree


@pytest.mark.parametrize(
    ("layers", "origin"),
    [
        (("timm:vit", "tokens=cls"), "of timm:vit and tokens=cls at fp32"),
        (("layer3", "layer4"), "of layer3 and layer4 at fp32: network unknown"),
    ],
)
def test_caches_state_the_network_they_know(
    tmp_path: Path, layers: tuple[str, ...], origin: str
) -> None:
    """Another library's is named, a ResNet's is not; no such library took part in the record."""
    paths = []
    for seed, split in enumerate(("train", "test")):
        identity = FeatureIdentity(
            format_version=2,
            weights="w",
            images=split,
            transform="t",
            layers=layers,
            precision="fp32",
            feature_dtype="fp32",
            library_versions={},
        )
        entry = CacheEntry(tmp_path, split, identity, torch.arange(8) % 2, 3, torch.float32)
        rows = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))
        entry.ensure(8, torch.device("cpu"), lambda own, rows=rows: ((0, rows) for _ in own))
        paths.append(entry.path)
    knn = GIVEN_EVALUATORS["knn"]
    config = parse_tree(knn.config, {"data_set": "points", "device": "cpu"}, "test")
    record = make_record_of_features(*paths, knn, config, tmp_path / "out.json")
    assert record.deviations[0] == f"features given in caches, {origin}"
    assert not {"timm", "transformers"} & record.library_versions.keys()
