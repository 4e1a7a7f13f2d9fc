"""Train the linear layer that classifies each place of a map."""

import math
from collections.abc import Iterator
from contextlib import closing
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsa_eval.evaluators.linear.batches import ReadOrder
from rsa_eval.evaluators.segmentation.maps import MapSteps
from rsa_eval.evaluators.segmentation.settings import IGNORED, DenseProbeConfig
from rsa_eval.evaluators.shared.resumable import StateFile, run_to_end
from rsa_pretrain.plumbing.device import without_tf32
from rsa_pretrain.plumbing.distributed import sum_over_ranks
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.seeded import seeded

_INIT_STD = 0.01
# Logits of every pixel, which training keeps with their gradients.
_LOGIT_BYTES_AT_ONCE = 2**28


class DenseProbe:
    """A 1 × 1 convolution in training by SGD, which can be stopped and resumed at any step.

    Weights start from N(0, 0.01²) and biases at 0.

    Args:
        width: Width D of the maps.
        num_classes: C.
        config: Rates and schedule.
        seed: Seeds the weights.
        file: Where the state is kept.
        device: Where it is trained.

    Attributes:
        head: The layer.
        step: Steps taken.
        losses: Mean loss of the counted pixels in each finished epoch.
    """

    def __init__(
        self,
        width: int,
        num_classes: int,
        config: DenseProbeConfig,
        seed: int,
        file: StateFile,
        device: torch.device,
    ) -> None:
        with seeded(seed):
            self.head = nn.Conv2d(width, num_classes, 1)
            nn.init.normal_(self.head.weight, 0.0, _INIT_STD)
            nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        self.head = self.head.to(device)
        self.config = config
        self.step = 0
        self.losses: list[float] = []
        # Sums over the epoch's counted pixels so far: of their losses, and of one for each.
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)
        self._file = file
        self._optimizer = torch.optim.SGD(
            self.head.parameters(),
            config.lr,
            momentum=config.sgd_momentum,
            weight_decay=config.weight_decay,
        )

    def save(self) -> None:
        """Write the state, from the main process.

        Raises:
            UserError: If it is not finite: resuming it could not end well.
        """
        self._check_finite(f"before step {self.step}")
        self._file.write(
            {
                "step": self.step,
                "losses": self.losses,
                "sums": self._sums.cpu(),
                "head": self.head.state_dict(),
                "optimizer": self._optimizer.state_dict(),
            }
        )

    def restore(self) -> None:
        """Load the file if there is one of this training run; otherwise change nothing.

        Raises:
            UserError: If the processes do not see the same file.
        """
        content = self._file.read()
        if content is None:
            return
        self.head.load_state_dict(content["head"])
        self._optimizer.load_state_dict(content["optimizer"])
        self._sums.copy_(content["sums"])
        self.step, self.losses = content["step"], content["losses"]

    def train_step(self, maps: Tensor, masks: Tensor, epoch: int) -> None:
        """Take a step on the mean cross-entropy of all processes' counted pixels.

        A step without any counted pixel has a gradient of zero.

        Args:
            maps: This process's, (n, D, h, w).
            masks: Classes, uint8 (n, S, S); pixels of value 255 do not count.
            epoch: Decides the rate.
        """
        self._optimizer.zero_grad(set_to_none=False)
        sums = torch.zeros(2, dtype=torch.float64, device=maps.device)
        for some_maps, some_masks in _parts(maps, masks, self.head.out_channels):
            with without_tf32("fp32"):
                loss = pixel_loss(self.head(some_maps), some_masks)
                loss.backward()  # type: ignore[no-untyped-call]
            sums += torch.stack([loss.detach().double(), (some_masks != IGNORED).sum().double()])
        sum_over_ranks(sums)
        for parameter in self.head.parameters():
            if parameter.grad is None:  # this process had no image
                parameter.grad = torch.zeros_like(parameter)
            sum_over_ranks(parameter.grad)
            parameter.grad /= sums[1].clamp(min=1).float()
        passed = sum(epoch >= milestone for milestone in self.config.milestones)
        for group in self._optimizer.param_groups:
            group["lr"] = self.config.lr * self.config.gamma**passed
        self._optimizer.step()
        self._sums += sums
        self.step += 1

    def end_epoch(self, epoch: int) -> None:
        """Note the epoch's mean loss.

        Raises:
            UserError: If it is not finite, or no pixel of the epoch counts.
        """
        total, count = self._sums.tolist()
        self._sums.zero_()
        if count == 0:
            raise UserError("no pixel of the training masks has a class; check masks.layout")
        self._check_finite(f"in epoch {epoch}", total)
        self.losses.append(total / count)

    def _check_finite(self, when: str, total: float | None = None) -> None:
        loss = float(self._sums[0]) if total is None else total
        finite = [bool(one.isfinite().all()) for one in self.head.parameters()]
        if not (math.isfinite(loss) and all(finite)):
            raise UserError(
                f"the probe diverged {when}: its loss sums to {loss:g}; lower probe.lr (now "
                f"{self.config.lr:g})"
            )


def pixel_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Sum the cross-entropy of the pixels that count, of logits enlarged to the masks.

    Args:
        logits: (n, C, h, w); interpolated bilinearly.
        masks: Classes, uint8 (n, S, S); pixels of value 255 have no loss and no gradient.

    Returns:
        Scalar, in nats.
    """
    enlarged = enlarge(logits, masks.shape[1], masks.shape[2])
    return F.cross_entropy(enlarged, masks.long(), ignore_index=IGNORED, reduction="sum")


def enlarge(logits: Tensor, height: int, width: int) -> Tensor:
    """Interpolate logits, (n, C, h, w), bilinearly to the size of a mask."""
    return F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)


def train_dense(
    probe: DenseProbe, steps: MapSteps, order: ReadOrder, save_every_minutes: float
) -> None:
    """Train to the end of the last epoch, from the probe's step.

    Args:
        probe: Trained in place.
        steps: Maps and masks from the probe's step on.
        order: Number of steps.
        save_every_minutes: 0 saves after each step.

    Raises:
        UserError: If the loss stops being finite.
        Stopped: If a signal requested it, in all processes alike.
    """
    with closing(steps):
        take_step = partial(_take_step, probe, steps, order)
        run_to_end(probe, take_step, order.num_steps, "dense linear probe", save_every_minutes)


def _take_step(probe: DenseProbe, steps: MapSteps, order: ReadOrder) -> None:
    epoch, batch = divmod(probe.step, order.steps_per_epoch)
    maps, masks = next(steps)
    probe.train_step(maps, masks, epoch)
    if batch == order.steps_per_epoch - 1:
        probe.end_epoch(epoch)


def _parts(maps: Tensor, masks: Tensor, num_classes: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Split a batch so that the enlarged logits of a part fit into memory."""
    bytes_per_image = 4 * num_classes * masks.shape[1] * masks.shape[2]
    size = max(1, _LOGIT_BYTES_AT_ONCE // bytes_per_image)
    for start in range(0, len(maps), size):
        yield maps[start : start + size], masks[start : start + size]
