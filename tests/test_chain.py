"""The whole product with a ResNet-50, from images to the report, by its own commands."""

import csv
from pathlib import Path

from detection.__main__ import main as rsa_detect
from rsa_eval.__main__ import main as rsa_eval
from rsa_eval.records.record import read_record
from rsa_pretrain.__main__ import main as rsa_pretrain
from rsa_pretrain.weights.checkpoint import load_backbone

CONFIGS = Path(__file__).parents[1] / "configs"
SMALL_DATA = ["data.num_train_images=20", "data.num_test_images=20"]
SMALL_DETECTOR = [
    "model.arch=resnet50",
    "input.train_short_sides_pixels=[64]",
    "input.test_short_side_pixels=64",
    "input.max_side_pixels=64",
    "solver.iterations=2",
    "solver.decay_at=[]",
    "solver.warmup_iterations=1",
]


def test_one_checkpoint_runs_through_everything(tmp_path, capsys):
    """Pretraining, kNN, linear probe, conversion, Mask R-CNN and report share one ResNet-50."""
    run, detector, shapes = tmp_path / "run", tmp_path / "detector", tmp_path / "shapes"
    demo = "digits/rsa"
    resnet50 = ["backbone.arch=resnet50", "training.global_batch_size=10", "seed=1"]
    assert rsa_pretrain(["run", demo, *SMALL_DATA, *resnet50, f"output_dir={run}"]) == 0
    assert rsa_eval(["knn", str(run)]) == 0
    probe = ["--config", "linear/moco_v2", "probe.mode=cached", *SMALL_DATA]
    assert rsa_eval(["linear", str(run), *probe]) == 0
    weights = tmp_path / "weights" / "rsa_r50.pkl"
    assert rsa_detect(["convert", str(run), str(weights)]) == 0
    assert "used 265 tensors, each once" in capsys.readouterr().out
    toy = ["toy", str(shapes), "--num-train", "2", "--num-test", "2", "--image-size", "64"]
    assert rsa_detect(toy) == 0
    annotations = shapes / "annotations"
    data = [
        f"data.train_annotations={annotations / 'instances_train.json'}",
        f"data.train_images={shapes / 'train'}",
        f"data.test_annotations={annotations / 'instances_val.json'}",
        f"data.test_images={shapes / 'val'}",
    ]
    recipe = [str(CONFIGS / "detection/toy_shapes.yaml"), f"output_dir={detector}"]
    train = ["train", *recipe, "--checkpoint", str(run), *data, *SMALL_DETECTOR]
    assert rsa_detect(train) == 0
    assert rsa_eval(["report", str(run), str(detector), "--out", str(tmp_path / "all.html")]) == 0
    with (tmp_path / "all.csv").open(encoding="utf-8") as file:
        reported = {(line["files"], line["metric"]): line["mean"] for line in csv.DictReader(file)}

    sha256 = load_backbone(run).sha256
    records = [
        run / "records/knn-weighted_vote-digits.json",
        run / "records/linear-moco_v2-digits.json",
    ]
    for path in [*records, detector / "records/detection.json"]:
        record = read_record(path)
        assert record.model.sha256 == sha256
        assert record.model.backbone.arch == "resnet50"
        value = record.metrics[record.headline].value
        assert float(reported[str(path), record.headline]) == value
