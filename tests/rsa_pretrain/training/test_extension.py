"""``rsa-pretrain run --extend``: training on from the end of a finished run."""

import hashlib
import logging
import shutil
import signal

import pytest
import torch
import yaml

from rsa_pretrain.__main__ import main
from rsa_pretrain.components.schedules import cosine
from rsa_pretrain.plumbing.metrics_log import read_metrics
from rsa_pretrain.training.trainer import Trainer
from rsa_pretrain.weights.checkpoint import list_checkpoints, load_backbone, load_checkpoint

pytestmark = pytest.mark.usefixtures("narrow_resnets")

NUM_STEPS = 4
"""An epoch's, and the parent's."""


@pytest.fixture
def run_file(tiny_tree, tmp_path):
    """YAML of the tiny run of one epoch."""
    tiny_tree["training"]["epochs"] = 1
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tiny_tree))
    return path


@pytest.fixture(scope="module")
def finished():
    """Folders of finished runs, by their settings: each is trained once, and copied."""
    return {}


@pytest.fixture
def parent(run_file, tmp_path, finished, tmp_path_factory):
    """Folder of that run, finished."""
    folder = tmp_path / "run"
    settings = run_file.read_text().replace(str(folder), "")
    if settings not in finished:
        assert main(["run", str(run_file)]) == 0
        finished[settings] = tmp_path_factory.mktemp("finished") / "run"
        folder.rename(finished[settings])
    shutil.copytree(finished[settings], folder, symlinks=True)
    return folder


@pytest.fixture
def extend(run_file, parent, tmp_path):
    """A function that extends the parent to two epochs in a folder, and gives the exit code."""

    def run(name, *words, to=2):
        out = f"output_dir={tmp_path / name}"
        command = ["run", str(run_file), "--extend", str(parent), out, f"training.epochs={to}"]
        return main([*command, *words])

    return run


@pytest.fixture
def resume(run_file, tmp_path):
    """A function that resumes an extended run without naming its parent."""

    def run(name, *words, to=2):
        out = f"output_dir={tmp_path / name}"
        return main(["run", str(run_file), "--resume", out, f"training.epochs={to}", *words])

    return run


@pytest.fixture
def stopped(monkeypatch):
    """A function that lets trainers take some steps before a signal comes."""

    def stop_after(num_steps):
        take_step = Trainer._train_step

        def step(trainer, batches):
            take_step(trainer, batches)
            if trainer.state.step == num_steps:
                signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr(Trainer, "_train_step", step)
        return lambda: monkeypatch.setattr(Trainer, "_train_step", take_step)

    return stop_after


NAMES = ("straight", "stopped")
"""Of the folders that are compared."""


def sha256(path):
    """Hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def contents(folder):
    """Every file of a folder with its hash and time."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: (sha256(path), path.stat().st_mtime_ns) for path in files}


def equal(one, other):
    """Return whether two nested values with tensors are bitwise equal."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def test_it_starts_from_the_parents_state(extend, parent, tmp_path):
    """The first checkpoint is the parent's last, bitwise: networks, optimizer, random state."""
    before = contents(parent)
    assert extend("long") == 0
    assert contents(parent) == before
    first = list_checkpoints(tmp_path / "long")[0]
    assert first.name == f"step-{NUM_STEPS:08d}"
    model, _, trainer = load_checkpoint(first)
    parent_model, _, parent_trainer = load_checkpoint(parent / "checkpoints" / "last")
    assert equal(model, parent_model)
    for key in ("step", "optimizer", "scaler", "random", "data_fingerprint"):
        assert equal(trainer[key], parent_trainer[key]), key


@pytest.mark.parametrize("name", ["moco_v2", "byol", "simsiam_rsa"])
def test_queue_and_target_come_along(name, small_methods, tiny_tree, run_file, tmp_path):
    """Every tensor of a method's state is the parent's."""
    tiny_tree["method"] = {"name": name, **small_methods[name]}
    run_file.write_text(yaml.safe_dump(tiny_tree))
    assert main(["run", str(run_file)]) == 0
    words = [f"output_dir={tmp_path / 'long'}", "training.epochs=2"]
    assert main(["run", str(run_file), "--extend", str(tmp_path / "run"), *words]) == 0
    first = load_checkpoint(list_checkpoints(tmp_path / "long")[0])[0]
    assert equal(first, load_checkpoint(tmp_path / "run" / "checkpoints" / "last")[0])


def test_the_schedule_is_that_of_all_epochs(extend, tmp_path):
    """Rate, beta and momentum at step 4 of 8 are those of half of the new run, and so on."""
    assert extend("long") == 0
    lines = read_metrics(tmp_path / "long" / "metrics.jsonl")
    assert [line["step"] for line in lines] == [5, 6, 7, 8]
    assert [line["epoch"] for line in lines] == [1.25, 1.5, 1.75, 2.0]
    for line in lines:
        progress = (line["step"] - 1) / 8
        assert line["lr"] == pytest.approx(cosine(0.5 * 8 / 256, 0, progress))
        assert line["beta"] == pytest.approx(cosine(0.3, 0, progress))
        assert line["ema_momentum"] == pytest.approx(cosine(0.99, 1, progress))


