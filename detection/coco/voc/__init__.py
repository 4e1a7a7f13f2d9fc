"""PASCAL VOC: its folders read as a COCO-format set, its own average precision, its archives."""
