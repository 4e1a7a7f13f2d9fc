"""List this engine's differences from detectron2's Mask R-CNN, which every record quotes.

All else is the same arithmetic (``tests/detection/engines/test_engines_agree.py``): from the
same weights and images, detectron2 computes the same losses, steps and detections. Effects were
counted on the 702 objects of a COCO subset of 83 images.
"""

DIFFERENCES_FROM_DETECTRON2 = (
    "order of images, augmentation and sampling are drawn from other random streams "
    "(effect: that of another seed)",
    "boxes narrower than 0.01 pixels are left out; detectron2 leaves out 0.00001 after resizing "
    "(effect: none in a COCO subset)",
    "where some masks are run-length codes the others train as polygons; detectron2 reads all as "
    "bitmaps (effect: none in COCO, whose objects are polygons)",
)
