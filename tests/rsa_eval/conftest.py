"""A small run folder, data, records and logs for the tests of rsa_eval; records are made up."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import narrow
import pytest
import torch

from rsa_eval.config import EvaluationConfig
from rsa_eval.evaluators import Evaluator, Workspace
from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.features.subject import Subject, load_subject
from rsa_eval.paper.rows import PaperRow, find_rows
from rsa_eval.records.record import SCHEMA_VERSION, Metric, Model, Record, write_record
from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.components.settings import BackboneConfig
from rsa_pretrain.config import PretrainConfig, load_run
from rsa_pretrain.plumbing.config.files import load_config, parse_tree, to_tree, write_config
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import file_sha256, save_tensors
from rsa_pretrain.weights.metadata import BackboneMetadata, library_versions

COUNTS = {"num_train_images": 60, "num_test_images": 30}
DATA = {"name": "digits", "image_size": 32, "num_workers": 0} | COUNTS
NETWORK = BackboneConfig(arch="resnet18", stem="standard", zero_init_residual=False)
METADATA = BackboneMetadata(
    format_version=1,
    arch="resnet18",
    stem="standard",
    method="rsa",
    image_size=32,
    channel_order="RGB",
    mean=(0.3, 0.3, 0.3),
    std=(0.35, 0.35, 0.35),
    data_set="digits",
    epochs=2.0,
    step=44,
    seed=0,
    config_hash="0" * 64,
    parent=None,
    library_versions=library_versions(),
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small tensors on a busy machine are many times faster without a thread pool."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", autouse=True)
def narrow_resnets() -> Iterator[None]:
    """Make ResNets narrow ones: evaluations are tested, not networks."""
    with narrow.narrow_resnets():
        yield


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as pretraining leaves it, with random weights and used BatchNorm statistics."""
    with narrow.narrow_resnets():
        return _write_run(tmp_path_factory.mktemp("runs") / "digits")


def _write_run(folder: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        backbone = build_backbone(NETWORK)
        backbone.train()(torch.randn(16, 3, 32, 32))
    save_tensors(folder / "backbone.safetensors", backbone.state_dict(), METADATA)
    tree = {
        "output_dir": str(folder),
        "data": DATA,
        "backbone": {"arch": "resnet18", "stem": "standard"},
        "method": {"name": "rsa", "hidden_dim": 8, "output_dim": 8, "beta_base": 0.3},
        "optimizer": {"base_lr": 0.1, "weight_decay": 0.0005},
        "training": {"epochs": 2, "global_batch_size": 32},
    }
    write_config(parse_tree(PretrainConfig, tree, "test"), folder / "config.yaml")
    return folder


@pytest.fixture
def run_folder(finished_run: Path) -> Path:
    """The same folder without records of earlier tests."""
    for record in (finished_run / "records").glob("*"):
        record.unlink()
    return finished_run


@pytest.fixture
def knn_config() -> KNNConfig:
    """Settings for a few digits, whose number batches do not divide."""
    tree = {"data": DATA, "batch_size": 16, "device": "cpu"}
    return parse_tree(KNNConfig, tree, "test")


@pytest.fixture
def subject(finished_run: Path, knn_config: KNNConfig) -> Subject:
    """The run's backbone, freshly loaded."""
    return load_subject(finished_run, knn_config)


@pytest.fixture
def wide_subject(knn_config: KNNConfig, tmp_path: Path) -> Subject:
    """A ResNet-18 of full width, where what is claimed takes its features."""
    with narrow.narrow_resnets(False):
        return load_subject(_write_run(tmp_path / "wide"), knn_config)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A place for a record."""
    return Workspace(tmp_path / "records" / "record.json")


@pytest.fixture(scope="session")
def rows() -> list[PaperRow]:
    """The toolkit's rows."""
    return find_rows()


@pytest.fixture
def make_result() -> Callable[..., Record]:
    """A function that fabricates a record."""
    return _make_result


def _make_result(**changes: Any) -> Record:
    random_init = changes.pop("random_init", False)
    values = changes.pop("values", {"top1": 91.25, "top5": 99.5})
    model = Model(
        checkpoint=None if random_init else "runs/x/backbone.safetensors",
        sha256=None if random_init else "ab" * 32,
        metadata=None if random_init else METADATA,
        backbone=NETWORK,
    )
    fields: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "kind": "linear",
        "protocol": "moco_v2",
        "deviations": [],
        "metrics": {name: Metric(value=value, unit="%") for name, value in values.items()},
        "headline": "top1" if "top1" in values else next(iter(values)),
        "num_samples": 30,
        "data_set": "cifar10",
        "model": model,
        "config": {"seed": 0},
        "seeds": [0],
        "details": {},
        "artifacts": {},
        "command": ["rsa-eval", "linear"],
        "git_commit": "c0ffee" * 6,
        "git_dirty": True,
        "library_versions": {"torch": "2.0"},
        "hardware": "a processor",
        "seconds": 1.5,
        "created": "2026-01-01T00:00:00+00:00",
    }
    return Record(**(fields | changes))


