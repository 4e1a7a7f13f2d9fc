"""Features of any map-style torch data set."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.models import ResNet
from torchvision.transforms import v2

from rsa_eval.features.forward import feature_width, forward_batches, placed
from rsa_eval.features.frozen import frozen
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.features.networks.foreign import ForeignNetwork
from rsa_eval.features.networks.preprocessing import Preprocessing
from rsa_eval.features.placement import on_cpu
from rsa_eval.features.share import ALONE
from rsa_eval.features.transforms import SquareTransform
from rsa_pretrain.components.settings import Stage
from rsa_pretrain.data.image_set import UNLABELLED
from rsa_pretrain.data.loader import iterate, make_loader
from rsa_pretrain.data.settings import Interpolation
from rsa_pretrain.plumbing.device import check_precision, resolve_device
from rsa_pretrain.plumbing.device_names import DeviceName, Precision
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.metadata import BackboneMetadata


def transform_for(
    metadata: BackboneMetadata | Preprocessing,
    image_size: int | None = None,
    *,
    resize: int | None = None,
    interpolation: Interpolation = "bilinear",
) -> v2.Transform:
    """Build the evaluation transform of a backbone, normalised as its weights expect.

    Args:
        metadata: Metadata of the loaded backbone, or ``load_network(...).preprocessing``.
        image_size: Side S of the input, in pixels; None takes the side it was trained on.
        resize: Resize the short side to this and crop the centre, as ImageNet is evaluated (256 for
            224); None resizes the whole image to the square.
        interpolation: Interpolation of the resizing.

    Returns:
        Transform from an RGB image to float32 (3, S, S).

    Raises:
        UserError: If the metadata does not state the side, as in another project's file, and
            ``image_size`` is not given.
    """
    size = image_size or metadata.image_size
    if size is None:
        raise UserError("the weights do not record their image size; give image_size, such as 224")
    return SquareTransform(size, resize, interpolation, metadata.mean, metadata.std).steps


def extract(
    backbone: nn.Module,
    dataset: Dataset[Any],
    *,
    transform: Callable[[Any], Tensor] | None = None,
    layers: Sequence[Stage] = ("layer4",),
    batch_size: int = 256,
    num_workers: int = 0,
    device: DeviceName = "auto",
    precision: Precision = "fp32",
) -> LabelledFeatures:
    """Return the features of every image of a torch data set, in its order.

        loaded = load_backbone(Path("runs/digits-rsa-3ep"))
        images = CIFAR10("data", train=False, transform=transform_for(loaded.metadata))
        test = extract(loaded.backbone, images)  # test.features: (10000, 512)

    The backbone runs in eval mode without gradients; its weights and modes stay as they are.

    Args:
        backbone: A ResNet without classifier, such as ``load_backbone(...).backbone``, or
            ``load_network(...).backbone``; it is moved to ``device``.
        dataset: Map-style; its items are images, or (image, label) with a class index from 0 on
            or ``UNLABELLED`` as label.
        transform: From an image to a normalised float tensor (3, H, W), such as ``transform_for``
            builds; None if the data set yields such tensors itself. All have the same size.
        layers: Stages of a ResNet whose outputs, averaged over the image, are the features;
            several are concatenated.
        batch_size: Images per forward pass.
        num_workers: Loader processes; 0 loads in this process.
        device: Where the backbone runs; auto takes a GPU where there is one.
        precision: Autocast type of the backbone.

    Returns:
        Features, float32 (N, D), and labels, int64 (N,), all ``UNLABELLED`` if the data set yields
        images alone.

    Raises:
        UserError: If the data set is empty or has no length, an item is of another form or size,
            only some items have labels, a feature is not finite, the backbone is of another kind,
            or the device cannot compute at the precision.
    """
    settings = _Settings(_checked_layers(layers), precision)
    if not isinstance(backbone, ResNet | ForeignNetwork):
        raise UserError(
            "features come from a ResNet such as load_backbone(...).backbone, or from "
            f"load_network(...).backbone, found {type(backbone).__name__}"
        )
    if isinstance(backbone, ForeignNetwork) and settings.layers != ("layer4",):
        raise UserError(
            f"layers are a ResNet's stages, and {backbone.name} is none of this toolkit's; leave "
            "layers out, or give load_network tokens"
        )
    place = resolve_device(device)
    check_precision(precision, place)
    items = _Items(dataset, transform)
    batches = ALONE.batches(len(items), batch_size)
    keys = [list(batch) for batch in batches]
    loader = make_loader(items, keys, num_workers, place, collate=_collate)
    labels: list[Tensor | None] = []

    def images_alone() -> Iterator[Tensor]:
        for images, its_labels in iterate(loader):
            labels.append(its_labels)
            _check_same(items.name, labels)
            yield images

    features = torch.empty(len(items), feature_width(backbone, settings))
    with frozen(placed(backbone, place)):
        found = forward_batches(
            backbone, images_alone(), len(items), settings, "features", items.name
        )
        for batch, rows in zip(batches, on_cpu(found), strict=True):
            features[batch.start : batch.stop] = rows
    known = [one for one in labels if one is not None]
    return LabelledFeatures.of(features, torch.cat(known) if known else None)


@dataclass(frozen=True)
class _Settings:
    layers: tuple[Stage, ...]
    precision: Precision
    feature_dtype: Literal["fp32"] = "fp32"


class _Items(Dataset[tuple[Tensor, int | None]]):
    """The images of a data set as checked tensors, with their labels.

    Args:
        dataset: Source.
        transform: Converts an image to a tensor; None passes images through.
    """

    def __init__(self, dataset: Any, transform: Callable[[Any], Tensor] | None) -> None:
        self.dataset = dataset
        self.transform = transform
        self.name = type(dataset).__name__
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise UserError(f"expected a map-style data set, with a length; found {self.name}")
        if len(dataset) == 0:
            raise UserError(f"the data set ({self.name}) has no images")

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int | None]:
        item = self.dataset[index]
        image, label = item if isinstance(item, tuple | list) and len(item) == 2 else (item, None)
        return self._image(image, index), None if label is None else self._label(label, index)

    def _image(self, image: Any, index: int) -> Tensor:
        if self.transform is not None:
            image = self.transform(image)
        if not isinstance(image, Tensor):
            raise UserError(
                f"item {index} of {self.name} is of type {type(image).__name__}, not a tensor; "
                "pass transform=transform_for(loaded.metadata)"
            )
        if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
            raise UserError(
                f"item {index} of {self.name} is a tensor {tuple(image.shape)} of type "
                f"{image.dtype}; expected a normalised RGB image, float (3, H, W)"
            )
        return image.float()

    def _label(self, label: Any, index: int) -> int:
        value = torch.as_tensor(label)
        is_whole = not (value.is_floating_point() or value.is_complex())
        if value.numel() != 1 or not is_whole or int(value) < UNLABELLED:
            raise UserError(
                f"the label of item {index} of {self.name} is {label!r}; expected a class index"
            )
        return int(value)


def _collate(items: list[tuple[Tensor, int | None]]) -> tuple[Tensor, Tensor | None]:
    """Stack a batch, whose images must have one size and whose labels must be all or none."""
    shapes = {tuple(image.shape) for image, _ in items}
    if len(shapes) > 1:
        first, second, *_ = sorted(shapes)
        raise UserError(
            f"images of one batch differ in size, {first} and {second}; resize them with "
            "transform=transform_for(loaded.metadata)"
        )
    labels = [label for _, label in items if label is not None]
    if labels and len(labels) < len(items):
        raise UserError(_MIXED)
    images = torch.stack([image for image, _ in items])
    return images, torch.tensor(labels) if labels else None


_MIXED = (
    f"only some items have a label; give every image one, {UNLABELLED} where it has no class, or "
    "none to any"
)


def _check_same(name: str, labels: Sequence[Tensor | None]) -> None:
    if (labels[0] is None) != (labels[-1] is None):
        raise UserError(f"{name}: {_MIXED}")


def _checked_layers(layers: Sequence[Stage]) -> tuple[Stage, ...]:
    stages = get_args(Stage)
    if not layers or len(set(layers)) < len(layers) or not set(layers) <= set(stages):
        raise UserError(f"layers must be some of {', '.join(stages)}, each once; found {layers}")
    return tuple(layers)
