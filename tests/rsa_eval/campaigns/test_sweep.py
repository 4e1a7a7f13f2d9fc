"""Sweeps: the grid, the command, the table."""

import re
import signal
from functools import partial

import pytest
import yaml

from rsa_eval.campaigns.sweep import plan_sweep, split_values
from rsa_pretrain.__main__ import main
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.training.trainer import Trainer

BETA = "method.beta_base"
KNN = "knn-weighted_vote-digits"


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


def sweep(*words):
    """Run the command; return its exit code."""
    return main(["sweep", *map(str, words)])


def names(planned):
    """Names of the trials, which are their folders."""
    return [trial.name for trial in planned.trials]


def plan(config_path, words, seeds, out):
    """Plan a sweep that is evaluated by kNN."""
    return plan_sweep(config_path, words, seeds, out, ["knn"])


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
    """A list is one value, however many commas it contains."""
    assert split_values(text) == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,,2", "found an empty value"),
        ("1,", "found an empty value"),
        ("[1,2", "']' is missing"),
        ("1]", "unmatched ']'"),
        ("[1}", "unmatched '}'"),
    ],
)
def test_malformed_values_are_refused(text, message):
    """Empty values and brackets that do not match are mistakes."""
    with pytest.raises(UserError, match=message):
        split_values(text)


def test_the_grid_is_the_product_of_the_values(config_path, out):
    """Each combination has every seed and a separate folder; single values apply to all."""
    words = [f"{BETA}=0,0.5", "training.epochs=3", "views.weak.crop_scale=[0.2,1.0],[0.5,1.0]"]
    planned = plan(config_path, words, [0, 7], out)
    assert [trial.folder for trial in planned.trials] == [out / name for name in names(planned)]
    assert names(planned) == [
        f"{BETA}={beta},views.weak.crop_scale={scale}/seed-{seed}"
        for beta in ("0", "0.5")
        for scale in ("[0.2,1.0]", "[0.5,1.0]")
        for seed in (0, 7)
    ]
    assert {trial.pretraining.training.epochs for trial in planned.trials} == {3}
    last = planned.cells[-1]
    first, second = (trial.pretraining for trial in last.trials)
    assert last.values == {BETA: 0.5, "views.weak.crop_scale": [0.5, 1.0]}
    assert (first.seed, second.seed) == (0, 7)
    assert first.method.beta_base == 0.5
    assert first.views.weak.crop_scale == (0.5, 1.0)


def test_seeds_and_folder_come_from_the_config_by_default(config_path, tiny_tree, out):
    """Without --seeds and --out; trials of one cell lie directly in the folder."""
    planned = plan(config_path, [f"{BETA}=0,1"], None, None)
    assert str(planned.folder) == tiny_tree["output_dir"] + "-sweep"
    assert [trial.pretraining.seed for trial in planned.trials] == [0, 0]
    assert names(plan(config_path, [], [0, 1], out)) == ["seed-0", "seed-1"]


def test_a_value_with_a_slash_makes_one_folder(config_path, out):
    """Characters that no folder name can hold are escaped, so that cells stay apart."""
    planned = plan(config_path, ["data.train_dir=a/b,a_b,a'b"], [0], out)
    assert names(planned) == [f"data.train_dir={name}/seed-0" for name in ("a%2Fb", "a_b", "a%27b")]
    folders = [trial.pretraining.data.train_dir for trial in planned.trials]
    assert folders == ["a/b", "a_b", "a'b"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed=0,1"], "'seed' differs from trial to trial; use --seeds"),
        (["output_dir=x"], "'output_dir' differs .* use --out"),
        ([f"{BETA}"], "not of the form section.key=value"),
        ([f"{BETA}=0,1", f"{BETA}=0.5"], "'method.beta_base' is swept and also given again"),
        ([f"{BETA}=0.3,0.30"], "beta_base=0.30/seed-0' and '.*0.3/seed-0' are the same run"),
        ([f"{BETA}=0,2"], "'method.beta_base': .*less than or equal to 1"),
        (["method.beta_bse=0,1"], "unknown key 'method.beta_bse'"),
        (["--seeds", "0,0"], "are the same run; give each value and each seed once"),
        (["--seeds", "0,-1"], "expected whole numbers like 0,1,2, found '0,-1'"),
        (["--seeds", "0,"], "expected whole numbers like 0,1,2, found '0,'"),
        (["--evaluator", "knn,lineal"], "--evaluator 'lineal' should be one of knn, linear"),
    ],
)
def test_a_mistake_shows_before_any_run(config_path, out, runs, capsys, words, message):
    """Nothing is trained for a sweep that cannot be finished."""
    assert sweep(config_path, *words, "--out", out) == 2
    assert re.search(f"^error: .*{message}", capsys.readouterr().err, flags=re.MULTILINE)
    assert runs.trained == []
    assert not out.exists()


