import json
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from rsa_eval.records.of_weights import read_records
from rsa_eval.records.record import Record, write_record
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import LoadedBackbone
from rsa_pretrain.weights.export.model_card import model_card
from rsa_pretrain.weights.metadata import Origin

OWN, SOURCE, OTHER = "a" * 64, "b" * 64, "f" * 64


@pytest.fixture
def loaded(make_result: Callable[..., Record]) -> LoadedBackbone:
    """Weights imported from another project's file."""
    origin = Origin(
        file="source.pth",
        layout="torchvision",
        recognised="certain",
        network="the network",
        prefix="",
        num_taken=1,
        dropped={},
        filled=[],
        pixels="ImageNet's",
        non_finite=[],
        source="a test",
    )
    of_run = make_result().model.metadata
    assert of_run is not None
    metadata = of_run.model_copy(update={"origin": origin, "parent": SOURCE, "epochs": None})
    return LoadedBackbone(nn.Identity(), metadata, Path("own.safetensors"), OWN)


@pytest.fixture
def write(tmp_path: Path, make_result: Callable[..., Record]) -> Callable[..., None]:
    """A function that writes a record of weights with a given hash."""

    def write_one(name: str, sha256: str, **changes: object) -> None:
        model = make_result().model.model_copy(update={"sha256": sha256})
        write_record(make_result(model=model, **changes), tmp_path / f"{name}.json")

    return write_one


def test_the_card_tells_the_records_of_these_weights(
    loaded: LoadedBackbone, write: Callable[..., None], tmp_path: Path
) -> None:
    """Numbers, protocol, deviations and training are on the card; other weights' are not."""
    write("a", OWN, hardware="a | CPU\n# <b>", deviations=["a subset of the images"])
    write("b", SOURCE, data_set="stl10")
    write("c", OTHER, data_set="another")
    records, others = read_records(tmp_path, loaded)
    assert ([part.rows[0][0] for part in records], others) == (["cifar10", "stl10"], 1)
    card = model_card(loaded, records)
    time, machine = "2026-01-01T00:00:00+00:00", r"a \| CPU # &lt;b&gt;"
    assert f"| cifar10 | linear, moco_v2 | top1 | 91.25 % | 30 | 0 | {time}, {machine} |" in (
        card.replace("\\_", "_")
    )
    assert "- linear on cifar10: a subset of the images" in card
    assert "- epochs: not known" in card
    assert "another" not in card.replace("another project's", "")
    assert card.startswith("---\nlibrary_name: transformers\n")


def test_the_hub_reads_the_results_in_the_card(
    loaded: LoadedBackbone, write: Callable[..., None], tmp_path: Path
) -> None:
    """Its own reader finds each metric, with task and data set."""
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    write("a", OWN)
    write("b", SOURCE, data_set="stl10", kind="segmentation")
    records, _ = read_records(tmp_path, loaded)
    card = model_card(loaded, records, "user/model")
    first, *_, second = hub.ModelCard(card).data.eval_results
    assert (first.task_type, first.dataset_type) == ("image-classification", "cifar10")
    assert (first.metric_type, first.metric_value) == ("accuracy", 91.25)
    assert first.metric_name == "top1 (%; moco_v2)"
    assert (second.task_type, second.dataset_type) == ("image-segmentation", "stl10")
    assert 'create_model("hf-hub:user/model"' in card


def test_files_that_are_not_records_are_named(
    loaded: LoadedBackbone, write: Callable[..., None], tmp_path: Path
) -> None:
    """A damaged record stops the export instead of vanishing from the card."""
    write("x", OWN)
    path = tmp_path / "x.json"
    tree = json.loads(path.read_text())
    for text, reason in (
        (json.dumps({"schema_version": 2, "kind": "knn"}), "'metrics'|metrics"),
        (json.dumps(tree | {"seeds": 0}), "seeds"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=rf"x\.json'.*({reason})"):
            read_records(tmp_path, loaded)
    with pytest.raises(UserError, match="is not a folder of records"):
        read_records(Path("absent"), loaded)