class FakeRuns:
    """Fake training and evaluation: records calls, fails and stops where told to."""

    def __init__(self) -> None:
        self.trained: list[str] = []
        """As ``NAME seed-S``."""
        self.evaluated: list[str] = []
        """As ``NAME seed-S RECORD``."""
        self.broken: dict[str, str] = {}
        """Why some of these fail."""
        self.stopping: set[str] = set()
        """Trainings that a signal stops."""

    def train(self, config: PretrainConfig, *, resume: bool, **_: object) -> int:
        """Leave a finished run, unless told otherwise."""
        assert resume
        folder = config.output_dir
        name = f"{folder.parent.name} {folder.name}"
        self.trained.append(name)
        write_config(config, folder / "config.yaml")
        if name in self.broken:
            raise UserError(self.broken[name])
        if name in self.stopping:
            return 143
        (folder / "backbone.safetensors").write_bytes(name.encode())
        return 0

    def make_record(
        self,
        checkpoint: Path,
        evaluator: Evaluator,
        config: EvaluationConfig,
        path: Path,
        *,
        departures: Sequence[str],
    ) -> Record:
        """Score a run by its settings: 100 beta + seed squared, ten more for the linear probe."""
        name = f"{checkpoint.parent.name} {checkpoint.name} {path.stem}"
        if name in self.broken:
            raise UserError(self.broken[name])
        self.evaluated.append(name)
        run = load_run(checkpoint)
        tree = to_tree(run)
        model = Model(
            checkpoint=str(checkpoint),
            sha256=file_sha256(checkpoint / "backbone.safetensors"),
            metadata=METADATA.model_copy(update={"seed": run.seed}),
            backbone=NETWORK,
            pretraining=tree,
        )
        score = 100 * tree["method"]["beta_base"] + run.seed**2 + 10 * (evaluator.name == "linear")
        values = {"top5": 99.0, "top1": score}
        fields = {"kind": evaluator.name, "model": model, "config": to_tree(config)}
        record = _make_result(values=values, deviations=[*departures], **fields)
        write_record(record, path)
        return record


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> FakeRuns:
    """Fake training runs and evaluations that take no time."""
    fake = FakeRuns()
    monkeypatch.setattr("rsa_pretrain.training.pretraining.pretrain", fake.train)
    monkeypatch.setattr("rsa_eval.campaigns.campaign.make_record_of", fake.make_record)
    return fake


@pytest.fixture
def make_trial(make_result: Callable[..., Record]) -> Callable[..., Record]:
    """A function that makes up the record of a recipe's weights, evaluated as in the paper."""

    def make(recipe: str, *words: str, seed: int = 0, **changes: Any) -> Record:
        config = load_config(PretrainConfig, Path(recipe), [f"seed={seed}", *words])
        known = changes.pop("pretraining", True)
        trained = {
            "arch": config.backbone.arch,
            "stem": config.backbone.stem,
            "method": config.method.name,
            "image_size": config.data.image_size,
            "data_set": config.data.name,
            "epochs": changes.pop("epochs", float(config.training.epochs)),
            "seed": seed,
        }
        model = Model(
            checkpoint=f"{config.output_dir}/backbone.safetensors",
            sha256=f"{seed:064x}",
            metadata=METADATA.model_copy(update=trained),
            backbone=BackboneConfig(arch=config.backbone.arch, stem=config.backbone.stem),
            pretraining=to_tree(config) if known else None,
        )
        protocol = "mean_shift" if config.data.name.startswith("imagenet") else "moco_v2"
        fields = {"model": model, "data_set": config.data.name, "protocol": protocol}
        return make_result(**(fields | changes))

    return make


@pytest.fixture
def extending() -> Callable[..., list[str]]:
    """A function that gives the words of a run which extends one of so many epochs and steps."""

    def words(epochs: int, step: int = 1, parent: str = "a", **before: Any) -> list[str]:
        extends = {
            "backbone_sha256": parent * 64,
            "step": step,
            "before": {"training.epochs": epochs, **before},
        }
        return [f"extends={json.dumps(extends)}"]

    return words


@pytest.fixture
def write_log() -> Callable[..., None]:
    """A function that leaves the log of a run in a folder, with the recipe's settings if named."""

    def write(
        folder: Path,
        recipe: str | None = None,
        *words: str,
        lines: list[dict[str, Any]] | None = None,
        machines: tuple[str, ...] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if lines is None:
            shown = {"loss_weak": 1.0, "beta": 0.3, "lr": 0.1}
            lines = [{"step": step, "loss": 2 - step / 100} | shown for step in range(1, 21)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "metrics.jsonl").write_text(text)
        if recipe is None:
            (folder / "config.yaml").write_text("seed: 4711\n")
        else:
            config = load_config(PretrainConfig, Path(recipe), words)
            write_config(config, folder / "config.yaml")
        if machines:
            trees = [{"hardware": name, "num_processes": 1} for name in machines]
            (folder / "machines.json").write_text(json.dumps(trees))

    return write
