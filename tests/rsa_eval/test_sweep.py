import json
import os
import signal

import pytest
import yaml
from matplotlib.axes import Axes

from rsa_pretrain.__main__ import main
from rsa_pretrain.checkpoint import BACKBONE_FILE, load_checkpoint
from rsa_pretrain.command_line import Parser, run_command
from rsa_pretrain.commands import sweep as sweep_command
from rsa_pretrain.config_files import parse_tree, write_config
from rsa_pretrain.data import open_images
from rsa_pretrain.errors import UserError
from rsa_pretrain.sweep import plan_sweep, split_values
from rsa_pretrain.sweep_summary import SweepSummary
from rsa_pretrain.trainer import Trainer

BETA = "method.beta_base"


@pytest.fixture
def config_path(tiny_tree, tmp_path):
    """The tiny run as a file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_tree))
    return path


@pytest.fixture
def out(tmp_path):
    """Folder of the sweep."""
    return tmp_path / "sweep"


class Runs:
    """Stands in for training and evaluation: counts calls, fails and stops where it is told to."""

    def __init__(self):
        self.trained = []
        self.evaluated = []
        self.broken = {}
        self.stop_at = None

    def train(self, config, *, resume):
        """Leave a finished run, unless told otherwise."""
        assert resume
        name = config.output_dir.parent.name, config.seed
        self.trained.append(name)
        config.output_dir.mkdir(parents=True, exist_ok=True)
        write_config(config, config.output_dir / "config.yaml")
        if name == self.stop_at:
            return 143
        if name in self.broken:
            raise UserError(self.broken[name])
        (config.output_dir / BACKBONE_FILE).write_bytes(b"weights")
        return 0

    def evaluate(self, run_dir, evaluator):
        """Score a run by its settings: 100 beta + seed squared, ten more for the linear probe."""
        config = yaml.safe_load((run_dir / "config.yaml").read_text())
        self.evaluated.append((run_dir, evaluator))
        score = 100 * config["method"]["beta_base"] + config["seed"] ** 2
        return {"top1": score + 10 * (evaluator == "linear"), "top5": 99.0}


@pytest.fixture
def runs():
    """Stand-ins, fresh for each test."""
    return Runs()


def sweep(runs, *words):
    """Run the command; return its exit code."""

    def command():
        parser = Parser(prog="rsa-pretrain")
        commands = parser.add_subparsers(required=True)
        sweep_command.add(commands, runs.train, runs.evaluate, ("knn", "linear"))
        arguments = parser.parse_args(["sweep", *map(str, words)])
        return arguments.command(arguments)

    return run_command(command)


def read_summary(out):
    """The summary that a sweep wrote."""
    return parse_tree(SweepSummary, json.loads((out / "sweep.json").read_text()), "sweep.json")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.3", ["0.3"]),
        ("0,0.1, 0.3", ["0", "0.1", "0.3"]),
        ("[0.2,1.0]", ["[0.2,1.0]"]),
        ("[0.2,1.0],[0.5,1.0]", ["[0.2,1.0]", "[0.5,1.0]"]),
        ("{a: [1,2], b: 3},null", ["{a: [1,2], b: 3}", "null"]),
        ("", [""]),
    ],
)
def test_values_are_split_outside_brackets(text, values):
    """A list is one value, however many commas it holds."""
    assert split_values(text) == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,,2", "nothing before, after or between two commas"),
        ("1,", "nothing before, after or between two commas"),
        ("[1,2", "']' is missing"),
        ("1]", "']' closes no bracket"),
        ("[1}", "'}' closes no bracket"),
    ],
)
def test_malformed_values_are_refused(text, message):
    """Empty values and brackets that do not match are mistakes."""
    with pytest.raises(UserError, match=message):
        split_values(text)


def test_the_grid_is_the_product_of_the_values(config_path, out):
    """Each combination has every seed and a folder of its own; single values hold for all."""
    words = [f"{BETA}=0,0.5", "training.epochs=3", "views.weak.crop_scale=[0.2,1.0],[0.5,1.0]"]
    planned = plan_sweep(config_path, words, [0, 7], out)
    assert planned.keys == (BETA, "views.weak.crop_scale")
    folders = [run.output_dir.relative_to(out).as_posix() for run in planned.runs]
    assert folders == [
        f"{BETA}={beta},views.weak.crop_scale={scale}/seed-{seed}"
        for beta in ("0", "0.5")
        for scale in ("[0.2,1.0]", "[0.5,1.0]")
        for seed in (0, 7)
    ]
    assert {run.training.epochs for run in planned.runs} == {3}
    last = planned.cells[-1]
    assert last.values == {BETA: 0.5, "views.weak.crop_scale": [0.5, 1.0]}
    assert [run.seed for run in last.runs] == [0, 7]
    assert last.runs[0].method.beta_base == 0.5
    assert last.runs[0].views.weak.crop_scale == (0.5, 1.0)


def test_seeds_and_folder_come_from_the_config_by_default(config_path, tiny_tree):
    """Without --seeds and --out: the config's seed, beside the config's own folder."""
    planned = plan_sweep(config_path, [f"{BETA}=0,1"], None, None)
    assert str(planned.folder) == tiny_tree["output_dir"] + "-sweep"
    assert [run.seed for run in planned.runs] == [0, 0]


def test_three_seeds_need_no_key(config_path, out):
    """Trials of one config lie directly in the folder."""
    planned = plan_sweep(config_path, [], [0, 1, 2], out)
    assert [run.output_dir for run in planned.runs] == [out / f"seed-{seed}" for seed in range(3)]
    assert planned.cells[0].values == {}


def test_a_value_with_a_slash_makes_one_folder(config_path, out):
    """Characters that no folder name can hold are escaped, so that cells stay apart."""
    planned = plan_sweep(config_path, ["data.train_dir=a/b,a_b,a'b"], [0], out)
    names = [run.output_dir.parent.name for run in planned.runs]
    assert names == ["data.train_dir=a%2Fb", "data.train_dir=a_b", "data.train_dir=a%27b"]
    assert [run.data.train_dir for run in planned.runs] == ["a/b", "a_b", "a'b"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed=0,1"], "'seed' differs from run to run of a sweep; use --seeds"),
        (["output_dir=x"], "'output_dir' differs .* use --out"),
        ([f"{BETA}"], "not of the form section.key=value"),
        ([f"{BETA}=0,1", f"{BETA}=0.5"], "'method.beta_base' is swept and given again"),
        ([f"{BETA}=0.3,0.30"], "beta_base=0.30/seed-0' and '.*0.3/seed-0' are the same run"),
        ([f"{BETA}=0,2"], "'method.beta_base': .*less than or equal to 1"),
        (["method.beta_bse=0,1"], "unknown key 'method.beta_bse'"),
    ],
)
def test_a_mistake_shows_before_any_run(config_path, out, runs, capsys, words, message):
    """Nothing is trained for a sweep that cannot be finished."""
    with pytest.raises(UserError, match=message):
        plan_sweep(config_path, words, [0], out)
    assert sweep(runs, config_path, *words, "--out", out) == 2
    assert runs.trained == []
    assert not out.exists()
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "0,0"], "are the same run; give each value and each seed once"),
        (["--seeds", "0,-1"], "expected whole numbers like 0,1,2, found '0,-1'"),
        (["--seeds", "0,"], "expected whole numbers like 0,1,2, found '0,'"),
        (["--evaluator", "knn,logistic"], "--evaluator 'logistic' is none of knn, linear"),
    ],
)
def test_a_bad_option_is_named(config_path, out, runs, capsys, words, message):
    """Seeds and evaluators are checked before any run."""
    assert sweep(runs, config_path, "--out", out, *words) == 2
    assert message in capsys.readouterr().err
    assert runs.trained == []


def test_several_processes_are_refused(config_path, out, runs, capsys, monkeypatch):
    """Under torchrun every process would run the sweep."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert sweep(runs, config_path, "--out", out) == 2
    assert "a sweep is one process" in capsys.readouterr().err


