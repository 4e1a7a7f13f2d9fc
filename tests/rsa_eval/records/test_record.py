import json
import shutil
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rsa_eval.campaigns.run_records import make_record_of
from rsa_eval.evaluators import EVALUATORS, Workspace
from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.records.pretraining_run import pretraining_settings
from rsa_eval.records.record import MetricInterval, Model, Record, read_record, write_record
from rsa_eval.statistics.intervals import wilson
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import load_backbone


def test_round_trip(tmp_path: Path, make_result: Callable[..., Record]) -> None:
    """A record read back equals the one written, unset values included."""
    for record in (make_result(), make_result(random_init=True, git_commit=None, git_dirty=None)):
        write_record(record, tmp_path / "record.json")
        assert read_record(tmp_path / "record.json") == record


def test_a_record_of_the_first_schema_is_read(
    tmp_path: Path, make_result: Callable[..., Record]
) -> None:
    """It had no artifacts and did not record the pretraining; its accuracies gain intervals."""
    expected = make_result(kind="knn", values={"top1": 90.0})
    own = wilson(27, 30)
    interval = MetricInterval(low=own.low, high=own.high, method="Wilson")
    tree = json.loads(expected.model_dump_json()) | {"schema_version": 1}
    del tree["artifacts"]
    del tree["predictions"]
    del tree["model"]["pretraining"]
    (tmp_path / "record.json").write_text(json.dumps(tree))
    top1 = expected.metrics["top1"].model_copy(update={"interval": interval})
    expected = expected.model_copy(update={"metrics": {"top1": top1}})
    assert read_record(tmp_path / "record.json") == expected


