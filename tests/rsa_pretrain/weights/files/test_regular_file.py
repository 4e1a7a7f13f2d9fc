"""A file that changes while it is read is refused; other errors stay."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.files.regular_file import unchanged


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Some weights."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    return path


def _replace(file: Path) -> None:
    other = file.with_suffix(".new")
    other.write_bytes(b"weights")
    other.replace(file)


def _delete_and_read(file: Path) -> None:
    file.unlink()
    file.read_bytes()


@pytest.mark.parametrize("act", [_replace, _delete_and_read])
def test_a_file_replaced_or_deleted_meanwhile(file: Path, act: Callable[[Path], None]) -> None:
    """As by a training that keeps few checkpoints."""
    with pytest.raises(UserError, match="was replaced or deleted while it was"), unchanged(file):
        act(file)


def test_a_file_that_may_not_be_read(file: Path) -> None:
    """For one without permission, safetensors says that there is none."""
    with pytest.raises(FileNotFoundError, match="another"), unchanged(file):
        raise FileNotFoundError("another")
