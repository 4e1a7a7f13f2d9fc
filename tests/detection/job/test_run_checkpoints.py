from pathlib import Path

import pytest
import torch

from detection.job.run_checkpoints import detector_file, list_checkpoint_files, newest_checkpoint
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import MODEL_FILE


def _write(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        torch.save({"model": {}, "iteration": 1}, folder / name)


@pytest.mark.parametrize("note", [None, "", "model_0000009.pth", "model_0000199.pth"])
def test_newest_file_is_found_whatever_the_note_says(tmp_path: Path, note: str | None) -> None:
    """A kill may leave the note of the last checkpoint absent, empty, old or of a lost file."""
    folder = tmp_path / "checkpoints"
    _write(folder, "model_0000009.pth", "model_0000099.pth", "model_best.pth")
    if note is not None:
        (folder / "last_checkpoint").write_text(note)
    assert newest_checkpoint(tmp_path) == folder / "model_0000099.pth"
    assert detector_file(tmp_path) == folder / "model_0000099.pth"
    _write(folder, "model_final.pth")
    assert newest_checkpoint(tmp_path) == folder / "model_final.pth"


@pytest.mark.parametrize("size", [0, 100, -1])
def test_file_that_was_cut_short_is_passed_over(
    tmp_path: Path, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A file whose writer was killed is named, and never resumed from."""
    folder = tmp_path / "checkpoints"
    _write(folder, "model_0000009.pth", "model_0000099.pth")
    newest = folder / "model_0000099.pth"
    newest.write_bytes(newest.read_bytes()[:size])
    assert newest_checkpoint(tmp_path) == folder / "model_0000009.pth"
    assert list_checkpoint_files(folder) == [folder / "model_0000009.pth"]
    assert "checkpoints': model_0000099.pth" in caplog.text
    (folder / "model_0000009.pth").unlink()
    with pytest.raises(UserError, match=r"no complete checkpoint: truncated model_0000099\.pth"):
        newest_checkpoint(tmp_path)


def test_folders_of_the_other_engine(tmp_path: Path) -> None:
    """The torchvision engine's folders are found by their numbers, without their link.

    The best weights are not among them, but can be loaded as a detector.
    """
    best = tmp_path / "checkpoints" / "best"
    best.mkdir(parents=True)
    (best / MODEL_FILE).touch()
    assert newest_checkpoint(tmp_path) is None
    for number in (5, 10):
        step = tmp_path / "checkpoints" / f"step-{number:08d}"
        step.mkdir(parents=True)
        (step / MODEL_FILE).touch()
    assert newest_checkpoint(tmp_path) == step
    assert detector_file(tmp_path) == step / MODEL_FILE
    assert detector_file(step) == step / MODEL_FILE
    assert detector_file(step / MODEL_FILE) == step / MODEL_FILE
    assert detector_file(best) == best / MODEL_FILE


def test_detectron2_s_own_output_is_a_run_too(tmp_path: Path) -> None:
    """Its programs write checkpoints beside their config."""
    _write(tmp_path, "model_0004999.pth", "model_final.pth")
    assert detector_file(tmp_path) == tmp_path / "model_final.pth"


def test_absent_detector_is_explained(tmp_path: Path) -> None:
    """A path that does not exist, and a folder without a detector."""
    assert newest_checkpoint(tmp_path) is None
    with pytest.raises(UserError, match=r"detector '.*none' does not exist; expected a run folder"):
        detector_file(tmp_path / "none")
    with pytest.raises(UserError, match=r"has no detector: neither model\.safetensors nor"):
        detector_file(tmp_path)