def test_the_changed_schedule_is_logged_in_one_line(extend, parent, caplog):
    """It names what the rate, beta and the momentum were at the last step and become."""
    with caplog.at_level(logging.INFO):
        assert extend("long", "optimizer.base_lr=1.0") == 0
    (line,) = [text for text in caplog.messages if text.startswith("extending")]
    rates = f"{cosine(0.5 * 8 / 256, 0, 3 / 4):.6g} -> {cosine(8 / 256, 0, 4 / 8):.6g}"
    assert f"'{parent}' from step 4 of 1 epochs to 2 epochs: learning rate {rates}" in line
    assert f"beta {cosine(0.3, 0, 3 / 4):.6g} -> {cosine(0.3, 0, 1 / 2):.6g}" in line
    assert f"ema_momentum {cosine(0.99, 1, 3 / 4):.6g} -> {cosine(0.99, 1, 1 / 2):.6g}" in line


def test_a_stopped_extension_resumes_bitwise_without_its_parent(
    extend, resume, stopped, parent, tmp_path
):
    """Stopped, and the parent deleted, it ends where the uninterrupted one does."""
    assert extend("straight") == 0
    undo = stopped(6)
    assert extend("stopped") == 128 + signal.SIGTERM
    undo()
    shutil.rmtree(parent)
    assert resume("stopped") == 0
    one, other = (load_checkpoint(tmp_path / name / "checkpoints" / "last") for name in NAMES)
    assert equal(one[0], other[0])
    for key in ("step", "optimizer", "scaler", "random"):
        assert equal(one[2][key], other[2][key]), key
    clock = {"images_per_second", "data_wait"}
    logs = [read_metrics(tmp_path / name / "metrics.jsonl") for name in NAMES]
    one, other = ([{k: line[k] for k in line.keys() - clock} for line in log] for log in logs)
    assert one == other


def test_an_extension_stopped_before_its_first_step_resumes(
    extend, resume, parent, tmp_path, monkeypatch
):
    """The parent's state is saved before anything else can fail."""
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "run", lambda trainer: 1)
        assert extend("long") == 1
    shutil.rmtree(parent)
    assert resume("long") == 0
    assert load_backbone(tmp_path / "long").metadata.step == 8


def test_the_parent_is_recorded_and_survives_resuming(extend, resume, stopped, parent, tmp_path):
    """Every file of the run names the parent's backbone by its hash, and its epochs are all."""
    digest = sha256(parent / "backbone.safetensors")
    undo = stopped(6)
    assert extend("long") == 128 + signal.SIGTERM
    undo()
    assert resume("long") == 0
    metadata = load_backbone(tmp_path / "long").metadata
    assert (metadata.parent, metadata.epochs, metadata.step) == (digest, 2, 8)
    found = [load_checkpoint(path)[1].parent for path in list_checkpoints(tmp_path / "long")]
    assert found == [digest] * 3
    extends = yaml.safe_load((tmp_path / "long" / "config.yaml").read_text())["extends"]
    assert (extends["backbone_sha256"], extends["step"]) == (digest, 4)
    assert extends["before"] == {
        "method.beta_base": 0.3,
        "method.beta_mode": "decay",
        "method.ema_momentum": 0.99,
        "optimizer.base_lr": 0.5,
        "optimizer.warmup_epochs": 0.0,
        "training.epochs": 1,
    }
    assert load_backbone(parent).metadata.parent is None


def test_an_extension_can_be_extended(extend, run_file, parent, tmp_path):
    """The record of the second names the schedules and hashes of both runs before it."""
    assert extend("long") == 0
    words = [f"output_dir={tmp_path / 'longer'}", "training.epochs=3"]
    assert main(["run", str(run_file), "--extend", str(tmp_path / "long"), *words]) == 0
    metadata = load_backbone(tmp_path / "longer").metadata
    assert metadata.parent == sha256(tmp_path / "long" / "backbone.safetensors")
    before = yaml.safe_load((tmp_path / "longer" / "config.yaml").read_text())["extends"]["before"]
    assert before["training.epochs"] == 2
    assert before["extends.before.training.epochs"] == 1
    assert before["extends.backbone_sha256"] == sha256(parent / "backbone.safetensors")


def test_a_finished_extension_is_finished(extend, resume, capfd):
    """Resumed at its end, with the parent named or not, nothing is trained."""
    assert extend("long") == 0
    capfd.readouterr()
    assert resume("long") == 0
    assert extend("long", "--resume") == 0
    assert capfd.readouterr().out.count("already finished") == 2
    assert resume("long", to=3) == 2
    assert "training.epochs (was 2, is 3)" in capfd.readouterr().err


