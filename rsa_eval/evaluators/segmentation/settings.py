"""Settings of the dense linear probe and of its data sets."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rsa_eval.config import EvaluationConfig
from rsa_eval.evaluators.shared.multi_label_settings import refuse_class_folders
from rsa_pretrain.data.settings import Probability
from rsa_pretrain.plumbing.config.files import Section
from rsa_pretrain.views.settings import Range

IGNORED = 255
"""The value of a pixel that counts nowhere; so a set has at most 255 classes."""

VOC_PIXEL_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
    *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)
_NUM_ADE20K_CLASSES = 150


def is_single_name(text: str) -> bool:
    """Return whether a split or folder is named alone, without a path."""
    return text not in ("", ".", "..") and "/" not in text


class MasksConfig(Section):
    """Masks of the images in `data.root`, which say the class of each pixel."""

    name: Annotated[str, Field(pattern=r"^\w[\w.+-]*$")]
    """Name of the data set in records, their file names and tables, for example voc2012."""
    layout: Literal["voc", "ade20k"]
    """voc, for root VOCdevkit/VOC2012: ImageSets/Segmentation/SPLIT.txt, JPEGImages/ID.jpg and
    SegmentationClass/ID.png, whose palette indices are the classes, from 0, and 255 for void;
    ade20k, for root ADEChallengeData2016: images/SPLIT/ID.jpg and annotations/SPLIT/ID.png with
    classes from 1, and 0 for unlabelled pixels, which are ignored."""
    train_split: str | None = None
    """SPLIT of the training images; null: train of layout voc, training of ade20k."""
    test_split: str | None = None
    """SPLIT of the test images; null: val of layout voc, validation of ade20k."""
    train_mask_dir: str = "SegmentationClass"
    """voc: folder of the training masks; SegmentationClassAug with train_split=trainaug, the
    further annotation of Hariharan et al. 2011 (SBD)."""
    classes: Annotated[int, Field(ge=2, le=IGNORED)] | tuple[str, ...] | None = None
    """Number or names of the classes in the order of their values, for voc with the background;
    null: VOC's 21, or ADE20K's 150."""

    @property
    def class_names(self) -> list[str]:
        """The names; classes without one are numbered."""
        found = self.classes
        if found is None:
            found = VOC_PIXEL_CLASSES if self.layout == "voc" else _NUM_ADE20K_CLASSES
        if isinstance(found, tuple):
            return list(found)
        first = 0 if self.layout == "voc" else 1  # the numbers are the values in the files
        return [f"class {number}" for number in range(first, found + first)]

    @property
    def class_outside(self) -> int:
        """Return the class of what a warped image leaves free: the background, or ignored."""
        names = self.class_names
        has_background = self.layout == "voc" and names[0].casefold() == VOC_PIXEL_CLASSES[0]
        return 0 if has_background else IGNORED

    def split(self, part: Literal["train", "test"]) -> str:
        """Return the SPLIT of a part."""
        usual = {"voc": ("train", "val"), "ade20k": ("training", "validation")}[self.layout]
        if part == "train":
            return self.train_split or usual[0]
        return self.test_split or usual[1]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if isinstance(self.classes, tuple):
            if not 2 <= len(self.classes) <= IGNORED:
                raise ValueError(f"classes has {len(self.classes)} names, expected 2 to {IGNORED}")
            if len(set(self.classes)) < len(self.classes):
                raise ValueError(f"classes names one twice: {', '.join(self.classes)}")
        if self.layout != "voc" and self.train_mask_dir != "SegmentationClass":
            raise ValueError("train_mask_dir belongs to layout voc; leave it out")
        for name in (self.train_split, self.test_split, self.train_mask_dir):
            if name is not None and not is_single_name(name):
                raise ValueError(f"expected the name of a split or folder, found '{name}'")
        return self


class DenseProbeConfig(Section):
    """Training of the linear layer; the defaults are those of MaskContrast's code."""

    mode: Literal["online", "cached"] = "online"
    """online: fresh augmentation each epoch; cached: the maps of the images as they are, computed
    once and memory-mapped from a file in `cache_dir`."""
    epochs: Annotated[int, Field(ge=1)] = 60
    """Passes over the training images."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Batch size over all processes; the last batch of an epoch may be smaller. Also the number of
    test images in a forward pass, unless `batch_size` says otherwise."""
    lr: Annotated[float, Field(gt=0)] = 0.1
    """Learning rate of SGD, whatever the batch size."""
    sgd_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of the optimizer."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """L2 penalty."""
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = (26,)
    """Epochs at whose start the learning rate is multiplied by gamma."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Factor applied at each milestone."""
    output_stride: Literal[8, 16, 32] = 8
    """Pixels per place of a ResNet's last map: later stages are dilated instead of strided. A
    ResNet of stem cifar has 8 at most; networks of other libraries keep their maps."""
    flip_probability: Probability = 0.5
    """Online: horizontal flip."""
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 5.0
    """Online: largest rotation about the centre, to either side."""
    scale: Range = (0.75, 1.25)
    """Online: zoom about the centre, before the resize to the square. What the image leaves free
    is black, and background if masks.layout is voc and the first class has this name; otherwise
    it does not count."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must increase, found {list(self.milestones)}")
        if self.milestones and self.milestones[-1] >= self.epochs:
            raise ValueError(
                f"milestones {list(self.milestones)} must be below epochs {self.epochs}; set both"
            )
        if self.mode == "cached":
            for key in ("flip_probability", "rotation_degrees", "scale"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(
                        f"{key} has no meaning in mode cached, whose images stay as they are; "
                        "leave it out"
                    )
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must satisfy 0 < low <= high, found {list(self.scale)}")
        return self


class SegmentationConfig(EvaluationConfig):
    """A linear classifier of each pixel, on the last map of a frozen network."""

    protocol: Literal["maskcontrast"] = "maskcontrast"
    """MaskContrast's linear classifier (Van Gansbeke et al. 2021), tested after the last epoch."""
    masks: MasksConfig
    """The data set, with data.name=imagefolder and data.root."""
    probe: DenseProbeConfig = DenseProbeConfig()
    save_every_minutes: Annotated[float, Field(ge=0)] = 5.0
    """Minutes between saves of the training state; rerun the command to resume."""

    @property
    def data_set(self) -> str:
        """The data set's name in records."""
        return self.masks.name

    @property
    def images_in_file_names(self) -> str:
        """Every set with masks is an ``imagefolder``, so its own name."""
        return self.masks.name

    @model_validator(mode="after")
    def _check_images(self) -> Self:
        refuse_class_folders(self.data, "masks")
        if self.data.eval_resize is not None:
            raise ValueError(
                f"segmentation resizes whole images to the square, found data.eval_resize "
                f"{self.data.eval_resize}; leave it out"
            )
        if self.layers != ("layer4",) or self.tokens not in ("default", "mean") or self.blocks > 1:
            raise ValueError(
                "segmentation reads the last map; leave layers, tokens and blocks out, or set "
                "tokens=mean for a function that returns maps or tokens"
            )
        if self.probe.mode == "cached" and self.cache_dir is None:
            raise ValueError("probe.mode cached needs cache_dir, the folder of the maps")
        return self