def test_mean_and_sample_deviation_over_the_seeds(config_path, out, runs, capsys):
    """Seeds 0, 1, 2 score 0, 1, 4 above the cell: mean 5/3, variance 13/3 with n - 1."""
    words = [f"{BETA}=0.1,0.3", "--seeds", "0,1,2", "--evaluator", "knn,linear"]
    assert sweep(runs, config_path, *words, "--out", out) == 0
    first, second = read_summary(out).cells
    assert [run.metrics["knn"]["top1"] for run in first.runs] == [10, 11, 14]
    assert [run.folder for run in first.runs] == [f"{BETA}=0.1/seed-{n}" for n in range(3)]
    spreads = {(s.evaluator, s.metric): s for s in second.spreads}
    assert spreads["knn", "top1"].mean == pytest.approx(30 + 5 / 3)
    assert spreads["linear", "top1"].mean == pytest.approx(40 + 5 / 3)
    assert spreads["knn", "top1"].std == pytest.approx((13 / 3) ** 0.5)
    assert spreads["knn", "top5"].std == 0
    assert {spread.n for spread in second.spreads} == {3}
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [BETA, "metric", "mean", "±", "std", "n"] + [
        word for seed in range(3) for word in ("seed", str(seed))
    ]
    row = next(line for line in lines if line.split()[:3] == ["0.3", "knn", "top1"])
    assert row.split()[4:] == ["31.67", "±", "2.08", "3", "30.00", "31.00", "34.00"]


