import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rsa_eval.__main__ import main
from rsa_eval.campaigns.settings import SuiteConfig, load_evaluations
from rsa_eval.evaluators import Workspace
from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.features.subject import Subject
from rsa_eval.records.record import Metric, Result, read_record
from rsa_pretrain.plumbing.config.files import load_config
from rsa_pretrain.weights.checkpoint import load_backbone, save_checkpoint, save_tensors

COUNTS = {"num_train_images": 60, "num_test_images": 30}
DATA = {"name": "digits", "image_size": 32, "num_workers": 0} | COUNTS


@dataclass
class FakeEvaluator:
    """Stands in for knn: counts its runs, and fails or stops when told to."""

    runs: list[tuple[str | None, KNNConfig]] = field(default_factory=list)
    failing_batch: int = 0
    stops: bool = False
    resumed: int = 0
    after_run: Callable[[], object] = lambda: None

    def __call__(self, subject: Subject, config: KNNConfig, workspace: Workspace) -> Result:
        """Pretend to evaluate."""
        if config.batch_size == self.failing_batch:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        self.resumed += workspace.state.exists()
        if self.stops:
            workspace.state.parent.mkdir(parents=True, exist_ok=True)
            workspace.state.touch()
            raise KeyboardInterrupt
        self.runs.append((subject.model.sha256, config))
        self.after_run()
        return Result(
            metrics={"top1": Metric(value=50.0 + len(self.runs), unit="%")},
            headline="top1",
            num_samples=30,
            details={},
            deviations=[],
        )


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeEvaluator:
    """Evaluations that take no time."""
    fake = FakeEvaluator()
    monkeypatch.setattr("rsa_eval.evaluators.knn.evaluator.evaluate_knn", fake)
    return fake


@pytest.fixture
def write_suite(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a suite and returns its path."""

    def write(evaluations: dict[str, Any], **changes: Any) -> Path:
        path = tmp_path / "suite.yaml"
        tree = {"data": DATA, "device": "cpu", "evaluations": evaluations} | changes
        path.write_text(yaml.safe_dump(tree), encoding="utf-8")
        return path

    return write


@pytest.fixture
def suite(write_suite: Callable[..., Path]) -> Path:
    """Two evaluations that differ in one setting."""
    return write_suite(
        {"first": {"evaluator": "knn"}, "second": {"evaluator": "knn", "settings": {"seed": 7}}}
    )


@pytest.fixture
def unlucky_suite(write_suite: Callable[..., Path], fake: FakeEvaluator) -> Path:
    """Two evaluations, the first of which fails."""
    fake.failing_batch = 13
    entry = {"evaluator": "knn"}
    return write_suite({"bad": {**entry, "settings": {"batch_size": 13}}, "good": entry})


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where a suite's results go."""
    return tmp_path / "out"


@pytest.fixture
def run_suite(
    suite: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, list[str]]]:
    """A function that runs the command: exit code, standard output and error lines."""

    def run(*words: str | Path, path: Path = suite) -> tuple[int, str, list[str]]:
        capsys.readouterr()
        code = main(["suite", "--suite", str(path), "--out", str(out), *map(str, words)])
        captured = capsys.readouterr()
        lines = captured.err.splitlines()
        return code, captured.out, [line for line in lines if line.startswith("error: ")]

    return run


