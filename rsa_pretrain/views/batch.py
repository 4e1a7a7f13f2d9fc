"""Make the views of ``one_image`` for a batch of uint8 images, with parameters drawn beforehand."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from rsa_pretrain.data.settings import RGB
from rsa_pretrain.plumbing.device import to_device
from rsa_pretrain.views.blur import blur_radius
from rsa_pretrain.views.colours import coloured
from rsa_pretrain.views.draws import CropDraws, ViewDraws
from rsa_pretrain.views.one_image import VIEW_NAMES
from rsa_pretrain.views.settings import ViewsConfig, ViewSet

# Pixels per view that a CPU processes at a time: enough to amortise the cost of the calls, and
# few enough for the allocator to reuse the same memory.
_BLOCK_PIXELS = 2**17


class BatchedViews:
    """RSA's multi-stage augmentation, paper Eq. 3, restricted to a set of views.

    The views match those of ``one_image.Views`` in distribution, up to rounding: pixels stay
    float32 between the operations, where Pillow truncates each result to a grey level (aggressive
    views are about one grey level of 255 brighter on average), and the blur is a true Gaussian.
    Each crop is made once, and its aggressive view starts from its pixels.

    The work runs on the images' device; neither method makes the CPU wait for a GPU. Call them
    outside autocast.

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

        def weak(rows: slice, draws: ViewDraws) -> Iterator[tuple[str, Tensor]]:
            pixels = _to_float(images[rows])
            for prime, crop in draws.crops.items():
                yield prime, resized_crops(pixels, crop, self.image_size)

        return self._views(len(images), images.device, draws, weak)

    def from_crops(self, crops: dict[str, Tensor], draws: ViewDraws) -> list[Tensor]:
        """Flip crops that are already resized, and make their views.

        Args:
            crops: RGB crops by prime, uint8 (N, 3, S, S); not flipped.
            draws: Parameters of these images' views.

        Returns:
            Normalised views, each float32 (N, 3, S, S), in the set's order.
        """

        def weak(rows: slice, draws: ViewDraws) -> Iterator[tuple[str, Tensor]]:
            for prime, crop in draws.crops.items():
                pixels = _to_float(crops[prime][rows].transpose(0, 1))
                flipped = to_device(crop.flip.nonzero()[:, 0], pixels.device)
                mirrored = pixels.index_select(1, flipped).flip(-1)
                yield prime, pixels.index_copy_(1, flipped, mirrored)

        some = next(iter(crops.values()))
        return self._views(len(some), some.device, draws, weak)

    def _views(
        self,
        num_images: int,
        device: torch.device,
        draws: ViewDraws,
        weak_views: Callable[[slice, ViewDraws], Iterator[tuple[str, Tensor]]],
    ) -> list[Tensor]:
        shape = (num_images, 3, self.image_size, self.image_size)
        views = {name: torch.empty(shape, device=device) for name in self.names}
        block = num_images
        if device.type == "cpu":
            block = max(1, _BLOCK_PIXELS // self.image_size**2)
        for start in range(0, num_images, block):
            rows = slice(start, start + block)
            part = draws.rows(rows)
            for prime, weak in weak_views(rows, part):
                if f"v_w{prime}" in views:
                    self._normalise(weak, views[f"v_w{prime}"][rows])
                if f"v_a{prime}" in views:
                    aggressive = coloured(weak, part.colours[prime], self.blur_radius)
                    self._normalise(aggressive, views[f"v_a{prime}"][rows])
        return [views[name] for name in self.names]

    def _normalise(self, planes: Tensor, out: Tensor) -> None:
        self.mean, self.std = self.mean.to(out.device), self.std.to(out.device)
        torch.sub(planes.transpose(0, 1), self.mean, out=out).div_(self.std)


def _to_float(pixels: Tensor) -> Tensor:
    """Scale uint8 to [0, 1]; the result is contiguous whatever the input's memory format."""
    return pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def resized_crops(images: Tensor, crops: CropDraws, size: int) -> Tensor:
    """Crop, resize with antialiasing (bilinear) and flip, as two matrix products.

    Args:
        images: Float (N, 3, H, W).
        crops: Each image's crop and flip.
        size: Side S of the results.

    Returns:
        Planes, float (3, N, S, S).
    """
    count, _, height, width = images.shape
    start = torch.cat([crops.top, crops.left])
    length = torch.cat([crops.height, crops.width])
    flip = torch.cat([torch.zeros_like(crops.flip), crops.flip])
    matrices = resize_matrices(start, length, flip, max(height, width), size, images.device)
    rows, columns = matrices[:count, :, :height], matrices[count:, :, :width]
    lines = images.reshape(count, 3 * height, width)
    narrowed = torch.bmm(lines, columns.transpose(1, 2)).view(-1, 3, height, size)
    planes = images.new_empty(3, count, size, size)
    for plane, channel in zip(planes, narrowed.unbind(dim=1), strict=True):
        torch.bmm(rows, channel, out=plane)
    return planes


def resize_matrices(
    start: Tensor, length: Tensor, flip: Tensor, full: int, size: int, device: torch.device
) -> Tensor:
    """Return the matrices that resize a part of ``full`` pixels to ``size``, (N, size, full).

    A row contains the weights of one output pixel: a triangle around its centre, as wide as an
    output pixel but no narrower than a source pixel, clipped to the part.

    Args:
        start: First pixel of the part, (N,).
        length: Pixels of the part, (N,).
        flip: Whether the output is reversed, (N,).
        full: Pixels of the source.
        size: Pixels of the result.
        device: Device of the result.
    """
    table = torch.stack([start, length, flip]).float()[..., None]
    start, length, flip = to_device(table, device)
    scale = length / size
    index = torch.arange(size, device=device)
    index = index + flip * (size - 1 - 2 * index)
    centre = (index + 0.5) * scale
    pixel = torch.arange(full, device=device) + 0.5 - start
    weights = (centre[:, :, None] - pixel[:, None]).abs_()
    weights.div_(-scale.clamp_min(1)[:, :, None]).add_(1).clamp_min_(0)
    weights *= ((pixel > 0) & (pixel < length))[:, None]
    return weights.div_(weights.sum(dim=2, keepdim=True))
