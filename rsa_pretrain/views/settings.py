"""Define the settings of the weak and aggressive augmentations."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rsa_pretrain.data.settings import Probability
from rsa_pretrain.plumbing.config.files import Section

ViewSet = Literal["multi_stage", "aggressive_pair", "aggressive_weak", "weak"]

Range = Annotated[tuple[float, float], Field(min_length=2, max_length=2)]


class WeakConfig(Section):
    """The weak augmentation t_w: random resized crop and flip."""

    crop_scale: Range = (0.2, 1.0)
    """Area of the crop as a share of the image."""
    crop_ratio: Range = (3 / 4, 4 / 3)
    """Aspect ratio of the crop, width over height."""
    flip_probability: Probability = 0.5
    """Horizontal flip."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, (low, high), top in (
            ("crop_scale", self.crop_scale, 1.0),
            ("crop_ratio", self.crop_ratio, 100.0),
        ):
            if not 0 < low <= high <= top:
                raise ValueError(
                    f"{name} must satisfy 0 < low <= high <= {top:g}, found [{low:g}, {high:g}]"
                )
        return self


class AggressiveConfig(Section):
    """The aggressive augmentation t_a, MoCo v2's: colour jitter, grayscale, Gaussian blur."""

    jitter_probability: Probability = 0.8
    """Colour jitter."""
    brightness: Annotated[float, Field(ge=0)] = 0.4
    """Jitter factor drawn from [1 - b, 1 + b]."""
    contrast: Annotated[float, Field(ge=0)] = 0.4
    """As brightness."""
    saturation: Annotated[float, Field(ge=0)] = 0.4
    """As brightness."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Hue shift drawn from [-h, h], in turns of the colour circle."""
    grayscale_probability: Probability = 0.2
    """Grayscale."""
    blur_probability: Probability = 0.5
    """Gaussian blur; 0 switches it off."""
    blur_sigma_pixels: Range = (0.1, 2.0)
    """Standard deviation of the blur."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.blur_sigma_pixels
        if not 0 < low <= high:
            raise ValueError(
                f"blur_sigma_pixels must satisfy 0 < low <= high, found [{low:g}, {high:g}]"
            )
        return self


class ViewsConfig(Section):
    """Multi-stage augmentation, paper Eq. 3."""

    weak: WeakConfig = WeakConfig()
    aggressive: AggressiveConfig = AggressiveConfig()


class TrainingViewsConfig(ViewsConfig):
    """The views of a run, and how they are made."""

    implementation: Literal["pillow", "batched"] = "pillow"
    """pillow: image by image in the loader processes; batched: whole batches of uint8 images on the
    training device, several times faster. The views are the same in distribution, the draws are
    not; aggressive views are about one grey level of 255 brighter on average, since Pillow
    truncates after each operation. Small images are then kept in memory (or the GPU's) and need
    no loader processes; other images are decoded and cropped in them."""
