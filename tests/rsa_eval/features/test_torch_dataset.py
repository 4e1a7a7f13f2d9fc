"""Features of torch data sets."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.features.extract import extract_features
from rsa_eval.features.frozen import frozen
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.features.subject import Subject
from rsa_eval.features.torch_dataset import extract, transform_for
from rsa_eval.features.transforms import evaluation_transform
from rsa_pretrain.components.backbone import feature_dim
from rsa_pretrain.data.image_set import UNLABELLED, ImageSet
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import LoadedBackbone, load_backbone


class Listed(Dataset[Any]):
    """Given items."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class Endless(IterableDataset[Tensor]):
    """No length, and no item by number."""

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            yield _image()


@pytest.fixture(scope="module")
def loaded(finished_run: Path) -> LoadedBackbone:
    """The run's backbone."""
    return load_backbone(finished_run)


@pytest.fixture
def images(knn_config: KNNConfig) -> ImageSet:
    """Thirty digits."""
    return open_images(knn_config.data, "test")


def _image(side: int = 32) -> Tensor:
    return torch.zeros(3, side, side)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_equal_to_the_features_of_an_evaluation(
    subject: Subject,
    loaded: LoadedBackbone,
    images: ImageSet,
    knn_config: KNNConfig,
    num_workers: int,
) -> None:
    """Bit for bit, with and without labels, images transformed by the data set or on the way."""
    config = knn_config.model_copy(update={"layers": ("layer3", "layer4")})
    plain = evaluation_transform(config.data, subject.mean, subject.std)
    with frozen(subject.backbone):
        expected = extract_features(subject.backbone, images, plain, config, "test")
    transform = transform_for(loaded.metadata)
    labels = images.require_labels()
    loaded.backbone.train()
    found = extract(
        loaded.backbone,
        Listed([(image, label) for image, label in zip(images, labels, strict=True)]),
        transform=transform,
        layers=config.layers,
        batch_size=config.batch_size,
        num_workers=num_workers,
        device="cpu",
    )
    assert loaded.backbone.training
    loaded.backbone.eval()
    assert torch.equal(found.features, expected.features)
    assert torch.equal(found.labels, expected.labels)
    ready = Listed([transform(image) for image in images])
    alone = extract(loaded.backbone, ready, layers=config.layers, batch_size=16, device="cpu")
    assert torch.equal(alone.features, expected.features)
    assert alone.labels.tolist() == [UNLABELLED] * len(images)


def test_tensors_with_labels_of_torch(loaded: LoadedBackbone) -> None:
    """A ``TensorDataset`` is a data set like any other; an image without class keeps its mark."""
    data = TensorDataset(torch.randn(3, 3, 32, 32), torch.tensor([2, UNLABELLED, 0]))
    found = extract(loaded.backbone, data, batch_size=2, device="cpu")
    assert found.features.shape == (3, feature_dim(loaded.backbone, "layer4"))
    assert found.labels.tolist() == [2, UNLABELLED, 0]


@pytest.mark.parametrize(
    ("items", "error"),
    [
        ([], r"the data set \(Listed\) has no images"),
        ([Image.new("RGB", (32, 32))], r"not a tensor; pass transform=transform_for"),
        ([torch.zeros(1, 32, 32)], r"a tensor \(1, 32, 32\) of type torch\.float32; expected"),
        ([torch.zeros(3, 32, 32, dtype=torch.uint8)], r"of type torch\.uint8; expected"),
        ([_image(), _image(40)], r"differ in size, \(3, 32, 32\) and \(3, 40, 40\)"),
        ([(_image(), 1), _image()], "only some items have a label"),
        ([(_image(), 1), (_image(), 1), _image()], "Listed: only some items have a label"),
        ([(_image(), 0.5)], r"the label of item 0 of Listed is 0\.5; expected a class index"),
        ([(_image(), -2)], "expected a class index"),
        ([(_image(), torch.tensor([0, 1]))], "expected a class index"),
        ([_image().fill_(torch.nan), _image()], "1 of 2 Listed images have features that are not"),
    ],
)
def test_bad_items(loaded: LoadedBackbone, items: list[Any], error: str) -> None:
    """Items that cannot be an image with a class are named."""
    with pytest.raises(UserError, match=error):
        extract(loaded.backbone, Listed(items), batch_size=2, device="cpu")


def test_bad_arguments(loaded: LoadedBackbone) -> None:
    """A data set without length, another network, unknown layers, a precision of GPUs."""
    one: Dataset[Any] = Listed([_image()])
    with pytest.raises(UserError, match="expected a map-style data set"):
        extract(loaded.backbone, Endless())
    with pytest.raises(UserError, match=r"come from a ResNet .*, found Linear"):
        extract(nn.Linear(2, 2), one)
    with pytest.raises(UserError, match="layers must be some of layer1, layer2"):
        extract(loaded.backbone, one, layers=("layer4", "layer4"))
    with pytest.raises(UserError, match="fp16"):
        extract(loaded.backbone, one, device="cpu", precision="fp16")


def test_the_side_of_another_project_is_asked_for(loaded: LoadedBackbone) -> None:
    """Imported weights do not record it."""
    metadata = loaded.metadata.model_copy(update={"image_size": None})
    with pytest.raises(
        UserError, match="do not record their image size; give image_size, such as 224"
    ):
        transform_for(metadata)
    wide = Image.new("RGB", (64, 48))
    assert transform_for(metadata, 224, resize=256)(wide).shape == (3, 224, 224)


@pytest.mark.parametrize(
    ("features", "labels", "error"),
    [
        ([1.0], [0], r"expected features \(N, D\), found shape \(1,\)"),
        (torch.zeros(0, 4), [], r"found shape \(0, 4\)"),
        (
            [[1.0], [float("inf")]],
            [0, 1],
            "1 of 2 images have features that are not finite; extract them at precision fp32",
        ),
        ([[1.0], [2.0]], [0], r"a label for each of 2 images, found shape \(1,\)"),
        ([[1.0]], [0.0], r"found labels of type torch\.float32"),
        ([[1.0]], [-2], "class indices start at 0, found -2"),
    ],
)
def test_arrays_are_checked(features: Any, labels: Any, error: str) -> None:
    """Features from elsewhere are refused unless they are whole."""
    with pytest.raises(UserError, match=error):
        LabelledFeatures.of(features, labels)
    found = LabelledFeatures.of([[1, 2], [3, 4]])
    assert (found.features.dtype, found.labels.tolist()) == (torch.float32, [UNLABELLED] * 2)
