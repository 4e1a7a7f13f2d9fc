"""Evaluations, records, cache and suites of networks that are none of the toolkit's."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from rsa_eval import extract, load_network, transform_for
from rsa_eval.__main__ import main
from rsa_eval.campaigns.run_records import make_record_of, recorded
from rsa_eval.evaluators import EVALUATORS
from rsa_eval.evaluators.finetune.task import ClassTask
from rsa_eval.evaluators.finetune.training import fine_tune
from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.features.batch_size import batch_size_on
from rsa_eval.features.extract import cache_entry, stored_features
from rsa_eval.features.frozen import frozen
from rsa_eval.features.networks.interface import network_of
from rsa_eval.features.networks.spec import NetworkSpec
from rsa_eval.features.subject import load_subject
from rsa_eval.records.record import read_record
from rsa_eval.report.tables import model_detail, model_name
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.plumbing.config.files import parse_tree, to_tree

timm: Any = pytest.importorskip("timm", reason="timm is not installed (extra: networks)")
DATA = {"name": "digits", "image_size": 32, "num_workers": 0}
DATA |= {"num_train_images": 60, "num_test_images": 30}
RANDOM = NetworkSpec("timm", "test_vit", is_random=True)
SETTINGS: dict[str, dict[str, Any]] = {
    "knn": {},
    "linear": {"probe": {"mode": "cached", "epochs": 2, "milestones": []}},
    "online": {"probe": {"mode": "online", "epochs": 1, "milestones": []}},
    "logistic": {"search": {"num_values": 2, "max_iterations": 5}},
    "low-shot": {"subsets": [{"per_class": 1}], "subset_seeds": [0]},
    "svm": {"machine": {"costs": [0.1]}},
    "diagnostics": {"num_view_images": 8, "embedding": {"num_images": 10}},
    "finetune": {"subset": None, "tuning": {"epochs": 2, "milestones": [1], "batch_size": 16}},
}


@pytest.fixture
def vit(tmp_path: Path) -> str:
    """Weights of a small vision transformer, in a folder with a space."""
    (tmp_path / "my weights").mkdir()
    path = tmp_path / "my weights" / "vit.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), path)
    return f"timm:test_vit@{path}"


@pytest.mark.parametrize("name", SETTINGS)
def test_every_evaluator_takes_other_networks(vit: str, tmp_path: Path, name: str) -> None:
    """With chosen tokens; the record names the network and its weights."""
    evaluator = EVALUATORS["linear" if name == "online" else name]
    tree = {"data": DATA, "device": "cpu", "tokens": "cls+mean", **SETTINGS[name]}
    config = parse_tree(evaluator.config, tree, "test")
    record = make_record_of(vit, evaluator, config, tmp_path / "records" / "record.json")
    assert record == read_record(tmp_path / "records" / "record.json")
    assert (record.model.checkpoint, record.model.other_network) == (vit, "timm:test_vit")
    assert record.model.backbone is None
    assert "features of tokens cls+mean (protocol: pooled)" in record.deviations
    assert "timm" in record.library_versions
    assert (model_name(record), model_detail(record)) == ("timm:test_vit", vit)


def test_fine_tuning_trains_the_network(vit: str, tmp_path: Path) -> None:
    """The loss falls; the loaded network itself does not change."""
    tree = {"data": DATA, "device": "cpu", "subset": None}
    tree |= {"tuning": {"epochs": 8, "milestones": [], "batch_size": 16, "backbone_base_lr": 0.1}}
    config = parse_tree(EVALUATORS["finetune"].config, tree, "test")
    subject = load_subject(vit, config)
    before = {name: tensor.clone() for name, tensor in subject.backbone.state_dict().items()}
    images = open_images(config.data, "train")
    tuning = fine_tune(subject, ClassTask(images), config, tmp_path / "record.state.pt")
    assert tuning.losses[-1] < tuning.losses[0]
    after = tuning.classifier.backbone.state_dict()
    name = "module.model.blocks.0.attn.qkv.weight"
    assert not torch.equal(after[name], before[name])
    assert all(torch.equal(subject.backbone.state_dict()[name], before[name]) for name in before)


def test_features_are_cached_by_network_and_tokens(
    vit: str,
    settings: Callable[..., KNNConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A second extraction reads the file; other tokens and other weights have other files."""
    config = settings(cache_dir=str(tmp_path / "cache"), tokens="cls")
    images = open_images(config.data, "test")
    subject = load_subject(vit, config)
    with frozen(subject.backbone):
        first = stored_features(subject, images, config, "")
        monkeypatch.setattr("rsa_eval.features.extract.feature_batches", None)
        assert torch.equal(stored_features(subject, images, config, "").features, first.features)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    paths = {cache_entry(subject, images, config, tmp_path).path}
    for changes in ({"tokens": "mean"}, {"tokens": "default"}, {"blocks": 2}):
        other = settings(**(to_tree(config) | changes))
        paths.add(cache_entry(load_subject(vit, other), images, other, tmp_path).path)
    paths.add(cache_entry(load_subject(RANDOM, config), images, config, tmp_path).path)
    assert len(paths) == 5