@pytest.fixture(scope="module")
def other_run(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of the same name with other weights."""
    folder = tmp_path_factory.mktemp("other") / finished_run.name
    shutil.copytree(finished_run, folder)
    loaded = load_backbone(folder)
    with torch.no_grad():
        loaded.backbone.get_parameter("conv1.weight").mul_(2)
    file = folder / "backbone.safetensors"
    save_tensors(file, loaded.backbone.state_dict(), loaded.metadata)
    return folder


def records_below(out: Path) -> list[str]:
    """Names of the records, as target/evaluation."""
    return sorted(f"{path.parents[1].name}/{path.stem}" for path in out.glob("*/records/*.json"))


def test_a_suite_from_end_to_end(
    run_folder: Path, write_suite: Callable[..., Path], run_suite: Any, out: Path
) -> None:
    """Two kinds of weights by two real evaluators: records, table, page, features kept once."""
    linear = {"settings": {"probe.mode": "cached", "probe.epochs": 2, "probe.milestones": []}}
    path = write_suite({"knn": {}, "linear": linear})
    code, text, _ = run_suite(run_folder, "--random-init", path=path)
    assert code == 0
    names = sorted({name.split("/")[0] for name in records_below(out)})
    assert len(records_below(out)) == 4
    trained, random = names
    assert trained == f"{run_folder.name}-{load_backbone(run_folder).sha256[:8]}"
    assert random == "random-resnet18-standard-seed0"
    rows = [line.split() for line in text.splitlines()]
    assert [row[0] for row in rows[:3]] == ["weights", str(run_folder), random]
    headline = read_record(out / random / "records/linear.json").metrics["top1"]
    assert headline.interval is not None
    assert text.splitlines()[2].endswith(f"  {headline.value:.1f} {headline.interval.text}")
    assert (out / "suite.md").read_text().startswith("| weights | knn top1 (%) | linear top1 (%) |")
    assert len(list((out / "features").glob("*.safetensors"))) == 4
    assert main(["report", str(out), "--out", str(out / "report.html")]) == 0
    assert "random weights" in (out / "report.html").read_text()


def test_weights_stay_the_same_while_their_training_continues(
    run_suite: Any, out: Path, finished_run: Path, fake: FakeEvaluator, tmp_path: Path
) -> None:
    """All records of an unfinished run are of the checkpoint that was its last at the start."""
    loaded, run = load_backbone(finished_run), tmp_path / "run"
    tensors = {f"backbone.{name}": value for name, value in loaded.backbone.state_dict().items()}

    def save_step(step: int) -> Path:
        metadata = loaded.metadata.model_copy(update={"step": step})
        return save_checkpoint(run, tensors, metadata, {}, keep=None)

    first = load_backbone(save_step(1))
    fake.after_run = lambda: save_step(2)
    assert run_suite(run)[0] == 0
    assert [sha256 for sha256, _ in fake.runs] == [first.sha256] * 2
    records = [read_record(path) for path in sorted(out.glob("*/records/*.json"))]
    assert [record.model.checkpoint for record in records] == [str(first.path)] * 2


def test_robustness_of_several_models_is_one_table(
    run_folder: Path, write_suite: Callable[..., Path], run_suite: Any, out: Path
) -> None:
    """A trained network and random weights have a row each, here and in the report."""
    pytest.importorskip("imagecorruptions")
    settings = {"shifts.generate": True, "head.name": "logistic", "head.search.num_values": 2}
    path = write_suite({"robustness": {"settings": settings}}, data=DATA | {"num_test_images": 5})
    code, text, _ = run_suite(run_folder, "--random-init", path=path)
    assert code == 0
    assert text.splitlines()[0].split() == ["weights", "robustness", "top1_generated", "(%)"]
    places = sorted(out.glob("*/records/robustness.json"))
    assert len(places) == 2
    report = out / "report.md"
    assert main(["report", str(out), "--markdown", str(report)]) == 0
    table = report.read_text().partition("### Robustness on Digits")[2].split("\n\n")[2]
    heading, _, *rows = table.splitlines()
    column = heading.split(" | ").index("mean\\_corruption\\_error (%)")
    errors = [read_record(place).metrics["mean_corruption_error"].value for place in places]
    shown = [float(row.split(" | ")[column]) for row in rows]
    assert sorted(shown) == pytest.approx(sorted(errors), abs=0.01)


def test_what_is_recorded_is_skipped(
    run_folder: Path, run_suite: Any, fake: FakeEvaluator, out: Path
) -> None:
    """The same command evaluates nothing again and shows the same table; a budget may stop it."""
    assert run_suite(run_folder, "--budget-minutes", "1e-9")[0] == 142
    assert not fake.runs
    _, table, _ = run_suite(run_folder)
    assert [config.seed for _, config in fake.runs] == [0, 7]
    code, again, _ = run_suite(run_folder)
    assert code == 0
    assert again == table
    assert len(fake.runs) == 2


def test_changed_settings_are_evaluated_again(
    run_folder: Path, run_suite: Any, fake: FakeEvaluator, out: Path
) -> None:
    """Only the evaluation whose result may differ; where it runs and keeps files makes none."""
    other_budget = "evaluations.second.settings.memory_budget_mib=99"
    run_suite(run_folder)
    run_suite(run_folder, other_budget)
    assert [config.memory_budget_mib for _, config in fake.runs] == [None, None, 99]
    run_suite(run_folder, other_budget, "data.num_workers=1")
    run_suite(run_folder, other_budget, f"cache_dir={out}/kept")
    assert len(fake.runs) == 3


def test_runs_of_one_name_do_not_collide(
    run_folder: Path, other_run: Path, run_suite: Any, fake: FakeEvaluator, out: Path
) -> None:
    """Each has its own folder, also if they are evaluated one after the other."""
    run_suite(run_folder)
    run_suite(other_run)
    run_suite(run_folder, other_run)
    assert len(fake.runs) == 4
    assert len(records_below(out)) == 4
    assert len({sha256 for sha256, _ in fake.runs}) == 2


def test_a_failure_is_named_and_stops_no_other(
    run_folder: Path, run_suite: Any, fake: FakeEvaluator, unlucky_suite: Path, out: Path
) -> None:
    """Exit code 2, one line of error, a dash in the table; the next run tries it alone again."""
    code, text, errors = run_suite(run_folder, "--random-init", path=unlucky_suite)
    assert code == 2
    assert len(errors) == 1
    assert errors[0].startswith("error: 2 of 4 evaluations failed")
    reason = "the GPU's memory is too small (CUDA out of memory); lower batch_size"
    assert f"; bad of random-resnet18-standard-seed0: {reason}" in errors[0]
    rows = [line.split()[-2:] for line in text.splitlines()[1:3]]
    assert rows == [["–", "51.00"], ["–", "52.00"]]
    assert {name.split("/")[1] for name in records_below(out)} == {"good"}
    fake.failing_batch = 0
    assert run_suite(run_folder, "--random-init", path=unlucky_suite)[0] == 0
    assert len(fake.runs) == 4


def test_a_stopped_suite_goes_on(
    run_folder: Path, run_suite: Any, fake: FakeEvaluator, out: Path
) -> None:
    """Finished records stay, and the stopped evaluation finds its saved state."""
    run_suite(run_folder)
    next(out.glob("*/records/second.json")).unlink()
    fake.stops = True
    assert run_suite(run_folder)[0] == 130
    assert records_below(out) == [f"{next(out.glob('digits-*')).name}/first"]
    fake.stops = False
    assert run_suite(run_folder)[0] == 0
    assert fake.resumed == 1
    assert [config.seed for _, config in fake.runs] == [0, 7, 7]


def test_a_damaged_record_is_named(
    run_folder: Path, run_suite: Any, fake: Any, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Only the damaged record is made again."""
    run_suite(run_folder)
    path = next(out.glob("*/records/first.json"))
    path.write_text("{")
    with caplog.at_level(logging.WARNING):
        code, _, _ = run_suite(run_folder)
    assert code == 0
    assert f"record '{path}' is not JSON; evaluating again" in caplog.text
    assert read_record(path).metrics["top1"].value == 53
    assert len(fake.runs) == 3


def test_random_baselines(run_folder: Path, run_suite: Any, fake: FakeEvaluator) -> None:
    """The checkpoints' network, or the one that is named; its seed is the suite's."""
    run_suite(run_folder, "--random-init", "seed=3")
    sha256, config = fake.runs[2]
    assert sha256 is None
    assert config.backbone is not None
    assert (config.backbone.arch, config.backbone.stem) == ("resnet18", "standard")
    assert [config.seed for _, config in fake.runs] == [3, 7, 3, 7]
    run_suite("--random-init", "backbone.arch=resnet18", "backbone.stem=cifar")
    assert fake.runs[-1][1].backbone is not None
    assert fake.runs[-1][1].backbone.stem == "cifar"


def test_what_wins(tmp_path: Path, write_suite: Callable[..., Path], out: Path) -> None:
    """An evaluation's own settings over the suite's, those over its file, that over defaults."""
    (tmp_path / "knn.yaml").write_text(
        "data: {name: cifar10, root: nowhere, image_size: 8}\nseed: 5\nbatch_size: 5\n"
        "layers: [layer3]"
    )
    settings = {"batch_size": 6, "data.num_test_images": 6, "data": {"num_train_images": 6}}
    path = write_suite({"knn": {"config": "knn.yaml", "settings": settings}}, seed=1)
    (evaluation,) = load_evaluations(load_config(SuiteConfig, path), tmp_path, out)
    config = evaluation.config
    assert isinstance(config, KNNConfig)
    assert (config.seed, config.batch_size, config.layers) == (1, 6, ("layer3",))
    assert (config.data.name, config.data.root, config.data.image_size) == ("digits", None, 32)
    assert (config.data.num_test_images, config.data.num_train_images) == (6, 6)
    assert config.cache_dir == out
    assert config.settings == KNNConfig.model_fields["settings"].default


def test_a_base_file_is_extended(tmp_path: Path, suite: Path, out: Path) -> None:
    """Evaluations are added, and null drops one."""
    path = tmp_path / "more.yaml"
    path.write_text("base: suite.yaml\nevaluations: {knn: {}, first: null}")
    evaluations = load_evaluations(load_config(SuiteConfig, path), tmp_path, out)
    assert [evaluation.name for evaluation in evaluations] == ["second", "knn"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluations.mine={}"], "evaluations.mine: unknown evaluator 'mine'; set evaluations"),
        (["evaluations.knn={settings: {batchsize: 3}}"], "nearest valid key is 'batch_size'"),
        (["evaluations.knn={confg: x.yaml}"], "the nearest valid key is 'evaluations.NAME.config'"),
        (["evaluations.knn={config: x.yaml}"], "evaluations.knn: cannot read config"),
        (["evaluations.knn={settings: {backbone: {arch: resnet18, stem: cifar}}}"], "'backbone'"),
        (["evaluations={first: null, second: null}"], "no evaluations left"),
        (["evaluations={a/b: {evaluator: knn}}"], "'a/b' names files; use only letters"),
        (["colour=red"], "unknown key 'colour'"),
        (["--fast"], "unrecognised argument: --fast"),
        (
            ["nowhere"],
            "checkpoint 'nowhere' does not exist; expected a run folder",
        ),
        ([], "there is nothing to evaluate"),
        (["--random-init"], "--random-init with backbone.arch"),
    ],
)
def test_mistakes_show_before_any_evaluation(
    words: list[str], message: str, run_suite: Any, fake: FakeEvaluator, out: Path
) -> None:
    """One line of error that says what to do; nothing is run, nothing is left."""
    code, text, errors = run_suite(*words)
    assert (code, text, len(errors)) == (2, "", 1)
    assert message in errors[0]
    assert not fake.runs
    assert not out.exists()


