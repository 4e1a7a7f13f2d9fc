"""Define the settings of a detector's network: where regions are read, heads, anchors, numbers.

The defaults are those of Mask R-CNN R50-FPN as InfoMin and the RSA paper used it.
"""

from itertools import pairwise
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, field_validator, model_validator

from rsa_pretrain.components.settings import Arch
from rsa_pretrain.plumbing.config.files import Section

Count = Annotated[int, Field(ge=1)]
RegionMaps = Literal["FPN", "C4"]
_Length = Annotated[float, Field(gt=0, allow_inf_nan=False)]

HeadNorm = Literal["none", "BN", "SyncBN"]

PYRAMID_LEVELS = 5
HEAD_LAYERS = ("box_head_num_convs", "box_head_num_fcs", "mask_head_num_convs")
"""Settings that count layers of the heads; with features C4 all are 0."""
BASIC_BLOCK_ARCHS = frozenset({"resnet18", "resnet34"})


class BoxCounts(NamedTuple):
    """Numbers of boxes, which differ between training and testing."""

    train: int
    test: int

    def of(self, training: bool) -> int:
        """Return the number in one of the two."""
        return self.train if training else self.test


PRE_NMS_TOP_K = {"FPN": BoxCounts(2000, 1000), "C4": BoxCounts(12_000, 6000)}
"""Boxes of each map that enter non-maximum suppression."""
_STAGES_BEFORE_REGIONS = 4


class Anchors(NamedTuple):
    """The boxes that a proposal network starts from, at each position of its maps."""

    sizes_pixels: tuple[float, ...]
    """Square root of the area: one on each level of a pyramid, all of them on a single map."""
    aspect_ratios: tuple[float, ...]
    """Height / width, the same for every size."""

    def by_map(self, features: RegionMaps) -> tuple[tuple[float, ...], ...]:
        """Return the sizes on each map that boxes are proposed from."""
        if features == "C4":
            return (self.sizes_pixels,)
        return tuple((size,) for size in self.sizes_pixels)

    def num_per_position(self, features: RegionMaps) -> int:
        """Return the number of anchors at each position of a map."""
        return len(self.by_map(features)[0]) * len(self.aspect_ratios)