def test_mean_and_sample_deviation_over_the_seeds(config_path, out, runs, capsys):
    """Seeds 0, 1, 2 score 0, 1, 4 above the cell: mean 5/3, variance 13/3 with n - 1."""
    words = [f"{BETA}=0.1,0.3", "--seeds", "0,1,2", "--evaluator", "knn,linear"]
    assert sweep(config_path, *words, "--out", out) == 0
    heading, *rows, _ = capsys.readouterr().out.splitlines()
    assert heading.split() == [BETA, "metric", "mean", "±", "std", "n", "trials"]
    assert [row.split()[:3] for row in rows] == [
        [beta, kind, metric]
        for beta in ("0.1", "0.3")
        for kind in ("knn", "linear")
        for metric in ("top1", "top5")
    ]
    row = "0.3 knn top1 % 31.67 ± 2.08 3 seed 0: 30.00, seed 1: 31.00, seed 2: 34.00"
    assert rows[4].split() == row.split()
    assert rows[5].split()[4:8] == ["99.00", "±", "0.00", "3"]
    assert rows[6].split()[4:8] == ["41.67", "±", "2.08", "3"]


def test_finished_runs_are_skipped_and_new_ones_added(config_path, out, runs, capsys):
    """The same command makes nothing again; more seeds and values make only what is new."""
    words = [config_path, f"{BETA}=0.1,0.3", "--out", out, "--seeds"]
    assert sweep(*words, "0") == 0
    before = capsys.readouterr().out
    assert sweep(*words, "0", "training.checkpoint_every_epochs=2") == 0
    assert capsys.readouterr().out == before
    assert "0.1  knn top1 %  10.00       1  seed 0" in before.splitlines()[1]
    assert len(runs.trained) == len(runs.evaluated) == 2
    assert sweep(*words, "0,1") == 0
    assert runs.trained[2:] == [f"{BETA}=0.1 seed-1", f"{BETA}=0.3 seed-1"]
    assert len(runs.evaluated) == 4


def test_a_folder_with_other_settings_is_refused(config_path, out, runs, capsys):
    """A folder with a run of other settings is refused."""
    words = [config_path, f"{BETA}=0.1,0.3", "--out", out]
    assert sweep(*words) == 0
    assert sweep(*words, "training.epochs=5") == 2
    error = capsys.readouterr().err
    assert "contains a run with other settings: training.epochs (was 2, is 5); restore" in error
    assert len(runs.trained) == 2


def test_a_run_that_fails_stops_no_other(config_path, out, runs, capsys):
    """The others are finished and counted; the failed ones are named."""
    words = [config_path, f"{BETA}=0.1,0.3,0.5", "--out", out, "--seeds", "0,1"]
    runs.broken = {
        f"{BETA}=0.1 seed-1": "training diverged: the loss is nan",
        f"{BETA}=0.3 seed-0": "no",
        f"{BETA}=0.3 seed-1 {KNN}": "no",
    }
    assert sweep(*words) == 2
    output, errors = capsys.readouterr()
    cells = [line.split() for line in output.splitlines()]
    assert ["0.1", "knn", "top1", "%", "10.00", "1", "seed", "0"] in cells
    assert ["0.3", "–", "–", "0", "failed"] in cells
    assert cells[-3][4:8] == ["50.50", "±", "0.71", "2"]
    assert errors.splitlines()[-1] == (
        f"error: 3 of 6 evaluations failed; rerun the command to retry: {KNN} of {BETA}=0.1/seed-1:"
        f" training diverged: the loss is nan; {KNN} of {BETA}=0.3/seed-0; "
        f"{KNN} of {BETA}=0.3/seed-1: no"
    )


def test_an_interrupted_sweep_ends_like_an_uninterrupted_one(
    config_path, tmp_path, monkeypatch, capsys
):
    """The time is up within the second run; resumed, no step is taken twice, no number differs."""
    steps = []
    original = Trainer._train_step

    def step_then_signal(self, *arguments):
        original(self, *arguments)
        steps.append(self.state.step)
        if len(steps) == 8 + 6:
            signal.raise_signal(signal.SIGALRM)

    def run(name):
        words = [config_path, f"{BETA}=0.1,0.5", "training.epochs=1", "data.num_test_images=90"]
        return sweep(*words, "--budget-minutes", 60, "--out", tmp_path / name)

    monkeypatch.setattr(Trainer, "_train_step", step_then_signal)
    assert run("straight") == 0
    expected = capsys.readouterr().out
    assert run("halted") == 142
    left = f"1 of 2 evaluations remain, first {BETA}=0.5/seed-0 (step 2 of 4); rerun to resume"
    assert left in capsys.readouterr().out
    assert run("halted") == 0
    assert len(steps) == 8 + 8
    assert capsys.readouterr().out == expected.replace("straight", "halted")


def test_two_processes_share_a_sweep(config_path, out, run_two_processes):
    """One of them speaks; what is recorded is skipped; a budget that is over stops all of them."""
    words = ["sweep", config_path, "training.epochs=1", "data.num_test_images=9", "--out", out]
    run = partial(run_two_processes, "-m", "rsa_pretrain", *words)
    done = run("--seeds", "0,1")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4
    records = sorted(out.rglob("records/*.json"))
    assert [path.parents[1].name for path in records] == ["seed-0", "seed-1"]
    times = [path.stat().st_mtime_ns for path in records]
    left = "stopped; 1 of 3 evaluations remain, first seed-2 (not started); rerun to resume\n"
    stopped = run("--seeds", "0,1,2", "--budget-minutes", "1e-9")
    assert (stopped.returncode, stopped.stdout) == (128 + signal.SIGALRM, left)
    assert [path.stat().st_mtime_ns for path in records] == times