def test_the_same_weights_twice(
    run_folder: Path, run_suite: Any, fake: FakeEvaluator, tmp_path: Path
) -> None:
    """A run and a copy of its file are named both."""
    file = tmp_path / "copy.safetensors"
    shutil.copy(run_folder / "backbone.safetensors", file)
    code, _, errors = run_suite(run_folder, file)
    assert code == 2
    assert f"'{run_folder}' and '{file}' have the same weights" in errors[0]
    _, _, errors = run_suite(run_folder, run_folder)
    assert f"'{run_folder}' is given twice; give each checkpoint once" in errors[0]
    assert not fake.runs


def test_where_nothing_can_be_written(
    run_folder: Path, run_suite: Any, fake: FakeEvaluator, out: Path
) -> None:
    """A file in the place of the folder, or above it."""
    out.touch()
    assert "is a file; name a folder" in run_suite(run_folder)[2][0]
    out.unlink()
    out.parent.joinpath("file").touch()
    code, _, errors = run_suite(run_folder, "--out", out.parent / "file/x")
    assert code == 2
    assert "is not a writable folder" in errors[0]
    assert not fake.runs


def test_no_suite(run_suite: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file is asked for, and named if it is not there."""
    assert "cannot read config" in run_suite("x", path=tmp_path / "none.yaml")[2][0]
    assert main(["suite", "x"]) == 2
    assert "--suite" in capsys.readouterr().err


def test_two_processes_share_a_suite(
    run_folder: Path,
    write_suite: Callable[..., Path],
    run_suite: Any,
    run_two_processes: Any,
    out: Path,
    tmp_path: Path,
) -> None:
    """They make the records that one process makes, and one of them writes and speaks."""
    small = {"num_view_images": 3, "num_queries": 2, "embedding": {"method": "pca"}}
    path = write_suite({"knn": {}, "diagnostics": {"settings": small}})
    words = ["suite", run_folder, "--suite", path, "--out", tmp_path / "two"]
    done = run_two_processes("-m", "rsa_eval", *words)
    assert done.returncode == 0, done.stderr
    code, text, _ = run_suite(run_folder, path=path)
    assert code == 0
    assert done.stdout.splitlines()[:2] == text.splitlines()[:2]
    assert len(done.stdout.splitlines()) == 3
    for name in records_below(out):
        target, evaluation = name.split("/")
        place = f"{target}/records/{evaluation}.json"
        together, alone = read_record(tmp_path / "two" / place), read_record(out / place)
        assert together.metrics == alone.metrics
        assert together.artifacts == alone.artifacts


def test_records_of_images_elsewhere_are_taken_with_a_warning(
    write_suite: Any, run_suite: Any, run_folder: Path, fake: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Images may be moved or be others; the user is told where a number's images were."""
    data = {"name": "imagefolder", "root": "/here", "image_size": 32}
    path = write_suite({"knn": {}}, data=data)
    for _ in range(2):
        assert run_suite(run_folder, path=path)[0] == 0
    assert "was made from the images in" not in caplog.text
    assert run_suite(run_folder, "data.root=/there", path=path)[0] == 0
    assert len(fake.runs) == 1
    assert "was made from the images in '/here', not in '/there'" in caplog.text