@pytest.mark.parametrize(
    ("changes", "num_right"),
    [
        ({"kind": "knn", "values": {"top1": 90.0, "top5": 100.0}}, {"top1": 27, "top5": 30}),
        ({"kind": "finetune", "values": {"top1": 0.0}}, {"top1": 0}),
        # No whole number of 30 images is right, so these are of something else.
        ({"kind": "linear", "values": {"top1": 91.25}}, {}),
        # Means over folds or draws, and what is no accuracy.
        ({"kind": "linear", "values": {"top1": 90.0, "top1_std": 1.0}}, {}),
        ({"kind": "low-shot", "values": {"top1_1pct": 90.0}}, {}),
        ({"kind": "diagnostics", "values": {"rankme": 90.0}}, {}),
    ],
)
def test_accuracies_of_older_records_gain_intervals(
    tmp_path: Path,
    make_result: Callable[..., Record],
    changes: dict[str, Any],
    num_right: dict[str, int],
) -> None:
    """A single classifier's accuracy is a count of right images, so Wilson's interval follows."""
    tree = json.loads(make_result(**changes).model_dump_json()) | {"schema_version": 2}
    del tree["predictions"]
    for metric in tree["metrics"].values():
        del metric["interval"]
    (tmp_path / "record.json").write_text(json.dumps(tree))
    found = {
        name: (metric.interval.low, metric.interval.high)
        for name, metric in read_record(tmp_path / "record.json").metrics.items()
        if metric.interval is not None
    }
    expected = {name: wilson(count, 30) for name, count in num_right.items()}
    assert found == {name: (own.low, own.high) for name, own in expected.items()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 0}, "schema version 0, expected 1 to 4$"),
        ({"schema_version": 5}, "version 5, expected 1 to 4; update rsa-toolkit to read it$"),
        ({"schema_version": None}, "schema version None, expected 1 to 4$"),
        ({"schema_version": "1"}, "schema version '1', expected 1 to 4$"),
        ({"metrics": {"top1": {"value": "nan", "unit": "%"}}}, r"metrics\.top1\.value"),
        ({"metrics": {"top1": {"value": "inf", "unit": "%"}}}, r"metrics\.top1\.value"),
        ({"headline": "top9"}, r"headline 'top9' is not among metrics \['top1', 'top5'\]"),
        ({"metrics": {}}, "headline 'top1' is not among metrics"),
    ],
)
def test_a_record_of_no_known_version_or_without_a_number_is_refused(
    tmp_path: Path, make_result: Callable[..., Record], changes: dict[str, Any], message: str
) -> None:
    """Only schemas of this code are read; no metric is undefined, the headline is one of them."""
    tree = json.loads(make_result().model_dump_json()) | changes
    (tmp_path / "record.json").write_text(json.dumps(tree))
    with pytest.raises(UserError, match=message):
        read_record(tmp_path / "record.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", r"record\.json' is not an evaluation record: it has no 'schema_version'$"),
        ("{}", r"record\.json' is not an evaluation record: it has no 'schema_version'$"),
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"schema_version": 4, "config": {"a": "\\ud800"}}', "is not JSON"),
        ('{"schema_version": 1}', "'model' is required"),
        ('{"schema_version": 2, "model": 3}', "'model'"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """An invalid record is refused by name, never half-read."""
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_record(tmp_path / "record.json")


def test_an_evaluation_records_how_to_repeat_it(
    finished_run: Path,
    knn_config: KNNConfig,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Command, weights, images, settings, versions and machine all stand in the record."""
    monkeypatch.setattr(sys, "argv", ["/somewhere/rsa_eval/__main__.py", "knn", "runs/x"])
    started = time.perf_counter()
    record = make_record_of(finished_run, EVALUATORS["knn"], knn_config, workspace.record)
    assert read_record(workspace.record) == record
    assert (record.kind, record.protocol, record.data_set) == ("knn", "weighted_vote", "digits")
    assert record.seeds == [knn_config.seed]
    assert record.command == ["python", "-m", "rsa_eval", "knn", "runs/x"]
    assert record.model.sha256 is not None
    assert record.config["data"]["num_train_images"] == 60
    assert record.details["images"]["train"]["count"] == 60
    assert record.model.pretraining is not None
    assert record.model.pretraining["method"]["beta_base"] == 0.3
    assert record.num_samples == record.details["images"]["test"]["count"] == 30
    assert record.library_versions.keys() >= {"torch", "torchvision", "numpy", "python"}
    has_faster = find_spec("faster_coco_eval") is not None
    assert ("faster-coco-eval" in record.library_versions) == has_faster
    assert record.hardware
    assert 0 < record.seconds < time.perf_counter() - started
    votes = record.details["votes"]
    assert [vote["k"] for vote in votes] == [200, 10, 20, 100, 200, 1, 20]
    assert votes[0]["neighbours"] == 60
    assert record.metrics["top1"].value == votes[0]["top1"]
    assert "all 60 training images vote (k=200)" in record.deviations


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("seed: 1\n", "'data' is required"),
        ("{", "not valid YAML"),
        (None, "describes a different run"),
    ],
)
def test_settings_of_another_run_are_not_taken_for_the_weights_own(
    finished_run: Path,
    tmp_path: Path,
    text: str | None,
    warning: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A config.yaml that happens to lie around the weights does not describe them."""
    shutil.copy(finished_run / "backbone.safetensors", tmp_path)
    other = (finished_run / "config.yaml").read_text().replace("seed: 0", "seed: 7")
    (tmp_path / "config.yaml").write_text(other if text is None else text)
    loaded = load_backbone(tmp_path)
    assert pretraining_settings(loaded.path, loaded.metadata) is None
    assert warning in caplog.text


def test_weights_in_no_run_folder_have_no_settings(finished_run: Path, tmp_path: Path) -> None:
    """Nothing is known of how they were trained but their metadata, and nothing is warned of."""
    shutil.copy(finished_run / "backbone.safetensors", tmp_path)
    loaded = load_backbone(tmp_path)
    assert pretraining_settings(loaded.path, loaded.metadata) is None


def test_a_model_names_its_network(make_result: Callable[..., Record]) -> None:
    """A model has the toolkit's network or another one's name, never both or neither."""
    ours = make_result().model
    assert ours.backbone is not None
    assert ours.network == f"{ours.backbone.name}, {ours.backbone.stem} stem"
    other = Model(
        checkpoint="timm:vit", sha256="0", metadata=None, backbone=None, other_network="timm:vit"
    )
    assert other.network == "timm:vit"
    assert not other.is_random
    for changes in ({"other_network": None}, {"backbone": ours.backbone}):
        with pytest.raises(ValueError, match="either a backbone or another network"):
            Model.model_validate(dict(other) | changes)