def test_a_single_run_has_no_deviation(config_path, out, runs, capsys):
    """One seed gives a number and no ±."""
    assert sweep(runs, config_path, "--out", out) == 0
    (cell,) = read_summary(out).cells
    assert (cell.spreads[0].n, cell.spreads[0].std) == (1, None)
    assert "knn top1 %  30.00       1  30.00" in capsys.readouterr().out


def test_finished_runs_are_skipped_and_new_ones_added(config_path, out, runs):
    """The same command trains nothing again; more seeds and values train only what is new."""
    words = [config_path, f"{BETA}=0.1,0.3", "--out", out, "--seeds"]
    assert sweep(runs, *words, "0") == 0
    before = (out / "sweep.json").read_text()
    runs.trained.clear()
    assert sweep(runs, *words, "0") == 0
    assert runs.trained == []
    assert (out / "sweep.json").read_text() == before
    assert sweep(runs, *words, "0,1") == 0
    assert runs.trained == [(f"{BETA}=0.1", 1), (f"{BETA}=0.3", 1)]
    assert [len(cell.runs) for cell in read_summary(out).cells] == [2, 2]


def test_a_folder_with_other_settings_is_refused(config_path, out, runs, capsys):
    """A run is taken for what it is; settings that leave its result alone may change."""
    words = [config_path, f"{BETA}=0.1,0.3", "--out", out]
    assert sweep(runs, *words) == 0
    assert sweep(runs, *words, "training.checkpoint_every_epochs=2") == 0
    runs.trained.clear()
    assert sweep(runs, *words, "training.epochs=5") == 2
    error = capsys.readouterr().err
    assert "holds a run of other settings: training.epochs (was 2, is 5); restore" in error
    assert runs.trained == []


def test_a_stopped_run_stops_the_sweep(config_path, out, runs, capsys):
    """The run's exit code is the sweep's; the same command goes on with that run."""
    words = [config_path, f"{BETA}=0.1,0.3,0.5", "--out", out]
    runs.stop_at = (f"{BETA}=0.3", 0)
    assert sweep(runs, *words) == 143
    assert "the same command goes on from there" in capsys.readouterr().out
    assert not (out / "sweep.json").exists()
    assert len(runs.trained) == 2
    runs.stop_at = None
    runs.trained.clear()
    assert sweep(runs, *words) == 0
    assert runs.trained == [(f"{BETA}=0.3", 0), (f"{BETA}=0.5", 0)]


def test_a_run_that_breaks_down_stops_no_other(config_path, out, runs, capsys):
    """The others are finished and counted; the failed one is named, and tried again next time."""
    words = [config_path, f"{BETA}=0.1,0.3,0.5", "--out", out, "--seeds", "0,1"]
    runs.broken = {
        (f"{BETA}=0.1", 1): "training broke down: the loss is nan",
        (f"{BETA}=0.3", 0): "no",
        (f"{BETA}=0.3", 1): "no",
    }
    assert sweep(runs, *words) == 1
    output = capsys.readouterr().out
    folder = out / f"{BETA}=0.1" / "seed-1"
    assert f"failed: {folder}: training broke down: the loss is nan" in output
    assert "3 of 6 runs failed; the same command tries them again" in output
    first, second, third = read_summary(out).cells
    assert [run.failure for run in first.runs] == [None, "training broke down: the loss is nan"]
    assert (first.spreads[0].mean, first.spreads[0].n, first.spreads[0].std) == (10, 1, None)
    assert second.spreads == ()
    assert third.spreads[0].n == 2
    cells = [line.split() for line in output.splitlines()]
    assert ["0.1", "knn", "top1", "%", "10.00", "1", "10.00", "failed"] in cells
    assert ["0.3", "–", "–", "0", "failed", "failed"] in cells
    runs.broken = {}
    runs.trained.clear()
    assert sweep(runs, *words) == 0
    assert runs.trained == [(f"{BETA}=0.1", 1), (f"{BETA}=0.3", 0), (f"{BETA}=0.3", 1)]


