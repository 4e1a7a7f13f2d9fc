"""Check that training and test features match."""

from rsa_eval.features.labelled import LabelledFeatures
from rsa_pretrain.plumbing.errors import UserError


def classes_of(
    train: LabelledFeatures, test: LabelledFeatures | None, num_classes: int | None
) -> int:
    """Check that every image has a class and the widths agree; return the number of classes C.

    Args:
        train: Training features.
        test: Test features; None if the training images are classified.
        num_classes: C, where some classes have no image; None takes the largest training label
            plus one.

    Raises:
        UserError: If an image has no class, all training images are of one class, a label is not
            below C, or the widths differ.
    """
    for what, images in (("training", train), ("test", test)):
        if images is None:
            continue
        if len(images.labels) == 0:
            raise UserError(f"there are no {what} images")
        if images.labels.min() < 0:
            count = int((images.labels < 0).sum())
            raise UserError(
                f"{count} of {len(images.labels)} {what} images have no class; an evaluator needs "
                "a class index from 0 on for each"
            )
    if train.labels.min() == train.labels.max():
        raise UserError(
            f"all {len(train.labels):,} training images are of class {train.labels[0]}; an "
            "evaluation needs two classes or more"
        )
    found = int(train.labels.max()) + 1
    expected = found if num_classes is None else num_classes
    if found > expected:
        raise UserError(
            f"a training image is of class {found - 1}, but num_classes is {expected}; set it to "
            f"{found} or more"
        )
    if test is None:
        return expected
    if test.labels.max() >= expected:
        raise UserError(
            f"a test image is of class {int(test.labels.max())}, but the training images have "
            f"classes 0 to {expected - 1}; add training images of it, or leave it out"
        )
    if train.features.shape[1] != test.features.shape[1]:
        raise UserError(
            f"training features are {train.features.shape[1]} wide, test features "
            f"{test.features.shape[1]}; extract both from the same layers"
        )
    return expected