def test_with_resume_a_stopped_extension_goes_on(extend, stopped, tmp_path):
    """One command line starts the run and resumes it, as a batch system needs."""
    undo = stopped(6)
    assert extend("long", "--resume") == 128 + signal.SIGTERM
    undo()
    assert extend("long", "--resume") == 0
    assert load_backbone(tmp_path / "long").metadata.step == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["training.epochs=1"], "training.epochs 1 is the total number of epochs"),
        (["seed=3"], "cannot extend with settings that change the result: seed (was 0, is 3)"),
        (["backbone.arch=resnet34"], "backbone.arch (was resnet18, is resnet34)"),
        (["optimizer.weight_decay=0.1"], "optimizer.weight_decay (was 0.0005, is 0.1)"),
        (["training.global_batch_size=4"], "training.global_batch_size (was 8, is 4)"),
        (["method.output_dim=4"], "method.output_dim (was 8, is 4)"),
        (["data.subset_seed=1"], "data.subset_seed (was 0, is 1)"),
        (["views.implementation=batched"], "views.implementation (was pillow, is batched)"),
    ],
)
def test_what_is_no_extension_is_refused(extend, tmp_path, capfd, words, message):
    """The number of epochs must grow, and nothing but the schedule may be another."""
    assert extend("long", *words) == 2
    assert message in capfd.readouterr().err
    assert not (tmp_path / "long").exists()


@pytest.mark.parametrize(
    "word",
    [
        "optimizer.base_lr=0.1",
        "optimizer.warmup_epochs=1",
        "method.ema_momentum=0.9",
        "method.beta_base=0.1",
        "method.beta_mode=fixed",
        "data.num_workers=1",
    ],
)
def test_the_schedule_may_be_another(extend, tmp_path, word):
    """So may what resuming lets differ."""
    assert extend("long", word) == 0
    assert load_backbone(tmp_path / "long").metadata.epochs == 2


def test_other_images_are_refused(extend, parent, tmp_path, capfd):
    """The same settings on other images do not extend this run."""
    last = list_checkpoints(parent)[-1] / "trainer.pt"
    state = torch.load(last, weights_only=True)
    torch.save(state | {"data_fingerprint": "0" * 64}, last)
    assert extend("long") == 2
    assert "cannot extend: the training images are not those" in capfd.readouterr().err
    assert not (tmp_path / "long").exists()


def test_only_a_finished_run_with_its_checkpoint_is_extended(extend, parent, tmp_path, capfd):
    """Each folder that lacks something is refused with what it lacks."""
    shutil.copytree(parent, tmp_path / "whole", symlinks=True)
    shutil.rmtree(parent / "checkpoints")
    assert extend("long") == 2
    assert "restore the run's last checkpoint" in capfd.readouterr().err
    (parent / "backbone.safetensors").unlink()
    assert extend("long") == 2
    assert "contains no backbone.safetensors; finish an unfinished run" in capfd.readouterr().err
    shutil.rmtree(parent)
    assert extend("long") == 2
    assert f"'{parent}' is not the folder of a finished run" in capfd.readouterr().err
    assert not (tmp_path / "long").exists()


def test_a_backbone_of_another_step_is_refused(extend, parent, tmp_path, capfd):
    """The recorded parent is the state that the run continues from."""
    assert extend("long") == 0
    shutil.copy(tmp_path / "long" / "backbone.safetensors", parent)
    assert extend("other") == 2
    assert "is not the backbone of the last checkpoint" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["run/inside", "link"])
def test_the_parents_folder_is_no_place_for_it(extend, parent, tmp_path, capfd, name):
    """Not below it and not under another name."""
    (tmp_path / "link").symlink_to(parent / "below")
    before = contents(parent)
    assert extend(name) == 2
    assert "which is left unchanged; set another" in capfd.readouterr().err
    assert contents(parent) == before


def test_the_folder_of_a_run_is_taken(extend, stopped, capfd):
    """An extension stopped half-way is resumed, not begun again."""
    undo = stopped(6)
    assert extend("long") == 128 + signal.SIGTERM
    undo()
    assert extend("long") == 2
    assert "pass --resume to resume it" in capfd.readouterr().err
    assert extend("long", "--resume") == 0
    capfd.readouterr()
    assert extend("long") == 2
    assert "contains a finished run; choose another output_dir" in capfd.readouterr().err


def test_the_written_settings_ask_for_their_parent(extend, parent, tmp_path, capfd):
    """The config.yaml of an extension neither starts from scratch nor accepts another parent."""
    assert extend("long") == 0
    config = str(tmp_path / "long" / "config.yaml")
    again = f"output_dir={tmp_path / 'again'}"
    assert main(["run", config, again]) == 2
    assert "name its folder with --extend" in capfd.readouterr().err
    assert main(["run", config, again, "--extend", str(parent)]) == 0
    one, other = (load_backbone(tmp_path / name).backbone for name in ("long", "again"))
    assert equal(dict(one.state_dict()), dict(other.state_dict()))
    words = [f"output_dir={tmp_path / 'third'}", "training.epochs=3"]
    assert main(["run", config, *words, "--extend", str(tmp_path / "long")]) == 2
    assert "the run extends one whose backbone.safetensors has SHA-256" in capfd.readouterr().err
