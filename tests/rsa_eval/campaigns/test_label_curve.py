import json
import math
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsa_eval.__main__ import main
from rsa_eval.campaigns.label_curve.plan import CurveModel, CurveSize, curve_sizes
from rsa_eval.campaigns.label_curve.results import CurvePoint, LabelSaving
from rsa_eval.campaigns.label_curve.settings import FromScratchConfig
from rsa_eval.campaigns.label_curve.text import needed_text, sentence
from rsa_eval.campaigns.trials import Trial
from rsa_eval.config import RandomBackboneConfig
from rsa_eval.evaluators import Workspace
from rsa_eval.evaluators.finetune.evaluator import evaluate_finetune
from rsa_eval.evaluators.finetune.settings import FinetuneConfig
from rsa_eval.evaluators.shared.settings import Subset
from rsa_eval.features.subject import Subject
from rsa_eval.records.predictions import encode_predictions, read_predictions
from rsa_eval.records.record import PredictionsFile, Record, Result, read_record, write_record
from rsa_eval.statistics.intervals import Interval
from rsa_eval.statistics.label_savings import LabelsNeeded
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.plumbing.errors import UserError

FEW = ["--labels", "1,5,50,all", "--draws", "2"]
QUICK = ["supervised.epochs=1", "supervised.min_steps=2", "supervised.batch_size=30"]
DIGITS = [
    *("data.name=digits", "data.image_size=32", "data.num_workers=0"),
    *("data.num_train_images=60", "data.num_test_images=30"),
]
NETWORK = ["backbone.arch=resnet18", "backbone.stem=standard"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Folder of the results."""
    return tmp_path / "out"


@pytest.fixture
def run_curve(out: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """A function that runs the command: exit code, standard output and error lines."""

    def run(*words: str | Path) -> tuple[int, list[str], list[str]]:
        capsys.readouterr()
        code = main(["label-curve", "--out", str(out), *map(str, words)])
        captured = capsys.readouterr()
        errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
        return code, captured.out.splitlines(), errors

    return run


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the records made, in order."""
    names: list[str] = []
    from rsa_eval.campaigns import campaign

    make = campaign.make_record_of

    def record(checkpoint: Any, evaluator: Any, config: Any, path: Path, **rest: Any) -> Record:
        names.append(f"{path.parents[1].name}/{path.stem}")
        return make(checkpoint, evaluator, config, path, **rest)

    monkeypatch.setattr(campaign, "make_record_of", record)
    return names


class Trainings:
    """Stands in for fine-tuning: stops or fails when asked to."""

    def __init__(self) -> None:
        self.before_stop = math.inf
        self.failing_seed: int | None = None

    def __call__(self, subject: Subject, config: FinetuneConfig, workspace: Workspace) -> Result:
        """Train, unless it stops or fails."""
        if self.before_stop == 0:
            raise KeyboardInterrupt
        self.before_stop -= 1
        if config.subset_seed == self.failing_seed:
            raise UserError("the loss of fine-tuning is nan")
        return evaluate_finetune(subject, config, workspace)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    """Fine-tuning that can be stopped and broken."""
    fake = Trainings()
    monkeypatch.setattr("rsa_eval.evaluators.finetune.evaluator.evaluate_finetune", fake)
    return fake


def read_curve(out: Path) -> Any:
    """The numbers that the command leaves."""
    return json.loads((out / "label-curve.json").read_text())


def test_checkpoint_and_random_weights(
    run_folder: Path, run_curve: Any, evaluated: list[str], out: Path
) -> None:
    """Table, sentence, numbers, page and plot agree with the records; a rerun makes none."""
    code, lines, _ = run_curve(run_folder, "--random-init", *FEW)
    assert code == 0
    tree = read_curve(out)
    trained, random = tree["models"]
    assert [trained["kind"], random["kind"]] == ["checkpoint", "random"]
    assert len(evaluated) == 2
    record = read_record(out / trained["records"] / "label-curve.json")
    names = ["top1_1per_class", "top1_5per_class", "top1_100pct"]
    assert list(record.metrics) == names
    for point, name in zip(trained["top1"], names, strict=True):
        assert point["top1"] == pytest.approx(record.metrics[name].value)
        assert point["low"] < point["top1"] < point["high"]
    assert [point["labels_per_class"] for point in trained["top1"]] == [1, 5, 6]
    assert [len(point["draws"]) for point in trained["top1"]] == [2, 2, 1]
    assert [point["all_labels"] for point in trained["top1"]] == [False, False, True]
    assert lines[0].split()[-3:] == ["5", "all", "(6)"]
    assert lines[1].startswith(f"{run_folder}  ")
    assert f"{trained['top1'][0]['top1']:.1f} [" in lines[1]
    assert "left out: 50 labels per class: class '0' has 6" in lines
    assert tree["summary"][0] in lines
    assert tree["summary"][0].startswith(f"With all 6 labels per class, {run_folder} reaches ")
    assert [row["labels_per_class"] for row in tree["labels_needed"]] == [1, 5, 6]
    assert tree["intervals"].startswith("95 % intervals over 30 test images and 2 draws of the")
    assert (out / "label-curve.png").read_bytes().startswith(b"\x89PNG")
    assert (
        "| top1 (%) by labels per class | 1 | 5 | all (6) |" in (out / "label-curve.md").read_text()
    )
    assert run_curve(run_folder, "--random-init", *FEW)[:2] == (0, lines)
    assert len(evaluated) == 2


def test_supervised_baseline(
    run_folder: Path, run_curve: Any, evaluated: list[str], out: Path
) -> None:
    """One record per size and draw, on the labels that the other models get; then the report."""
    words = [run_folder, "--supervised", *FEW, *QUICK]
    assert run_curve(*words)[0] == 0
    folder = "supervised-resnet18-standard-seed0"
    names = ["1per_class-draw0", "1per_class-draw1", "5per_class-draw0", "5per_class-draw1"]
    assert evaluated[1:] == [f"{folder}/label-curve-{name}" for name in [*names, "all-draw0"]]
    frozen = read_record(out / evaluated[0].split("/")[0] / "records/label-curve.json")
    drawn = [run["sha256"] for entry in frozen.details["subsets"] for run in entry["runs"]]
    records = [
        read_record(out / folder / f"records/{name.split('/')[1]}.json") for name in evaluated[1:]
    ]
    assert [record.details["labelled"]["sha256"] for record in records] == drawn
    assert [record.seeds for record in records] == [[0], [1], [0], [1], [0]]
    assert "trained from random weights as a supervised baseline" in records[0].deviations[0]
    assert len(records[0].details["loss_by_epoch"]) == 2
    supervised = read_curve(out)["models"][1]
    assert supervised["top1"][1]["draws"] == pytest.approx(
        [record.metrics["top1"].value for record in records[2:4]]
    )
    assert "training from scratch needs" in read_curve(out)["summary"][0]
    page = out / "report.html"
    assert main(["report", str(out), "--out", str(page)]) == 0
    assert "label-curve.json' is not" not in page.read_text()


def test_a_stopped_curve_is_resumed(
    run_folder: Path, run_curve: Any, evaluated: list[str], trainings: Trainings, out: Path
) -> None:
    """Finished records stay and count; a larger curve takes them over."""
    words = [run_folder, "--supervised", "--labels", "1,2", "--draws", "2", *QUICK]
    trainings.before_stop = 1
    assert run_curve(*words)[0] == 130
    assert not (out / "label-curve.json").exists()
    assert [path.stem for path in out.glob("supervised-*/records/*.json")] == [
        "label-curve-1per_class-draw0"
    ]
    trainings.before_stop = math.inf
    evaluated.clear()
    assert run_curve(*words)[0] == 0
    assert [name.rpartition("curve-")[2] for name in evaluated] == [
        *("1per_class-draw1", "2per_class-draw0", "2per_class-draw1")
    ]
    evaluated.clear()
    words[3] = "1,2,5"
    assert run_curve(*words)[0] == 0
    assert [name.rpartition("/")[2] for name in evaluated] == [
        *("label-curve", "label-curve-5per_class-draw0", "label-curve-5per_class-draw1")
    ]


def test_a_failed_training_leaves_out_its_size(
    run_folder: Path, run_curve: Any, trainings: Trainings, out: Path
) -> None:
    """All else is shown; one line of error and exit code 2."""
    trainings.failing_seed = 1
    code, lines, errors = run_curve(run_folder, "--supervised", *FEW, *QUICK)
    assert (code, len(errors)) == (2, 1)
    assert "2 of 6 evaluations failed" in errors[0]
    assert lines[2].split()[1:3] == ["–", "–"]
    supervised = read_curve(out)["models"][1]
    assert [point["labels_per_class"] for point in supervised["top1"]] == [6]


def test_a_budget_stops_it(run_folder: Path, run_curve: Any, evaluated: list[str]) -> None:
    """With the exit code of the suite, before any evaluation."""
    assert run_curve(run_folder, *FEW, "--budget-minutes", "1e-9")[0] == 142
    assert not evaluated


def test_random_weights_alone(run_curve: Any, out: Path) -> None:
    """Images and network come from the command line; there is nothing to compare."""
    words = ["--random-init", "--labels", "2", "--draws", "1", *DIGITS, *NETWORK]
    code, lines, _ = run_curve(*words)
    assert code == 0
    assert lines[2] == "95 % intervals over 30 test images; not over pretraining seeds"
    assert read_curve(out)["labels_needed"] == []
    assert "reaches" not in "".join(lines)


def test_records_of_other_test_images(run_folder: Path, run_curve: Any, out: Path) -> None:
    """A comparison of answers to different images is refused; lost answers are made again."""
    words = [run_folder, "--random-init", "--labels", "1", "--draws", "1"]
    assert run_curve(*words)[0] == 0
    path = next(out.glob("random-*/records/label-curve.json"))
    record = read_record(path)
    keyed = read_predictions(path, record)
    content = encode_predictions(["other", *keyed.keys[1:]], keyed.predictions)
    assert record.predictions is not None
    file = PredictionsFile(file=record.predictions.file, sha256=sha256(content).hexdigest())
    write_record(record.model_copy(update={"predictions": file}), path, content)
    code, _, errors = run_curve(*words)
    assert code == 2
    assert "were made from different test images; delete the older" in errors[0]
    path.with_name(file.file).unlink()
    assert run_curve(*words)[0] == 0
    assert read_predictions(path, read_record(path)).keys == keyed.keys


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--random-init", "--labels", "1,few", *DIGITS], "numbers above 0 and all, like 1,5,20"),
        (["--random-init", "--labels", "0", *DIGITS], "numbers above 0 and all"),
        (["--random-init", "--labels", "", *DIGITS], "numbers above 0 and all"),
        (["--random-init", "--draws", "0", *DIGITS], "expected a whole number above 0, found '0'"),
        (DIGITS, "expected a CHECKPOINT, --random-init or --supervised; found none"),
        (
            ["--random-init", *DIGITS],
            "there is nothing to evaluate; give a CHECKPOINT, or --random",
        ),
        (["--supervised", *DIGITS], "--random-init with backbone.arch and backbone.stem"),
        (["--random-init", *NETWORK], "does not determine the images; give a data config"),
        (
            ["--random-init", "--labels", "50,100", *DIGITS, *NETWORK],
            "no number of labels is left: 50 and 100 labels per class: class '0' has 6",
        ),
        (["nowhere", "--random-init"], "checkpoint 'nowhere' does not exist"),
        (["--random-init", *DIGITS, "supervised.epoch=1"], "valid key is 'supervised.epochs'"),
        (["--random-init", "--labels", "5,05"], "expected different numbers of labels, found '5,"),
        (["--random-init", "--fast"], "unrecognised argument: --fast"),
    ],
)
def test_mistakes_show_before_any_evaluation(
    words: list[str], message: str, run_curve: Any, evaluated: list[str], out: Path
) -> None:
    """One line of error that says what to do; nothing is run, nothing is left."""
    code, lines, errors = run_curve(*words)
    assert (code, lines, len(errors)) == (2, [], 1)
    assert message in errors[0]
    assert not evaluated
    assert not out.exists()


