"""Train BYOL as lightly's example does: with its modules, loss, transforms and loader."""

import copy

import torch
from lightly.data import LightlyDataset
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.transforms.byol_transform import (
    BYOLTransform,
    BYOLView1Transform,
    BYOLView2Transform,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models import get_model
from torchvision.models.resnet import ResNet

from benchmarks.training import HIDDEN_DIM, OUTPUT_DIM, TrainingSettings, timed_epoch
from rsa_pretrain.data.image_set import ImageSet

_LR, _EMA_MOMENTUM = 0.06, 0.996


class LightlyBYOL(nn.Module):
    """The example's networks, with heads of this project's widths.

    Args:
        settings: Choice of backbone.
    """

    def __init__(self, settings: TrainingSettings) -> None:
        super().__init__()
        self.backbone, width = _backbone(settings)
        self.projection_head = BYOLProjectionHead(width, HIDDEN_DIM, OUTPUT_DIM)
        self.prediction_head = BYOLPredictionHead(OUTPUT_DIM, HIDDEN_DIM, OUTPUT_DIM)
        self.backbone_momentum = copy.deepcopy(self.backbone)
        self.projection_head_momentum = copy.deepcopy(self.projection_head)
        deactivate_requires_grad(self.backbone_momentum)
        deactivate_requires_grad(self.projection_head_momentum)

    def forward(self, view: Tensor) -> Tensor:
        """Return online predictions, (N, D)."""
        features = self.backbone(view).flatten(start_dim=1)
        predictions: Tensor = self.prediction_head(self.projection_head(features))
        return predictions

    def forward_momentum(self, view: Tensor) -> Tensor:
        """Return target projections, (N, D), without gradient."""
        features = self.backbone_momentum(view).flatten(start_dim=1)
        projections: Tensor = self.projection_head_momentum(features)
        return projections.detach()

    def update_momentum(self) -> None:
        """Move the target towards the online network."""
        update_momentum(self.backbone, self.backbone_momentum, m=_EMA_MOMENTUM)
        update_momentum(self.projection_head, self.projection_head_momentum, m=_EMA_MOMENTUM)


class _Labelled(Dataset[tuple[list[Tensor], int]]):
    """Labelled images with a transform, which lightly sets as in torchvision's CIFAR-10."""

    transform: BYOLTransform

    def __init__(self, images: ImageSet) -> None:
        self.images = images
        self.labels = images.require_labels()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[list[Tensor], int]:
        return self.transform(self.images[index]), self.labels[index]


def lightly_loader(
    settings: TrainingSettings, num_workers: int, images: ImageSet
) -> DataLoader[object]:
    """Build the example's loader: BYOL's two views of CIFAR images, without blur."""
    transform = BYOLTransform(
        view_1_transform=BYOLView1Transform(input_size=32, gaussian_blur=0.0),
        view_2_transform=BYOLView2Transform(input_size=32, gaussian_blur=0.0),
    )
    return DataLoader(
        LightlyDataset.from_torch_dataset(_Labelled(images), transform=transform),
        batch_size=settings.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=num_workers,
    )


def lightly_epoch(settings: TrainingSettings, num_workers: int, images: ImageSet) -> float:
    """Train two epochs and return the seconds of the second."""
    torch.manual_seed(settings.seed)
    device = torch.device(settings.device)
    model = LightlyBYOL(settings).to(device)
    loader = lightly_loader(settings, num_workers, images)
    criterion = NegativeCosineSimilarity()
    optimizer = torch.optim.SGD(model.parameters(), lr=_LR)

    def epoch() -> None:
        for (x0, x1), _, _ in loader:
            model.update_momentum()
            x0, x1 = x0.to(device), x1.to(device)
            p0, z0 = model(x0), model.forward_momentum(x0)
            p1, z1 = model(x1), model.forward_momentum(x1)
            loss = 0.5 * (criterion(p0, z1) + criterion(p1, z0))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return timed_epoch(epoch, settings.device)


def _backbone(settings: TrainingSettings) -> tuple[nn.Module, int]:
    """Return torchvision's ResNet without its classifier, as in the example, and its width."""
    network: ResNet = get_model(settings.arch)
    if settings.stem == "cifar":
        network.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
        network.maxpool = nn.Identity()
    return nn.Sequential(*list(network.children())[:-1]), network.fc.in_features
