import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from host_reads import HostReads
from PIL import Image

from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.features import pixels
from rsa_eval.features.extract import extract_features
from rsa_eval.features.pixels import Load, in_processes, in_threads, pixel_batches
from rsa_eval.features.subject import Subject, load_subject
from rsa_eval.features.transforms import SquareTransform, evaluation_transform
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.plumbing.config.files import parse_tree, to_tree
from rsa_pretrain.plumbing.errors import UserError

CPU = torch.device("cpu")
BATCHES = (range(4), range(4, 8), range(8, 11))


def _transform(size: int = 32, resize: int | None = None) -> SquareTransform:
    return SquareTransform(size, resize, "bilinear", (0.5,) * 3, (0.25,) * 3)


def _readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "PoolExecutor" in thread.name]


@pytest.fixture
def array() -> np.ndarray:
    """Noise: fifteen images."""
    return np.random.default_rng(0).integers(0, 256, (15, 32, 32, 3), np.uint8)


@pytest.fixture
def stored(array: np.ndarray) -> ImageSet:
    """Eleven of the images, reordered, held in memory."""
    images = ImageSet.from_array("noise", array, [0] * len(array), ["noise"])
    return images.select(np.array([3, 14, 0, 7, 1, 2, 9, 13, 12, 4, 5]))


@pytest.fixture
def photos(array: np.ndarray, tmp_path: Path) -> ImageSet:
    """The images as files of other sizes."""
    (tmp_path / "train" / "noise").mkdir(parents=True)
    for number, pixels_ in enumerate(array):
        image = Image.fromarray(pixels_).resize((40 + number, 50))
        image.save(tmp_path / "train" / "noise" / f"{number:02}.png")
    tree = {"name": "imagefolder", "root": str(tmp_path), "image_size": 32}
    return open_images(parse_tree(KNNConfig, {"data": tree}, "test").data, "train")


def _read(images: ImageSet, transform: SquareTransform, workers: int, load: Load) -> torch.Tensor:
    return torch.cat(list(pixel_batches(images, transform, BATCHES, workers, CPU, load)))


def test_stored_pixels_are_what_pillow_would_read(
    stored: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Level for level and in order, without a loader; the normalised images are equal too."""
    transform = _transform()
    found = _read(stored, transform, 2, None)  # type: ignore[arg-type]  # not asked
    monkeypatch.setattr(pixels, "_are_squares", lambda *_: False)
    assert torch.equal(found, _read(stored, transform, 0, in_processes))
    expected = torch.stack([transform(stored[index]) for index in range(11)])
    assert torch.equal(transform.normalised(found), expected)


@pytest.mark.parametrize("size", [(40, None), (28, 32)])
def test_stored_pixels_of_another_size_are_resized(
    stored: ImageSet, size: tuple[int, int | None]
) -> None:
    """By Pillow, as any image."""
    transform = _transform(*size)
    expected = torch.stack([transform(stored[index]) for index in range(11)])
    for load in (in_processes, in_threads):
        found = transform.normalised(_read(stored, transform, 1, load))
        assert torch.equal(found, expected)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_threads_read_what_processes_do(
    photos: ImageSet, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same images in the same order; no thread is left."""
    transform = _transform()
    expected = _read(photos, transform, 0, in_processes)
    if workers:
        monkeypatch.setattr(pixels, "make_loader", None)
    assert torch.equal(_read(photos, transform, workers, in_threads), expected)
    assert not _readers()


def test_a_thread_that_fails_says_why(photos: ImageSet) -> None:
    """A damaged image in the second batch is named; the first batch arrives, no thread is left."""
    Path(photos.where(5)).write_bytes(b"no image")
    found = pixel_batches(photos, _transform(), BATCHES, 2, CPU, in_threads)
    assert len(next(found)) == 4
    with pytest.raises(UserError, match=r"05\.png"):
        next(found)
    assert not _readers()


def test_reading_that_is_broken_off_ends_its_threads(photos: ImageSet) -> None:
    """Without reading the rest."""
    found = pixel_batches(photos, _transform(), BATCHES, 2, CPU, in_threads)
    next(found)
    found.close()  # type: ignore[attr-defined]
    assert not _readers()


@pytest.mark.parametrize("batch_size", [1, 7, 30])
def test_extraction_reads_one_number_from_the_device(
    subject: Subject, knn_config: KNNConfig, batch_size: int
) -> None:
    """The number of features that are not finite, at the end, however many batches there are."""
    config = knn_config.model_copy(update={"batch_size": batch_size})
    images = open_images(config.data, "test")
    transform = evaluation_transform(config.data, subject.mean, subject.std)
    with HostReads() as reads:
        extract_features(subject.backbone, images, transform, config, "test")
    assert reads.count == 1


@pytest.mark.gpu
def test_on_a_gpu_stored_pixels_give_the_same_features(
    knn_config: KNNConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As loaded and as stored, kept there or sent to the CPU, bit for bit."""
    tree = to_tree(knn_config) | {"device": "cuda", "batch_size": None}
    tree["backbone"] = {"arch": "resnet18", "stem": "cifar"}
    config = parse_tree(KNNConfig, tree, "test")
    subject = load_subject(None, config)
    conv = subject.backbone.get_submodule("layer1.0.conv1").weight
    assert conv.is_contiguous(memory_format=torch.channels_last)  # type: ignore[operator]
    images = open_images(config.data, "test")
    transform = evaluation_transform(config.data, subject.mean, subject.std)

    def extract() -> torch.Tensor:
        return extract_features(subject.backbone, images, transform, config, "test").features

    kept = extract()
    assert kept.is_cuda
    monkeypatch.setattr("rsa_eval.features.placement.spare_bytes", lambda device: 0)
    sent = extract()
    assert sent.device == CPU
    monkeypatch.setattr(pixels, "_are_squares", lambda *_: False)
    assert torch.equal(kept.cpu(), sent)
    assert torch.equal(extract(), sent)
