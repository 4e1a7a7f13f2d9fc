"""Settings of label curves."""

import math
from typing import Annotated, Any

from pydantic import Field

from rsa_eval.campaigns.settings import SharedSettings
from rsa_pretrain.plumbing.config.files import Section

LABELS = (1, 2, 5, 10, 20, 50, 100, None)
"""Labels per class by default; None takes all."""


class FromScratchConfig(Section):
    """Supervised training from random weights, on the drawn labels alone.

    The recipe of He et al. 2016 for small data sets: SGD with momentum 0.9, the rate divided by ten
    after half and after three quarters of the epochs, random crops and flips.
    """

    epochs: Annotated[int, Field(ge=1)] = 100
    """Passes over the labelled images; more where these are fewer steps than min_steps."""
    min_steps: Annotated[int, Field(ge=1)] = 300
    """Fewest optimizer steps, so that a handful of images is trained to the end."""
    batch_size: Annotated[int, Field(ge=2)] = 128
    """Largest batch; fewer labelled images are one batch."""
    base_lr: Annotated[float, Field(gt=0)] = 0.1
    """Learning rate of the whole network for a batch of 256; lr = base_lr * batch / 256."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """L2 penalty, as usual for small images."""

    def tuning(self, num_images: int) -> dict[str, Any]:
        """Return the evaluator's training settings for a number of labelled images, at least 2."""
        batch_size = min(self.batch_size, num_images)
        epochs = max(self.epochs, math.ceil(self.min_steps / math.ceil(num_images / batch_size)))
        milestones = sorted({epochs // 2, epochs * 3 // 4} - {0})
        return {
            "epochs": epochs,
            "batch_size": batch_size,
            "backbone_base_lr": self.base_lr,
            "head_base_lr": self.base_lr,
            "weight_decay": self.weight_decay,
            "milestones": milestones,
            "gamma": 0.1,
        }


class LabelCurveConfig(SharedSettings):
    """Accuracy of several checkpoints and of baselines against labels per class."""

    supervised: FromScratchConfig = FromScratchConfig()
    """Training of --supervised."""
