"""Notice a centre crop that shows little of each image."""

from rsa_pretrain.data.settings import DataConfig

_LEAST_SHARE = 0.7  # of the short side; the usual 224 of 256 are 0.875


def narrow_crop(data: DataConfig) -> str | None:
    """Describe an evaluation's centre crop if it leaves out most of an image; None if it is usual.

    That happens when ``image_size`` is lowered beside a config that sets ``eval_resize``.
    """
    size, resize = data.image_size, data.eval_resize
    if resize is None or size / resize >= _LEAST_SHARE:
        return None
    return (
        f"the network sees the central {size} x {size} pixels of images whose short side is "
        f"resized to {resize}, {100 * (size / resize) ** 2:.0f} % of a square one: set "
        f"data.eval_resize={size}, or null, which takes the whole image"
    )
