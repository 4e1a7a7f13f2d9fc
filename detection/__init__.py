"""Transfer of a pretrained trunk to Mask R-CNN R50-FPN on COCO-format data."""
