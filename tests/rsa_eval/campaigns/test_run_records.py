import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rsa_eval.__main__ import main
from rsa_eval.campaigns.run_records import make_record_of, recorded
from rsa_eval.evaluators import EVALUATORS, Workspace
from rsa_eval.evaluators.diagnostics.settings import DiagnosticsConfig
from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.evaluators.robustness.settings import RobustnessConfig
from rsa_eval.records.record import Record, read_record, write_record
from rsa_pretrain.plumbing.config.files import parse_tree, to_tree
from rsa_pretrain.weights.checkpoint import (
    BACKBONE_FILE,
    file_sha256,
    load_backbone,
    save_tensors,
)

DEFAULT = "records/knn-weighted_vote-digits.json"


@pytest.mark.parametrize("evaluator", ["linear", "finetune"])
def test_a_full_disk_does_not_cost_the_training(
    run_folder: Path,
    tmp_path: Path,
    knn_config: KNNConfig,
    monkeypatch: pytest.MonkeyPatch,
    evaluator: str,
) -> None:
    """The state stays until the record is written, and goes then, those of folds too."""
    kind = EVALUATORS[evaluator]
    training = {"epochs": 1, "milestones": []}
    changes = {
        "linear": {"probe": training | {"mode": "cached"}},
        "finetune": {"tuning": training, "subset": None},
    }[evaluator]
    tree = {"data": to_tree(knn_config.data), "device": "cpu"} | changes
    config = parse_tree(kind.config, tree, "test")
    workspace = Workspace(tmp_path / "record.json")

    def refuse(record: Record, path: Path, predictions: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("rsa_eval.records.make.write_record", refuse)
        with pytest.raises(OSError, match="No space left"):
            make_record_of(run_folder, kind, config, workspace.record)
    assert workspace.state.exists()
    workspace.fold_state(3).touch()
    make_record_of(run_folder, kind, config, workspace.record)
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"record.json", "record.predictions.npz"}


@pytest.mark.parametrize(("interpolation", "same"), [("bilinear", True), ("bicubic", False)])
def test_a_record_from_before_the_interpolation_is_bilinear(
    tmp_path: Path,
    knn_config: KNNConfig,
    make_result: Callable[..., Record],
    interpolation: str,
    same: bool,
) -> None:
    """An old record has no data.eval_interpolation: it is taken for bilinear, which it was."""
    tree = to_tree(knn_config)
    tree["data"]["eval_interpolation"] = interpolation
    config = parse_tree(KNNConfig, tree, "test")
    del tree["data"]["eval_interpolation"]
    old = make_result(kind="knn", random_init=True, config=tree)
    write_record(old, tmp_path / "record.json")
    assert (recorded(tmp_path / "record.json", None, config) == old) == same


def test_a_record_that_lost_its_answers_is_made_again(run_folder: Path) -> None:
    """By a campaign, which would otherwise call it recorded for ever."""
    assert main(["knn", str(run_folder)]) == 0
    path = run_folder / DEFAULT
    record = read_record(path)
    config = parse_tree(KNNConfig, record.config, "test")
    assert recorded(path, record.model.sha256, config) == record
    path.with_suffix(".predictions.npz").unlink()
    assert recorded(path, record.model.sha256, config) is None


def test_a_record_without_new_shifted_images_is_made_again(
    tmp_path: Path, make_result: Callable[..., Record]
) -> None:
    """A set or a corruption that was fetched since is tested; one that is gone keeps the record."""
    data = {"name": "imagenet100", "root": "x", "image_size": 32}
    tree = {"data": data, "shifts": {"root": str(tmp_path)}}
    config = parse_tree(RobustnessConfig, tree, "test")
    path, names = tmp_path / "record.json", ["fog", "snow"]
    corruptions = {"corruptions": dict.fromkeys(names), "extra_corruptions": {}}
    shifts = {"imagenet_c": corruptions, "imagenet_r": {}}
    common = {"kind": "robustness", "random_init": True, "config": to_tree(config)}
    record = make_result(details={"shifts": shifts}, **common)
    write_record(record, path)
    for name in names:
        (tmp_path / "ImageNet-C" / name).mkdir(parents=True)
    assert recorded(path, None, config) == record
    (tmp_path / "ImageNet-C" / "frost").mkdir()
    assert recorded(path, None, config) is None
    (tmp_path / "ImageNet-C" / "frost").rmdir()
    (tmp_path / "imagenet-a").mkdir()
    assert recorded(path, None, config) is None


def test_a_comparison_with_weights_trained_again_is_made_again(
    finished_run: Path, tmp_path: Path, knn_config: KNNConfig, make_result: Callable[..., Record]
) -> None:
    """CKA is of the weights that are there now; where they are gone the record stands."""
    other, path = tmp_path / "other", tmp_path / "record.json"
    tree = {"data": to_tree(knn_config.data), "device": "cpu", "compare_to": str(other)}
    config = parse_tree(DiagnosticsConfig, tree, "test")
    sha256 = file_sha256(finished_run / BACKBONE_FILE)
    details = {"compared_to": {"sha256": sha256}}
    common = {"kind": "diagnostics", "random_init": True, "config": to_tree(config)}
    record = make_result(details=details, **common)
    write_record(record, path)
    assert recorded(path, None, config) == record
    shutil.copytree(finished_run, other)
    assert recorded(path, None, config) == record
    backbone = load_backbone(other)
    changed = {name: tensor + 1 for name, tensor in backbone.backbone.state_dict().items()}
    save_tensors(other / BACKBONE_FILE, changed, backbone.metadata)
    assert recorded(path, None, config) is None


def test_a_record_of_other_settings_is_not_replaced(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the default path it is refused before the work, with the settings that differ."""
    assert main(["knn", str(run_folder)]) == 0
    before = read_record(run_folder / DEFAULT)
    words = ["knn", str(run_folder), "seed=3", "batch_size=7"]
    capsys.readouterr()
    assert main(words) == 2
    captured = capsys.readouterr()
    assert "is a record made with other settings (batch_size, seed); give --out" in captured.err
    assert captured.out == ""
    assert read_record(run_folder / DEFAULT) == before
    assert main([*words, "--out", str(tmp_path / "x.json")]) == 0
    assert main([*words, "--out", str(run_folder / DEFAULT)]) == 0
    assert read_record(run_folder / DEFAULT).seeds == [3]


@pytest.mark.parametrize("damaged", [False, True])
def test_a_record_of_the_same_settings_is_made_anew(run_folder: Path, damaged: bool) -> None:
    """So is one that is damaged."""
    assert main(["knn", str(run_folder)]) == 0
    path = run_folder / DEFAULT
    path.write_text("{" if damaged else path.read_text().replace('"seconds": ', '"seconds": 99'))
    assert main(["knn", str(run_folder)]) == 0
    assert read_record(path).seconds < 99