def test_a_record_is_resumed_for_its_network_alone(
    vit: str, settings: Callable[..., KNNConfig], tmp_path: Path
) -> None:
    """Neither for random weights of another network nor for a network that the same file fits."""
    backbone = {"arch": "resnet18", "stem": "cifar"}
    config, path = settings(), tmp_path / "knn.json"
    of_resnet = settings(backbone=backbone)
    record = make_record_of(vit, EVALUATORS["knn"], config, path)
    sha256 = record.model.sha256
    assert recorded(path, sha256, config, "timm:test_vit") == record
    assert recorded(path, sha256, config, "timm:another") is None
    assert recorded(path, sha256, config) is None
    assert recorded(path, None, config, "timm:test_vit") is None
    assert recorded(path, sha256, settings(tokens="cls"), "timm:test_vit") is None
    record = make_record_of(RANDOM, EVALUATORS["knn"], config, path)
    assert record.model.is_random
    assert recorded(path, None, config, "timm:test_vit") == record
    assert recorded(path, None, config, "timm:another") is None
    assert recorded(path, None, config) is None
    assert recorded(path, None, settings(seed=1), "timm:test_vit") is None
    make_record_of(None, EVALUATORS["knn"], of_resnet, path)
    assert recorded(path, None, of_resnet) is not None
    assert recorded(path, None, of_resnet, "timm:test_vit") is None


def test_records_from_before_there_were_tokens_are_reused(
    settings: Callable[..., KNNConfig], make_result: Callable[..., Any], tmp_path: Path
) -> None:
    """They were made of the default."""
    tree = to_tree(settings())
    del tree["tokens"], tree["blocks"]
    old = make_result(kind="knn", random_init=True, config=tree)
    (tmp_path / "record.json").write_text(old.model_dump_json())
    assert recorded(tmp_path / "record.json", None, settings()) == old


def test_batches_on_a_gpu_follow_the_largest_map(
    vit: str, settings: Callable[..., KNNConfig]
) -> None:
    """Of a small ViT: five tokens of 192 numbers, queries, keys and values or an MLP's hidden."""
    config = settings(batch_size=None)
    backbone = load_subject(vit, config).backbone
    assert network_of(backbone).largest_map_bytes(32) == 4 * 5 * 192
    assert batch_size_on(torch.device("cuda"), backbone, config) == 2048
    wide = load_subject(
        NetworkSpec("torchvision", "vgg11", is_random=True),
        settings(batch_size=None, data=DATA | {"image_size": 224}),
    )
    # VGG's first convolution keeps the area: 64 maps of 224 x 224.
    largest = 4 * 64 * 224 * 224
    assert network_of(wide.backbone).largest_map_bytes(224) == largest
    config = settings(batch_size=None, data=DATA | {"image_size": 224})
    assert batch_size_on(torch.device("cuda"), wide.backbone, config) == 2**30 // largest


def _suite(tmp_path: Path) -> Path:
    path = tmp_path / "suite.yaml"
    evaluations = {"knn": {}, "again": {"evaluator": "knn", "settings": {"tokens": "cls"}}}
    tree = {"data": DATA, "device": "cpu", "evaluations": evaluations}
    path.write_text(yaml.safe_dump(tree))
    return path


