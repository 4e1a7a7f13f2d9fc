"""A disk that cannot be written to is the system's error, with the file's name."""

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rsa_pretrain.plumbing.atomic_files import atomic_file
from rsa_pretrain.plumbing.failures import describe_error
from rsa_pretrain.weights.files.saving import save_safetensors, save_torch

CONTENT = {"weight": torch.arange(100_000.0)}


def test_files_are_those_of_torch_and_safetensors(tmp_path: Path) -> None:
    """Their own readers find the tensors."""
    save_torch(CONTENT, tmp_path / "a.pt")
    save_safetensors(CONTENT, tmp_path / "a.safetensors", {"format": "pt"})
    for read in (torch.load(tmp_path / "a.pt"), load_file(tmp_path / "a.safetensors")):
        assert torch.equal(read["weight"], CONTENT["weight"])


def test_a_full_disk() -> None:
    """Its reason stays; torch would raise a RuntimeError about a position in the zip."""
    with pytest.raises(OSError, match="No space left on device"):
        save_torch(CONTENT, Path("/dev/full"))


def test_a_file_that_safetensors_cannot_make(tmp_path: Path) -> None:
    """Its own error hides the system's."""
    with pytest.raises(FileNotFoundError, match=r"absent/a\.safetensors"):
        save_safetensors(CONTENT, tmp_path / "absent" / "a.safetensors", {})


def test_errors_that_are_not_the_disks_stay(tmp_path: Path) -> None:
    """Such as that of an object that cannot be pickled."""
    with pytest.raises(AttributeError, match="pickle"):
        save_torch({"f": lambda: None}, tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "No space left on device; free some space and rerun"),
        (errno.EDQUOT, "Disk quota exceeded; free some of the quota"),
        (errno.EROFS, "Read-only file system; write elsewhere"),
        (errno.EIO, "Input/output error; the disk"),
    ],
)
def test_a_failed_write_names_the_final_file_and_a_remedy(
    tmp_path: Path, number: int, advice: str
) -> None:
    """Also where the system's error names the temporary file, or none."""
    path = tmp_path / "a.json"

    def fail(*names: str) -> None:
        with atomic_file(path) as temporary:
            raise OSError(number, os.strerror(number), *(name or str(temporary) for name in names))

    assert describe_error(OSError(number, "failed", b"a.json")).startswith("'a.json': failed; ")
    for names in ((), ("",)):
        with pytest.raises(OSError, match=advice[:5]) as caught:
            fail(*names)
        told = describe_error(caught.value)
        assert told.startswith(f"'{path}': ")
        assert advice in told
    assert list(tmp_path.iterdir()) == []
