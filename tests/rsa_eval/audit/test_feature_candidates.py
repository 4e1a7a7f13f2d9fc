import shutil
from pathlib import Path

import pytest

from rsa_eval.__main__ import main
from rsa_eval.audit.entries import NamedRecord, name_records
from rsa_eval.audit.feature_candidates import Features
from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.records.record import read_record
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.plumbing.errors import UserError


@pytest.fixture
def evaluated(run_folder: Path) -> list[NamedRecord]:
    """The record of a run."""
    assert main(["knn", str(run_folder)]) == 0
    path = run_folder / "records" / "knn-weighted_vote-digits.json"
    return name_records([(path, read_record(path))])


def test_neighbours_by_the_evaluated_checkpoint(
    evaluated: list[NamedRecord], knn_config: KNNConfig
) -> None:
    """Among the same images, the nearest is the image itself."""
    images = open_images(knn_config.data, "test")
    pairs = Features(evaluated).neighbours(images, images)
    assert pairs.shape == (5 * len(images), 2)
    assert pairs[::5].tolist() == [[row, row] for row in range(len(images))]


def test_the_checkpoint_beside_the_record(evaluated: list[NamedRecord], tmp_path: Path) -> None:
    """A run folder that was moved has its own; another file of that name is refused."""
    (entry,) = evaluated
    moved = tmp_path / "moved"
    shutil.copytree(entry.path.parent.parent, moved)
    model = entry.record.model.model_copy(update={"checkpoint": "gone/backbone.safetensors"})
    record = entry.record.model_copy(update={"model": model})
    elsewhere = NamedRecord("x", moved / "records" / entry.path.name, record)
    assert Features([elsewhere]).name == "x"
    with (moved / "backbone.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match="is not the evaluated file"):
        Features([elsewhere])
    (moved / "backbone.safetensors").unlink()
    with pytest.raises(UserError, match="is not here"):
        Features([elsewhere])
    assert Features([elsewhere, entry]).name == entry.name


def test_random_weights_have_no_checkpoint() -> None:
    """The search then says that it used no features."""
    with pytest.raises(UserError, match="no record is of a checkpoint"):
        Features([])
