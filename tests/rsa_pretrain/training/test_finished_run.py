"""``rsa-pretrain run --resume`` on a finished run."""

import itertools
import logging
import shutil

import pytest
import torch
import yaml
from PIL import Image

from rsa_pretrain.__main__ import main
from rsa_pretrain.weights.checkpoint import list_checkpoints, load_checkpoint

pytestmark = pytest.mark.usefixtures("narrow_resnets")


@pytest.fixture
def photos(tmp_path):
    """A folder of eight labelled photos in two classes, and as many for testing."""
    for split, number in itertools.product(("train", "val"), range(8)):
        path = tmp_path / "photos" / split / f"class-{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (20 * number, 100, 50)).save(path)
    return tmp_path / "photos"


@pytest.fixture
def run_file(tiny_tree, photos, tmp_path):
    """YAML of a run of one step on the photos, which has finished."""
    tiny_tree["data"] = {"name": "imagefolder", "root": str(photos), "image_size": 16}
    tiny_tree["data"]["num_workers"] = 0
    tiny_tree["training"]["epochs"] = 1
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tiny_tree))
    assert main(["run", str(path)]) == 0
    return path


@pytest.fixture
def ask(run_file, capfd, caplog):
    """A function that gives exit code, output and log of ``run --resume``."""
    caplog.set_level(logging.INFO)

    def run(*words):
        capfd.readouterr()
        caplog.clear()
        code = main(["run", str(run_file), "--resume", *words])
        captured = capfd.readouterr()
        return code, captured.out + captured.err + caplog.text

    return run


@pytest.mark.parametrize(
    ("word", "difference"),
    [
        ("training.epochs=2", "training.epochs (was 1, is 2)"),
        ("seed=3", "seed (was 0, is 3)"),
        ("backbone.arch=resnet34", "backbone.arch (was resnet18, is resnet34)"),
        ("method.beta_base=0.1", "method.beta_base (was 0.3, is 0.1)"),
        ("data.image_size=24", "data.image_size (was 16, is 24)"),
        ("data.num_train_images=8", "data.num_train_images (was None, is 8)"),
        ("data.name=imagenet", "data.name (was imagefolder, is imagenet)"),
        ("optimizer.base_lr=0.1", "optimizer.base_lr (was 0.5, is 0.1)"),
    ],
)
@pytest.mark.parametrize("with_checkpoints", [True, False])
def test_other_settings_are_refused_with_both_values(
    tmp_path, ask, word, difference, with_checkpoints
):
    """A finished run refuses what an unfinished one refuses, its checkpoints deleted or not."""
    if not with_checkpoints:
        shutil.rmtree(tmp_path / "run" / "checkpoints")
    code, output = ask(word)
    assert code == 2
    assert f"cannot resume with settings that change the result: {difference}" in output
    assert "--extend" in output
    assert "already finished" not in output


@pytest.mark.parametrize("with_checkpoints", [True, False])
def test_settings_that_leave_the_result_may_differ(tmp_path, ask, with_checkpoints):
    """The same run with more loader processes and another log interval is finished."""
    if not with_checkpoints:
        shutil.rmtree(tmp_path / "run" / "checkpoints")
    code, output = ask("data.num_workers=1", "monitor.log_every_steps=5")
    assert (code, "already finished" in output) == (0, True)
    assert ("images are not compared" in output) is not with_checkpoints


def test_the_same_photos_elsewhere_are_the_same(photos, tmp_path, ask):
    """A data set that was moved does not make another run."""
    photos.rename(tmp_path / "moved")
    code, output = ask(f"data.root={tmp_path / 'moved'}")
    assert (code, "already finished" in output) == (0, True)


def test_other_photos_are_refused(photos, ask):
    """The same settings on other files are another run."""
    Image.new("RGB", (16, 16)).save(photos / "train" / "class-0" / "new.png")
    code, output = ask()
    assert code == 2
    assert "the training images are not those the run started with" in output


