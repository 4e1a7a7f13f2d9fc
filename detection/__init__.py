"""Transfer of a pretrained backbone to Mask R-CNN R50-FPN on COCO-format data."""

from typing import TYPE_CHECKING

from rsa_pretrain.plumbing.lazy_names import lazy_names

if TYPE_CHECKING:
    from detection.exchange.convert import Conversion as Conversion
    from detection.exchange.convert import convert as convert
    from detection.exchange.unconvert import Unconversion as Unconversion
    from detection.exchange.unconvert import unconvert as unconvert
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "detection.exchange.convert": "Conversion convert",
            "detection.exchange.unconvert": "Unconversion unconvert",
        },
    )
