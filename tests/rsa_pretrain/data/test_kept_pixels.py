import numpy as np
import pytest
import torch

from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.kept_pixels import kept_pixels
from rsa_pretrain.plumbing import memory
from rsa_pretrain.plumbing.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def images(monkeypatch):
    """Ten images of 12 bytes, on a machine with 60 bytes to spare."""
    monkeypatch.setattr(memory, "available_memory", lambda: memory.FreeMemory(60, "test"))
    pixels = np.arange(120, dtype=np.uint8).reshape(10, 2, 2, 3)
    return ImageSet.from_array("tiny", pixels, [0] * 10, ["one"])


def test_a_whole_array_takes_no_memory(images):
    """It is there already, and not copied."""
    kept = kept_pixels(images, CPU, "buy some")
    assert kept.data_ptr() == images.sources.pixels.ctypes.data


def test_a_copy_must_fit(images):
    """Half of the images do, one more does not."""
    kept = kept_pixels(images.select(np.arange(5, 10)), CPU, "buy some")
    assert kept.tolist() == images.sources.pixels[5:].tolist()
    with pytest.raises(UserError, match=r"the pixels of 6 tiny images take .*; buy some$"):
        kept_pixels(images.select(np.arange(4, 10)), CPU, "buy some")


def test_memory_that_is_refused_is_explained(images, monkeypatch):
    """Where an estimate did not help."""

    def fail(array):
        raise MemoryError("Unable to allocate 9 GiB")

    monkeypatch.setattr(torch, "from_numpy", fail)
    with pytest.raises(UserError, match=r"is too small \(Unable to allocate 9 GiB\); buy some$"):
        kept_pixels(images, CPU, "buy some")
