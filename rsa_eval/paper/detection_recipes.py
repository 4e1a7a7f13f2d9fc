"""Name the recipes of published detectors, and the shipped configs that follow them.

Numbers of two recipes do not compare; docs/detection_recipes.md lists what differs and where it is
written. A record belongs to a recipe if its fingerprint is that of the recipe's config.
"""

from dataclasses import dataclass
from typing import Literal

from rsa_eval.records.detection_recipe import RecipeIdentity
from rsa_eval.records.record import Record

RecipeKey = Literal[
    "infomin-fpn",
    "rsa-fpn",
    "moco-fpn",
    "moco-c4",
    "simsiam-c4",
    "voc-c4",
    "simsiam-voc-c4",
    "pirl-voc-c4",
    "detectron2-fpn",
]
"""Families of recipes.

infomin-fpn: Mask R-CNN with SyncBN everywhere and a box head of four convolutions; rsa-fpn: the
same, at rate 0.03 for the 2x schedule; moco-fpn: SyncBN in backbone and pyramid, a box head of two
layers; moco-c4 and voc-c4: res5 and one more norm as the head; simsiam-c4 and simsiam-voc-c4: these
at the best of several rates; pirl-voc-c4: frozen BatchNorm, another schedule; detectron2-fpn: that
of its model zoo.
"""

DetectionSchedule = Literal["1x", "2x", "24k", "25k"]
"""Length of the training: 1x is 90,000 iterations of 16 images; k counts thousands."""


@dataclass(frozen=True)
class PublishedRecipe:
    """A recipe at one schedule."""

    key: RecipeKey
    schedule: DetectionSchedule
    config: str | None
    """Name of the shipped config; None if there is none."""

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the shipped config."""
        return None if self.config is None else RECIPE_FINGERPRINTS.get(self.config)


PUBLISHED_RECIPES = (
    PublishedRecipe("infomin-fpn", "1x", "mask_rcnn_R_50_FPN_1x"),
    PublishedRecipe("infomin-fpn", "2x", "infomin_mask_rcnn_R_50_FPN_2x"),
    PublishedRecipe("rsa-fpn", "1x", "mask_rcnn_R_50_FPN_1x"),
    PublishedRecipe("rsa-fpn", "2x", "mask_rcnn_R_50_FPN_2x"),
    PublishedRecipe("moco-fpn", "1x", "moco_mask_rcnn_R_50_FPN_1x"),
    PublishedRecipe("moco-fpn", "2x", "moco_mask_rcnn_R_50_FPN_2x"),
    PublishedRecipe("moco-c4", "1x", "moco_mask_rcnn_R_50_C4_1x"),
    PublishedRecipe("moco-c4", "2x", "moco_mask_rcnn_R_50_C4_2x"),
    PublishedRecipe("simsiam-c4", "1x", None),
    PublishedRecipe("voc-c4", "24k", "pascal_voc_R_50_C4_24k"),
    PublishedRecipe("simsiam-voc-c4", "24k", None),
    PublishedRecipe("pirl-voc-c4", "25k", None),
    PublishedRecipe("detectron2-fpn", "1x", None),
)

RECIPE_FINGERPRINTS = {
    "mask_rcnn_R_50_FPN_1x": "bcb8efd1",
    "mask_rcnn_R_50_FPN_2x": "50157315",
    "infomin_mask_rcnn_R_50_FPN_2x": "94cdf237",
    "moco_mask_rcnn_R_50_FPN_1x": "b2fc6793",
    "moco_mask_rcnn_R_50_FPN_2x": "312e9b37",
    "moco_mask_rcnn_R_50_C4_1x": "bf09fe9b",
    "moco_mask_rcnn_R_50_C4_2x": "57fcd218",
    "pascal_voc_R_50_C4_24k": "d1fbfffc",
    "pascal_voc_R_50_C4_24k_frozen": "f234f9e6",
}
"""Fingerprints of the shipped configs, by their name; a record with another one of the same name
was made with changed settings."""

_PUBLISHED_TEST_IMAGES = {"coco": 5_000, "voc0712": 4_952}  # val2017 and test2007


def is_on_published_images(record: Record) -> bool:
    """Return whether a detector was tested on as many images as published ones were.

    Fingerprints know a data set by its name, and a record of COCO may be of some of its images.
    """
    return _PUBLISHED_TEST_IMAGES.get(record.data_set) == record.num_samples


def rsa_recipe(table: int, method: str) -> PublishedRecipe:
    """Return the recipe of a row of the RSA paper's Table 5 or 6.

    The baselines are InfoMin's numbers, at InfoMin's rate.
    """
    key, schedule = "rsa-fpn" if method == "RSA" else "infomin-fpn", {5: "1x", 6: "2x"}[table]
    (found,) = (own for own in PUBLISHED_RECIPES if (own.key, own.schedule) == (key, schedule))
    return found


def published_recipes(recipe: RecipeIdentity | None) -> list[PublishedRecipe]:
    """Return the published recipes that a record follows; none if its settings are unknown."""
    if recipe is None or recipe.fingerprint is None:
        return []
    return [own for own in PUBLISHED_RECIPES if own.fingerprint == recipe.fingerprint]


def follows_config(recipe: RecipeIdentity | None, config: str) -> bool:
    """Return whether a record was made by a config: by its name and with its settings.

    Args:
        recipe: The record's recipe.
        config: Name of a shipped config.
    """
    return (
        recipe is not None
        and recipe.name == config
        and recipe.fingerprint is not None
        and RECIPE_FINGERPRINTS.get(config) == recipe.fingerprint
    )


def describe_recipe(recipe: RecipeIdentity) -> str:
    """Return a recipe's name and fingerprint; say if the name is that of a shipped config.

    Such a recipe has other settings than the config of this version.
    """
    shipped = RECIPE_FINGERPRINTS.get(recipe.name)
    if shipped is None or recipe.fingerprint in (None, shipped):
        return recipe.text
    return f"{recipe.text}, other settings than the config's [{shipped}]"