@pytest.mark.parametrize(
    ("words", "drawn"),
    [
        ([f"{BETA}=0.5,0.1"], True),
        (["optimizer.name=sgd,lars"], False),
        ([f"{BETA}=0.5,0.1", "training.epochs=2,3"], False),
        ([], False),
    ],
)
def test_one_numeric_key_is_drawn(config_path, out, runs, monkeypatch, words, drawn):
    """The plot has the headline's mean over the value, in its order, and the deviation as bars."""
    curves = []
    original = Axes.errorbar

    def errorbar(self, values, means, yerr, **style):
        curves.append((style["label"], values, means, yerr))
        return original(self, values, means, yerr=yerr, **style)

    monkeypatch.setattr(Axes, "errorbar", errorbar)
    assert sweep(runs, config_path, *words, "--seeds", "0,2", "--out", out) == 0
    assert (out / "sweep.png").exists() == drawn
    if drawn:
        assert (out / "sweep.png").read_bytes().startswith(b"\x89PNG")
        ((label, values, means, deviations),) = curves
        assert (label, values) == ("knn top1", (0.1, 0.5))
        assert means == pytest.approx((12, 52))
        assert deviations == pytest.approx((8**0.5, 8**0.5))


class RealRuns(Runs):
    """Trains for real."""

    def train(self, config, *, resume):
        """Train as ``run`` does."""
        self.trained.append((config.output_dir.parent.name, config.seed))
        return Trainer(config, open_images(config.data, "train"), resume=resume).run()


def weights(out):
    """Every run's final tensors."""
    folders = sorted(path.parent for path in out.rglob(BACKBONE_FILE))
    return [load_checkpoint(folder / "checkpoints" / "last")[0] for folder in folders]


def test_an_interrupted_sweep_ends_like_an_uninterrupted_one(config_path, tmp_path, monkeypatch):
    """A signal within the second run, then the same command: every weight is bitwise the same."""
    words = [config_path, f"{BETA}=0.1,0.5", "training.epochs=1", "--seeds", "3"]
    assert sweep(RealRuns(), *words, "--out", tmp_path / "straight") == 0
    original = Trainer._train_step
    steps = []

    def step_then_signal(self, *arguments):
        original(self, *arguments)
        steps.append(self.state.step)
        if len(steps) == 4 + 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "_train_step", step_then_signal)
    halted = RealRuns()
    assert sweep(halted, *words, "--out", tmp_path / "halted") == 143
    assert len(halted.trained) == 2
    monkeypatch.setattr(Trainer, "_train_step", original)
    resumed = RealRuns()
    assert sweep(resumed, *words, "--out", tmp_path / "halted") == 0
    assert resumed.trained == [(f"{BETA}=0.5", 3)]
    for one, other in zip(
        weights(tmp_path / "straight"), weights(tmp_path / "halted"), strict=True
    ):
        assert one.keys() == other.keys()
        assert all(one[name].equal(other[name]) for name in one)
    assert len(weights(tmp_path / "halted")) == 2


def test_the_command_evaluates_each_run_once(config_path, out, capsys):
    """``rsa-pretrain sweep`` keeps kNN's record in each run folder, and takes it the next time."""
    words = ["sweep", str(config_path), f"{BETA}=0.1,0.5", "training.epochs=1", "--out", str(out)]
    words.append("data.num_test_images=20")
    assert main(words) == 0
    records = sorted(out.rglob("records/knn-weighted_vote-digits.json"))
    assert len(records) == 2
    times = [path.stat().st_mtime_ns for path in records]
    first = capsys.readouterr().out
    assert main(words) == 0
    assert [path.stat().st_mtime_ns for path in records] == times
    assert capsys.readouterr().out == first
    (spread, *_) = read_summary(out).cells[1].spreads
    record = json.loads(records[1].read_text())
    assert spread.mean == record["metrics"]["top1"]["value"]
    assert (out / "sweep.png").exists()
