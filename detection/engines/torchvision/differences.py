"""What of detectron2's Mask R-CNN this engine does not do, as every record quotes it."""

DIFFERENCES_FROM_DETECTRON2 = (
    "order of images, augmentation and sampling are drawn from other random streams",
    "boxes narrower than 0.01 pixels are left out (detectron2: 0.00001 after resizing)",
    "masks given as run-length codes train beside polygons, by detectron2's bitmap rule",
)