def image_set(*counts: int) -> ImageSet:
    """Return images of classes a, b, … with so many images each."""
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    pixels = np.zeros((len(labels), 2, 2, 3), np.uint8)
    return ImageSet.from_array("few", pixels, labels, list("abcdef"[: len(counts)]))


def test_numbers_of_labels_that_classes_have() -> None:
    """Too large ones are named with the smallest class; all is a single draw of the mean."""
    sizes, left_out = curve_sizes(image_set(7, 3, 5), [None, 10, 3, 1, 5], 4)
    assert [(size.name, size.num_images, size.num_draws) for size in sizes] == [
        ("1", 3, 4),
        ("3", 9, 4),
        ("all (5)", 15, 1),
    ]
    assert left_out == ["5 and 10 labels per class: class 'b' has 3"]
    sizes, left_out = curve_sizes(image_set(2, 2), [1, 2, None], 4)
    assert [size.name for size in sizes] == ["1", "all (2)"]
    assert left_out == ["2 labels per class: that is all of them"]
    with pytest.raises(UserError, match="no number of labels is left: 9 labels per class"):
        curve_sizes(image_set(2, 2), [9], 4)


def test_training_from_scratch_takes_enough_steps() -> None:
    """A handful of images is one batch for as many epochs as steps; large sets keep theirs."""
    config = FromScratchConfig()
    few, many = config.tuning(10), config.tuning(1000)
    assert (few["batch_size"], few["epochs"], few["milestones"]) == (10, 300, [150, 225])
    assert (many["batch_size"], many["epochs"], many["milestones"]) == (128, 100, [50, 75])
    assert FromScratchConfig(epochs=1, min_steps=1).tuning(10)["milestones"] == []