def test_a_suite_of_several_kinds(
    vit: str,
    run_folder: Path,
    write_module: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A ResNet, a ViT and a function, each with random weights where these are known."""
    write_module("")
    tree = {"data": DATA, "device": "cpu", "evaluations": {"knn": {}}}
    Path("suite.yaml").write_text(yaml.safe_dump(tree))
    words = ["suite", str(run_folder), vit, "python:mine:make", "timm:test_vit2"]
    words += ["--suite", "./suite.yaml", "--random-init", "--out", "out"]
    with caplog.at_level(logging.INFO):
        assert main(words) == 0
    assert "no random weights of python-mine-make-" in caplog.text
    folders = sorted(path.parent.parent.name for path in Path("out").glob("*/records/knn.json"))
    names = [folder.rsplit("-", 1)[0] for folder in folders]
    expected = ["digits", "python-mine-make", "timm-test_vit"]
    assert [name for name in names if not name.startswith("random")] == expected
    random = [folder for folder in folders if folder.startswith("random")]
    assert random == [
        "random-resnet18-standard-seed0",
        "random-timm-test_vit-seed0",
        "random-timm-test_vit2-seed0",
    ]
    record = read_record(Path("out/random-timm-test_vit-seed0/records/knn.json"))
    assert record.model.is_random
    assert record.model.network == "timm:test_vit"
    table = capsys.readouterr().out
    assert all(text in table for text in (vit, "random-timm-test_vit-seed0", "python:mine:make"))
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert main(words) == 0
    assert caplog.text.count("knn of") == caplog.text.count("is recorded") == 6


def test_a_suite_refuses_the_same_network_twice(
    vit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a network without weights, unless random ones are wanted."""
    words = ["--suite", str(_suite(tmp_path)), "--out", str(tmp_path / "out")]
    assert main(["suite", vit, vit, *words]) == 2
    assert f"'{vit}' is given twice; give each checkpoint once" in capsys.readouterr().err
    assert main(["suite", "timm:test_vit", *words]) == 2
    assert "'timm:test_vit' names no weights" in capsys.readouterr().err


def test_a_label_curve_has_the_network_s_baselines(vit: str, tmp_path: Path) -> None:
    """Random weights, and the network trained from them on the labels alone."""
    out = tmp_path / "curve"
    words = [f"data.{key}={value}" for key, value in DATA.items()]
    words += ["device=cpu", "--labels", "1,2", "--draws", "1", "--out", str(out)]
    words += ["supervised.epochs=1", "supervised.min_steps=2", "supervised.batch_size=8"]
    assert main(["label-curve", vit, "--random-init", "--supervised", *words]) == 0
    tree = json.loads((out / "label-curve.json").read_text())
    kinds = [(model["kind"], model["backbone"]) for model in tree["models"]]
    network = {"network": "timm:test_vit"}
    assert kinds == [("checkpoint", network), ("random", network), ("supervised", network)]
    names = [model["name"] for model in tree["models"]]
    assert names == [vit, "random-timm-test_vit-seed0", "supervised-timm-test_vit-seed0"]
    assert len(tree["labels_needed"]) == 4
    assert not any("baselines" in line for line in tree["left_out"])


def test_a_label_curve_says_which_networks_have_no_baselines(
    write_module: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A function's network has none, which stands under the table."""
    write_module("")
    words = [f"data.{key}={value}" for key, value in DATA.items()]
    words += ["device=cpu", "--labels", "1", "--draws", "1", "--out", str(tmp_path / "curve")]
    assert main(["label-curve", "python:mine:make", "--random-init", *words]) == 0
    assert "left out: baselines of python:mine:make: of other lib" in capsys.readouterr().out


def test_features_are_extracted_into_a_cache(
    vit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command, two splits of the class token and the mean."""
    words = [f"data.{key}={value}" for key, value in DATA.items()]
    words += ["device=cpu", "tokens=cls+mean", f"cache_dir={tmp_path / 'cache'}"]
    assert main(["features", vit, *words]) == 0
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert "60 x 128, fp32" in capsys.readouterr().out


def test_features_in_python(vit: str) -> None:
    """``load_network`` and ``extract`` give the module's features of a torch data set."""

    class Images(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            return digits[index]

    digits = open_images(parse_tree(KNNConfig, {"data": DATA}, "test").data, "test")
    loaded = load_network(vit, 32, tokens="mean")
    transform = transform_for(loaded.preprocessing, 32)
    found = extract(loaded.backbone, Images(), transform=transform, device="cpu")
    with torch.no_grad():
        expected = loaded.backbone(torch.stack([transform(digits[i]) for i in range(3)]))
    torch.testing.assert_close(found.features, expected)
