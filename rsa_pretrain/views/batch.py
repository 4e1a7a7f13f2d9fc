"""Make the views of ``one_image`` for a batch of uint8 images, with parameters drawn beforehand."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from rsa_pretrain.data.settings import RGB
from rsa_pretrain.views.blur import blur_radius
from rsa_pretrain.views.colours import coloured
from rsa_pretrain.views.draws import ViewDraws
from rsa_pretrain.views.one_image import VIEW_NAMES
from rsa_pretrain.views.parcel import Parcel
from rsa_pretrain.views.plan import PartPlan, flipped_rows, plan_views, resize_table
from rsa_pretrain.views.settings import ViewsConfig, ViewSet

# Pixels per view that a CPU processes at a time: enough to amortise the cost of the calls, and
# few enough for the allocator to reuse the same memory.
_PIXELS_TOGETHER = 2**17


class BatchedViews:
    """RSA's multi-stage augmentation, paper Eq. 3, restricted to a set of views.

    The views match those of ``one_image.Views`` in distribution, up to rounding: pixels stay
    float32 between the operations, where Pillow truncates each result to a grey level (aggressive
    views are about one grey level of 255 brighter on average), and the blur is a true Gaussian.
    Each crop is made once, and its aggressive view starts from its pixels.

    The CPU plans the work from the draws, the images' device does it: none of the methods makes
    the CPU wait for a GPU, and after its plan has arrived a GPU needs nothing from the CPU. Call
    them outside autocast.

    Args:
        view_set: Which views to return, and in which order.
        config: Parameters of t_w and t_a.
        image_size: Side S of the views, in pixels.
        mean: Per-channel mean, pixels in [0, 1].
        std: Per-channel standard deviation, pixels in [0, 1].
    """

    def __init__(
        self, view_set: ViewSet, config: ViewsConfig, image_size: int, mean: RGB, std: RGB
    ) -> None:
        self.names = VIEW_NAMES[view_set]
        self.image_size = image_size
        self.blur_radius = blur_radius(config.aggressive.blur_sigma_pixels[1], image_size)
        self.mean = torch.tensor(mean)[:, None, None]
        self.std = torch.tensor(std)[:, None, None]

    def from_images(self, images: Tensor, draws: ViewDraws) -> list[Tensor]:
        """Crop, resize and flip images, and make their views.

        Args:
            images: RGB, uint8 (N, 3, H, W).
            draws: Parameters of these images' views.

        Returns:
            Normalised views, each float32 (N, 3, S, S), in the set's order.
        """
        parts = self.plan_images(draws, images.device)
        return self.of_images(images, Parcel(parts, images.device).unpack())

    def from_crops(self, crops: dict[str, Tensor], draws: ViewDraws) -> list[Tensor]:
        """Flip crops that are already resized, and make their views.

        Args:
            crops: RGB crops by prime, uint8 (N, 3, S, S); not flipped.
            draws: Parameters of these images' views.

        Returns:
            Normalised views, each float32 (N, 3, S, S), in the set's order.
        """
        device = next(iter(crops.values())).device
        return self.of_crops(crops, Parcel(self.plan_crops(draws, device), device).unpack())

    def plan_images(self, draws: ViewDraws, device: torch.device) -> list[PartPlan]:
        """Plan the views of images for a device; the plan is on the CPU."""
        return plan_views(draws, self._num_together(len(draws), device), resize_table)

    def plan_crops(self, draws: ViewDraws, device: torch.device) -> list[PartPlan]:
        """Plan the views of crops for a device; the plan is on the CPU."""
        return plan_views(draws, self._num_together(len(draws), device), flipped_rows)

    def of_images(self, images: Tensor, parts: list[PartPlan]) -> list[Tensor]:
        """Make the views of ``from_images`` by a plan on the images' device."""

        def weak(part: PartPlan) -> Iterator[tuple[str, Tensor]]:
            pixels = _to_float(images[part.rows])
            for prime, table in part.crops.items():
                yield prime, resized_crops(pixels, table, self.image_size)

        return self._views(images, parts, weak)

    def of_crops(self, crops: dict[str, Tensor], parts: list[PartPlan]) -> list[Tensor]:
        """Make the views of ``from_crops`` by a plan on the crops' device."""

        def weak(part: PartPlan) -> Iterator[tuple[str, Tensor]]:
            for prime, flipped in part.crops.items():
                pixels = _to_float(crops[prime][part.rows].transpose(0, 1))
                mirrored = pixels.index_select(1, flipped).flip(-1)
                yield prime, pixels.index_copy_(1, flipped, mirrored)

        return self._views(next(iter(crops.values())), parts, weak)

    def _views(
        self,
        images: Tensor,
        parts: list[PartPlan],
        weak_views: Callable[[PartPlan], Iterator[tuple[str, Tensor]]],
    ) -> list[Tensor]:
        shape = (len(images), 3, self.image_size, self.image_size)
        views = {name: torch.empty(shape, device=images.device) for name in self.names}
        for part in parts:
            for prime, weak in weak_views(part):
                if f"v_w{prime}" in views:
                    self._normalise(weak, views[f"v_w{prime}"][part.rows])
                if f"v_a{prime}" in views:
                    aggressive = coloured(weak, part.colours[prime], self.blur_radius)
                    self._normalise(aggressive, views[f"v_a{prime}"][part.rows])
        return [views[name] for name in self.names]

    def _num_together(self, num_images: int, device: torch.device) -> int:
        if device.type == "cpu":
            return max(1, _PIXELS_TOGETHER // self.image_size**2)
        return max(1, num_images)

    def _normalise(self, planes: Tensor, out: Tensor) -> None:
        self.mean, self.std = self.mean.to(out.device), self.std.to(out.device)
        torch.sub(planes.transpose(0, 1), self.mean, out=out).div_(self.std)


def _to_float(pixels: Tensor) -> Tensor:
    """Scale uint8 to [0, 1]; the result is contiguous whatever the input's memory format."""
    return pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def resized_crops(images: Tensor, table: Tensor, size: int) -> Tensor:
    """Crop, resize with antialiasing (bilinear) and flip, as two matrix products.

    Args:
        images: Float (N, 3, H, W).
        table: Their ``resize_table``, on their device.
        size: Side S of the results.

    Returns:
        Planes, float (3, N, S, S).
    """
    count, _, height, width = images.shape
    start, length, flip = table
    matrices = resize_matrices(start, length, flip, max(height, width), size)
    rows, columns = matrices[:count, :, :height], matrices[count:, :, :width]
    lines = images.reshape(count, 3 * height, width)
    narrowed = torch.bmm(lines, columns.transpose(1, 2)).view(-1, 3, height, size)
    planes = images.new_empty(3, count, size, size)
    for plane, channel in zip(planes, narrowed.unbind(dim=1), strict=True):
        torch.bmm(rows, channel, out=plane)
    return planes


def resize_matrices(start: Tensor, length: Tensor, flip: Tensor, full: int, size: int) -> Tensor:
    """Return the matrices that resize a part of ``full`` pixels to ``size``, (N, size, full).

    A row contains the weights of one output pixel: a triangle around its centre, as wide as an
    output pixel but no narrower than a source pixel, clipped to the part.

    Args:
        start: First pixel of the part, float (N, 1).
        length: Pixels of the part, float (N, 1).
        flip: 1 if the output is reversed, else 0, float (N, 1).
        full: Pixels of the source.
        size: Pixels of the result.
    """
    scale = length / size
    index = torch.arange(size, device=start.device)
    index = index + flip * (size - 1 - 2 * index)
    centre = (index + 0.5) * scale
    pixel = torch.arange(full, device=start.device) + 0.5 - start
    weights = (centre[:, :, None] - pixel[:, None]).abs_()
    weights.div_(-scale.clamp_min(1)[:, :, None]).add_(1).clamp_min_(0)
    weights *= ((pixel > 0) & (pixel < length))[:, None]
    return weights.div_(weights.sum(dim=2, keepdim=True))