def make_saving(labels: float, low: float, high: float, kind: Any = "random") -> LabelSaving:
    """Return what a baseline measured from 1 to 144 labels needs for the accuracy with 10."""
    network = RandomBackboneConfig(arch="resnet18", stem="cifar")
    own, other = (
        Trial(name, Path(name), (), None, path)
        for name, path in (("x", Path("runs/x")), ("y", None))
    )
    ten = CurveSize(Subset(per_class=10), 10, 100, 5)
    return LabelSaving(
        CurveModel(own, "checkpoint", network),
        CurveModel(other, kind, network),
        CurvePoint(ten, 45.12, Interval(43.2, 47.0), (45.12,)),
        LabelsNeeded(labels, Interval(low, high)),
        CurveSize(Subset(percent=100), 144, 1440, 1),
        CurveSize(Subset(per_class=1), 1, 10, 5),
    )


def test_the_largest_and_the_smallest_number_of_labels_can_decide() -> None:
    """With all labels a baseline that is clearly below needs more; with the fewest, fewer."""
    saving = make_saving(math.inf, 144, math.inf)
    every = replace(saving.point, size=saving.most)
    open_end = LabelsNeeded(math.inf, Interval(144, math.inf), is_beyond=True)
    assert replace(saving, point=every, needed=open_end).is_shown
    assert sentence(replace(saving, point=every, needed=open_end)).endswith(
        "random weights need more than 144 labels per class for that."
    )
    assert not replace(saving, point=every).is_shown
    one = replace(saving.point, size=saving.least)
    assert replace(
        saving, point=one, needed=LabelsNeeded(0, Interval(0, 1), is_below=True)
    ).is_reversed


