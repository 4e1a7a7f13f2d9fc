"""detectron2 0.6 names a constant that Pillow 10 took away; it is given back before the import.

Nothing else of 0.6 that this toolkit uses stumbles over today's libraries. detectron2's main needs
none of this.
"""

from PIL import Image

if not hasattr(Image, "LINEAR"):
    Image.LINEAR = Image.Resampling.BILINEAR  # type: ignore[attr-defined]
