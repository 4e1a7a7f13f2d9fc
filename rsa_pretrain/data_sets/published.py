"""What is published about the data sets: how many images and classes each split has."""

from dataclasses import dataclass

from rsa_pretrain.data_sets import AnySplit


@dataclass(frozen=True)
class Published:
    """Numbers of one split; None where nothing is published or the classes differ in size."""

    num_images: int | None
    num_classes: int | None
    images_per_class: int | None


# ImageNet-100 is any hundred classes: only the size of a validation class is certain.
PUBLISHED: dict[tuple[str, AnySplit], Published] = {
    ("cifar10", "train"): Published(50_000, 10, 5_000),
    ("cifar10", "test"): Published(10_000, 10, 1_000),
    ("cifar100", "train"): Published(50_000, 100, 500),
    ("cifar100", "test"): Published(10_000, 100, 100),
    ("digits", "train"): Published(1_437, 10, None),
    ("digits", "test"): Published(360, 10, None),
    ("imagenet", "train"): Published(1_281_167, 1_000, None),
    ("imagenet", "test"): Published(50_000, 1_000, 50),
    ("imagenet100", "test"): Published(None, None, 50),
    ("stl10", "pretrain"): Published(105_000, 10, 500),
    ("stl10", "train"): Published(5_000, 10, 500),
    ("stl10", "test"): Published(8_000, 10, 800),
    ("tiny_imagenet", "train"): Published(100_000, 200, 500),
    ("tiny_imagenet", "test"): Published(10_000, 200, 50),
}