TIMES = "as many."
FEWER = ": fewer, so pretraining did not pay."


@pytest.mark.parametrize(
    ("saving", "text", "end"),
    [
        ((38, 25, 60), "38 (25 to 60)", f": 3.8 times (2.5 to 6.0) {TIMES}"),
        ((38, 25, math.inf), "38 (25 to > 144)", f": 3.8 times (2.5 or more) {TIMES}"),
        (
            (math.inf, 95, math.inf),
            "> 144 (95 to > 144)",
            f": more than 14 times (at least 9.5) {TIMES}",
        ),
        ((math.inf, 144, math.inf), "> 144", f": more than 14 times {TIMES}"),
        ((11.2, 6.54, 17), "11 (6.5 to 17)", ": no saving shown."),
        ((2, 0, 17), "2 (< 1 to 17)", ": no saving shown."),
        ((2, 1, 3), "2 (1 to 3)", FEWER),
        ((0, 0, 1), "< 1", FEWER),
    ],
)
def test_the_sentence(saving: tuple[float, float, float], text: str, end: str) -> None:
    """Accuracy, labels of the baseline and their ratio, with intervals that may be open."""
    assert needed_text(make_saving(*saving)) == text
    number = text.replace(">", "more than").replace("<", "fewer than")
    assert sentence(make_saving(*saving)) == (
        "With 10 labels per class, runs/x reaches 45.1 % (43.2 to 47.0); random weights need "
        f"{number} labels per class for that{end}"
    )
    scratch = sentence(make_saving(*saving, kind="supervised"))
    assert f"training from scratch needs {number} labels" in scratch


def test_two_processes_share_a_curve(
    run_folder: Path, run_curve: Any, run_two_processes: Any, out: Path, tmp_path: Path
) -> None:
    """They train and evaluate together, and one of them speaks; frozen models get equal numbers."""
    words = [str(run_folder), "--random-init", "--supervised", *FEW, *QUICK]
    two = tmp_path / "two"
    done = run_two_processes("-m", "rsa_eval", "label-curve", "--out", two, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("95 % intervals") == 1
    code, lines, _ = run_curve(*words)
    assert code == 0
    assert done.stdout.splitlines()[1:3] == lines[1:3]
    together, alone = read_curve(two)["models"], read_curve(out)["models"]
    assert together[:2] == alone[:2]
    assert len(together[2]["top1"]) == 3
