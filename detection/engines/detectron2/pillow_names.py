"""Restore a constant that detectron2 0.6 uses and Pillow 10 removed.

Nothing else that this toolkit uses of 0.6 breaks with current libraries. detectron2's main branch
does not need this.
"""

from PIL import Image

if not hasattr(Image, "LINEAR"):
    Image.LINEAR = Image.Resampling.BILINEAR  # type: ignore[attr-defined]