def test_held_out_photos_are_part_of_the_comparison(run_file, tmp_path, ask):
    """A monitor that holds images out trains on fewer, before and after."""
    words = ["monitor.knn_every_epochs=1", "monitor.num_held_out_images=2", "monitor.knn_k=1"]
    words += ["training.global_batch_size=4", f"output_dir={tmp_path / 'watched'}"]
    assert main(["run", str(run_file), *words]) == 0
    assert ask(*words)[0] == 0
    code, output = ask(*words, "monitor.num_held_out_images=4")
    assert (code, "monitor.num_held_out_images (was 2, is 4)" in output) == (2, True)


def test_photos_that_are_gone_are_named(photos, ask):
    """Without the images, the run cannot be matched to them."""
    shutil.rmtree(photos)
    code, output = ask()
    assert code == 2
    assert "contains a finished run, but its training images cannot be compared" in output
    assert str(photos) in output


def test_a_setting_newer_than_the_run_counts_as_its_default(tmp_path, ask):
    """A folder of an older version, without checkpoints, is known by its config.yaml."""
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    path = tmp_path / "run" / "config.yaml"
    tree = yaml.safe_load(path.read_text())
    del tree["views"]["implementation"], tree["extends"]
    path.write_text(yaml.safe_dump(tree))
    assert ask()[0] == 0
    code, output = ask("views.implementation=batched")
    assert (code, "views.implementation (was pillow, is batched)" in output) == (2, True)


def test_a_run_older_than_the_turning_of_files_had_them_as_stored(tmp_path, ask):
    """Known by its config.yaml alone, too, it is not taken for a run that turned its images."""
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    path = tmp_path / "run" / "config.yaml"
    tree = yaml.safe_load(path.read_text())
    del tree["data"]["exif_orientation"], tree["data"]["max_megapixels"]
    path.write_text(yaml.safe_dump(tree))
    code, output = ask()
    assert (code, "data.exif_orientation (was False, is True)" in output) == (2, True)
    assert ask("data.exif_orientation=false")[0] == 0


def test_a_backbone_alone_is_not_taken_for_the_run(tmp_path, ask):
    """Without checkpoints and config.yaml nothing says what was trained."""
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    (tmp_path / "run" / "config.yaml").unlink()
    code, output = ask()
    assert (code, "neither checkpoints nor config.yaml" in output) == (2, True)


def test_a_damaged_trainer_state_is_an_error(tmp_path, ask):
    """A run that cannot be compared is not called finished."""
    (checkpoint,) = list_checkpoints(tmp_path / "run")
    (checkpoint / "trainer.pt").write_bytes(b"cut")
    code, output = ask()
    assert (code, "trainer.pt' is damaged" in output) == (2, True)
    with pytest.raises(ValueError, match="damaged"):
        load_checkpoint(checkpoint)


def test_a_trainer_state_beyond_memory_is_not_called_damaged(tmp_path, ask, monkeypatch):
    """Its checkpoint is sound: nothing advises to delete it."""
    (checkpoint,) = list_checkpoints(tmp_path / "run")

    def fail(*words, **settings):
        raise RuntimeError("can't allocate memory: you tried to allocate 99999999 bytes")

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(RuntimeError, match="allocate"):
        load_checkpoint(checkpoint)


def test_a_sweep_holds_finished_runs_against_images_elsewhere(photos, run_file, tmp_path, capfd):
    """The same images in another folder are the runs' own, changed ones are not."""
    words = ["sweep", str(run_file), "--out", str(tmp_path / "sweep")]
    assert main(words) == 0
    moved = shutil.copytree(photos, tmp_path / "moved")
    words.append(f"data.root={moved}")
    assert main(words) == 0
    capfd.readouterr()
    (moved / "train" / "class-0" / "0.png").rename(moved / "train" / "class-0" / "x.png")
    assert main(words) == 2
    assert "the training images are not those the run started with" in capfd.readouterr().err


def test_what_a_broken_disk_kept_is_deleted(ask, tmp_path):
    """An old checkpoint of which a file could not be deleted goes with the next ``--resume``."""
    (run,) = (path.parent for path in tmp_path.rglob("backbone.safetensors"))
    half = run / "checkpoints" / ".partial-step-00000000"
    half.mkdir()
    (half / "trainer.pt").touch()
    assert ask()[0] == 0
    assert not half.exists()
