"""Linear CKA: how similar the features of two networks, or two stages of one, are."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rsa_eval.evaluators.diagnostics.spectrum import centre_of
from rsa_pretrain.plumbing.errors import UserError


def linear_cka(first: Tensor, second: Tensor, chunk_size: int = 4096) -> float:
    """Return the linear centred kernel alignment of two networks' features of the same images.

    Kornblith et al. 2019, Section 3: ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) in Frobenius norms, for centred
    features X and Y. It ignores rotation and isotropic scaling, but not other linear maps. With
    few images for the number of features it is biased upwards; see ``unbiased_linear_cka``.

    Args:
        first: (N, D).
        second: Of the same images in the same order, (N, E); E may differ from D.
        chunk_size: Rows read at a time; three matrices of D or E rows and columns are kept.

    Returns:
        From 0 to 1; 1 for the same features up to rotation, shift and scale.

    Raises:
        UserError: If the numbers of images differ, there are fewer than two, a feature is not
            finite, or all features of one network are the same.
    """
    products = _products(first, second, chunk_size)
    return float(products.cross / (products.first * products.second).sqrt())


def unbiased_linear_cka(first: Tensor, second: Tensor, chunk_size: int = 4096) -> float:
    """Return linear CKA from unbiased estimates of the three HSIC.

    Song et al. 2007's estimator in feature space, as in the code of Kornblith et al. 2019, which
    calls this CKA debiased: a ratio of unbiased estimates still has some bias.

    Args:
        first: As ``linear_cka``.
        second: As ``linear_cka``.
        chunk_size: As ``linear_cka``.

    Returns:
        At most 1, about 0 for unrelated features whatever their width, where it may be negative.

    Raises:
        UserError: As ``linear_cka``, or if there are fewer than four images or too few to
            estimate.
    """
    if len(first) < 4:
        raise UserError(f"unbiased CKA needs 4 images or more, found {len(first)}")
    products = _products(first, second, chunk_size)
    scale = products.without_own(products.first, 0, 0) * products.without_own(products.second, 1, 1)
    if not scale > 0:
        raise UserError(
            f"unbiased CKA cannot be estimated from these {len(first)} images; use more"
        )
    return float(products.without_own(products.cross, 0, 1) / scale.sqrt())


@dataclass(frozen=True)
class _Products:
    """Inner products of the centred features of N images, float64."""

    num_images: int
    cross: Tensor
    """‖YᵀX‖²."""
    first: Tensor
    """‖XᵀX‖²."""
    second: Tensor
    """‖YᵀY‖²."""
    norms: Tensor
    """Sums of the rows' squared norms in X and in Y, (2,)."""
    norm_products: Tensor
    """Sums of products of two of them, (2, 2)."""

    def without_own(self, product: Tensor, one: int, other: int) -> Tensor:
        """Return N (N - 3) times the unbiased HSIC of two features (0 or 1) from their product.

        With the diagonals of both kernels set to zero, as Song et al. 2007 do, only sums of
        squared norms are to be subtracted, because centred kernels have rows that sum to zero.
        """
        n = self.num_images
        paired = n / (n - 2) * self.norm_products[one, other]
        return product - paired + self.norms[one] * self.norms[other] / ((n - 1) * (n - 2))


def _products(first: Tensor, second: Tensor, chunk_size: int) -> _Products:
    if len(first) != len(second):
        raise UserError(
            f"CKA needs two networks' features of the same images, found {len(first)} and "
            f"{len(second)}"
        )
    centres = [centre_of([features], "CKA", chunk_size) for features in (first, second)]
    widths = (len(centres[0]), len(centres[1]))
    shapes = ((widths[1], widths[0]), (widths[0], widths[0]), (widths[1], widths[1]))
    cross, own, other = (centres[0].new_zeros(shape) for shape in shapes)
    norms, norm_products = centres[0].new_zeros(2), centres[0].new_zeros(2, 2)
    chunks = (torch.split(features, chunk_size) for features in (first, second))
    for parts in zip(*chunks, strict=True):
        x, y = (part.double() - centre for part, centre in zip(parts, centres, strict=True))
        cross.addmm_(y.T, x)
        own.addmm_(x.T, x)
        other.addmm_(y.T, y)
        squares = torch.stack([x.square().sum(dim=1), y.square().sum(dim=1)])
        norms += squares.sum(dim=1)
        norm_products += squares @ squares.T
    return _Products(
        num_images=len(first),
        cross=cross.square().sum(),
        first=own.square().sum(),
        second=other.square().sum(),
        norms=norms,
        norm_products=norm_products,
    )