class ModelConfig(Section):
    """Mask R-CNN; without its mask head, Faster R-CNN."""

    arch: Arch | None = None
    """Backbone; a checkpoint of another is refused, null takes the checkpoint's. --random-init
    needs it."""
    features: RegionMaps = "FPN"
    """Maps that regions are read from. FPN: a feature pyramid over res2 … res5, with heads of new
    layers. C4: the map of res4 alone; res5, pretrained, is the head of each region, so that the
    counts of the heads' layers are 0."""
    trunk_norm: Literal["SyncBN", "BN", "FrozenBN"] = "SyncBN"
    """SyncBN: trained with the rest, over the batch of all processes; BN: over each process's own;
    FrozenBN: the checkpoint's statistics and weights, fixed."""
    freeze_at: Annotated[int, Field(ge=0, le=5)] = 0
    """Number of frozen stages among stem, res2, … res5, norms included; with C4 at most 4, the
    stages before the regions."""
    head_norm: HeadNorm = "SyncBN"
    """FPN: norm after the convolutions of the box head and the mask head and, unless the next
    setting says otherwise, of the pyramid. C4: one more norm after res5, as MoCo has it; it is the
    trunk's or none."""
    pyramid_norm: HeadNorm | None = None
    """Norm after the convolutions of the pyramid; null: head_norm."""
    box_head_num_convs: Annotated[int, Field(ge=0)] = 4
    """3x3 convolutions of the box head, 256 wide."""
    box_head_num_fcs: Annotated[int, Field(ge=0)] = 1
    """Fully connected layers of the box head, 1024 wide; FPN needs one."""
    mask_head: bool = True
    """Predict masks as well as boxes. A run whose training instances have no masks trains without
    the head, and says so."""
    mask_head_num_convs: Annotated[int, Field(ge=0)] = 4
    """3x3 convolutions of the mask head, 256 wide; FPN needs one."""
    anchor_sizes_pixels: Annotated[tuple[_Length, ...], Field(min_length=1)] = (
        *(32, 64, 128, 256, 512),
    )
    """Side of the square anchors, in pixels of the resized image, rising. FPN has one on each level
    of the pyramid (strides 4, 8, 16, 32, 64), C4 all of them on its map (stride 16)."""
    anchor_aspect_ratios: Annotated[tuple[_Length, ...], Field(min_length=1)] = (0.5, 1, 2)
    """Shapes of the anchors at each position, as height / width."""

    @property
    def anchors(self) -> Anchors:
        """Sizes and shapes together."""
        return Anchors(self.anchor_sizes_pixels, self.anchor_aspect_ratios)

    @property
    def norm_of_pyramid(self) -> HeadNorm:
        """Norm after the convolutions of the pyramid."""
        return self.pyramid_norm or self.head_norm

    @field_validator("anchor_sizes_pixels")
    @classmethod
    def _check_sizes(cls, sizes: tuple[float, ...]) -> tuple[float, ...]:
        if any(larger <= smaller for smaller, larger in pairwise(sizes)):
            raise ValueError("anchor sizes must increase")
        return sizes

    @field_validator("anchor_aspect_ratios")
    @classmethod
    def _check_ratios(cls, ratios: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(ratios)) < len(ratios):
            raise ValueError("aspect ratios must be distinct")
        return ratios

    @model_validator(mode="after")
    def _check_layers(self) -> Self:
        if self.features == "C4":
            self._check_c4()
            return self
        if len(self.anchor_sizes_pixels) != PYRAMID_LEVELS:
            raise ValueError(
                f"anchor_sizes_pixels has {len(self.anchor_sizes_pixels)} sizes; features FPN "
                f"needs one for each of its {PYRAMID_LEVELS} levels"
            )
        absent = [key for key in HEAD_LAYERS[1:] if getattr(self, key) == 0]
        if absent:
            raise ValueError(f"features FPN needs at least 1 of {' and of '.join(absent)}, found 0")
        return self

    def _check_c4(self) -> None:
        layers = [f"{key} {getattr(self, key)}" for key in HEAD_LAYERS if getattr(self, key)]
        if layers:
            raise ValueError(f"with features C4, whose head is res5, set to 0: {', '.join(layers)}")
        if self.pyramid_norm is not None:
            raise ValueError("pyramid_norm is set; features C4 have no pyramid: set it to null")
        if self.freeze_at > _STAGES_BEFORE_REGIONS:
            raise ValueError(
                f"freeze_at is {self.freeze_at}; with features C4, res5 is a trained head: "
                f"{_STAGES_BEFORE_REGIONS} freezes all stages before it"
            )
        if self.head_norm not in ("none", self.trunk_norm):
            raise ValueError(
                f"head_norm is {self.head_norm} and trunk_norm {self.trunk_norm}; with features "
                "C4 the norm after res5 is the trunk's or none"
            )


DEFAULT_ANCHORS = ModelConfig().anchors
"""Anchors of a detector whose file does not state any."""


class SamplingConfig(Section):
    """Numbers of anchors, proposals, regions and detections per image."""

    anchors_per_image: Count = 256
    """Anchors in the proposal network's loss."""
    proposals_per_image: Count = 1000
    """Proposals kept after non-maximum suppression, in testing and, unless the next setting says
    otherwise, in training."""
    train_proposals_per_image: Count | None = None
    """Proposals kept in training; null: as in testing. detectron2 and MoCo keep 2000 on C4."""
    rois_per_image: Count = 512
    """Regions in the box head's loss, a quarter of them objects where there are enough."""
    detections_per_image: Count = 100
    """Detections kept in testing. Average precision counts as many per image and category, but at
    least 100."""

    @property
    def num_proposals(self) -> BoxCounts:
        """Proposals kept in training and in testing."""
        train = self.train_proposals_per_image or self.proposals_per_image
        return BoxCounts(train, self.proposals_per_image)


def shallow_c4(arch: Arch | None, features: RegionMaps) -> str | None:
    """Return why detectron2 cannot build a detector: its res5 heads have bottlenecks."""
    if features != "C4" or arch not in BASIC_BLOCK_ARCHS:
        return None
    return (
        f"detectron2 has no C4 detector on {arch}, whose blocks are not bottlenecks; only engine "
        "torchvision has one: take resnet50 or resnet101 for both"
    )
