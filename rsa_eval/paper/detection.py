"""Published numbers of fine-tuned detectors, each with its recipe and source, as printed.

All are ResNet-50s in percent. COCO: Mask R-CNN fine-tuned on train2017, evaluated on val2017. VOC:
Faster R-CNN fine-tuned on trainval of 2007 and 2012, evaluated on test2007 by detectron2, whose AP,
AP50 and AP75 are all means over 11 points of recall; MoCo's, SimSiam's and DenseCL's are means of 5
trials.

Numbers were read in their sources: READMEs and a model zoo at the commits named below, the RSA
paper's, SimSiam's and PIRL's text. MoCo's Table 5b alone was not: of it only those numbers are here
that two independent copies, or a copy and a README, state alike; other cells are empty.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rsa_eval.paper.detection_recipes import (
    DetectionSchedule,
    RecipeKey,
    published_recipes,
    rsa_recipe,
)
from rsa_eval.paper.numbers import DETECTION_METRICS, TABLE_5, TABLE_6
from rsa_eval.paper.published import Score
from rsa_eval.records.detection_recipe import RecipeIdentity

ELEVEN_POINT_METRICS = ("voc_AP", "voc_AP50", "voc_AP75")
"""Metrics by the rules of PASCAL VOC 2007, in the order of the numbers here."""

_MOCO = "MoCo's detection/README.md, b8ae0d9 of 2025-09-30"
_MOCO_TABLE = "MoCo, Table 5b, from copies of it"
_ZOO = "detectron2's MODEL_ZOO.md, 02b5c4e of 2026-06-06"
_PYCONTRAST = "PyContrast's detection/README.md, 84f94ea of 2023-09-04"
_DENSECL = "DenseCL's README, b64bbb6 of 2023-12-26"
_DENSECL_OLDER = "DenseCL's README, 9ce94ba of 2021-05-16"
_SIMSIAM = "SimSiam, Table 5"
_PIRL = "PIRL, Table 1"
_NOTHING = "–"
_RANDOM = "random init."
# The configs of these supervised baselines load MSRA's weights.
_MSRA = "ImageNet, MSRA's network (BGR, stride in the 1x1)"
_PRETRAINING = {_RANDOM: "", "supervised": _MSRA}


@dataclass(frozen=True)
class DetectionRow:
    """One published detector: pretrained weights fine-tuned by a recipe."""

    method: str
    recipe: RecipeKey
    schedule: DetectionSchedule
    pretraining: str
    """Epochs and images, as far as the source says; empty for random weights."""
    scores: Mapping[str, Score]
    """By metric, named as in records; missing where no number is known."""
    source: str
    """Paper and table, or README with its commit."""

    @property
    def setting(self) -> str:
        """Recipe, schedule and pretraining."""
        rules = ["AP by 11 points"] if ELEVEN_POINT_METRICS[0] in self.scores else []
        words = [f"{self.recipe} {self.schedule}", self.pretraining, *rules]
        return ", ".join(word for word in words if word)


_Group = tuple[RecipeKey, DetectionSchedule, str]

# By recipe, schedule and source: method, pretraining, and numbers in the order of the metrics.
_COCO: dict[_Group, tuple[str, ...]] = {
    ("moco-fpn", "2x", _MOCO_TABLE): (
        "supervised | ImageNet | 40.6 – 44.4 36.8 – 39.5",
        "MoCo | 200 epochs | 40.8 – 44.7 36.9 – 39.7",
    ),
    # SimSiam prints MoCo's two baselines again.
    ("moco-c4", "1x", _SIMSIAM): (
        f"{_RANDOM} | | 26.4 44.0 27.8 29.3 46.9 30.8",
        f"supervised | {_MSRA} | 38.2 58.2 41.2 33.3 54.7 35.2",
    ),
    ("moco-c4", "1x", _PYCONTRAST): (
        "MoCo | 200 epochs | 38.5 – – 33.6 – –",
        "InfoMin Aug. | 200 epochs | 39.0 – – 34.1 – –",
    ),
    ("moco-c4", "2x", _PYCONTRAST): (
        f"supervised | {_MSRA} | 40.0 – – 34.7 – –",
        "MoCo | 200 epochs | 40.7 – – – – –",  # mask AP: 35.6 here, 35.4 in a copy of MoCo's table
        "InfoMin Aug. | 200 epochs | 41.3 – – 36.0 – –",
    ),
    ("simsiam-c4", "1x", _SIMSIAM): (
        "SimCLR | 200 epochs | 37.9 57.7 40.9 33.3 54.6 35.3",
        "MoCo v2 | 200 epochs | 39.2 58.8 42.5 34.3 55.5 36.6",
        "BYOL | 200 epochs | 37.9 57.8 40.9 33.2 54.3 35.0",
        "SwAV | 200 epochs | 37.6 57.6 40.3 33.1 54.2 35.1",
        "SimSiam, base | 200 epochs | 37.9 57.5 40.9 33.2 54.2 35.2",
        "SimSiam, optimal | 200 epochs | 39.2 59.3 42.1 34.4 56.0 36.7",
    ),
    ("detectron2-fpn", "1x", _ZOO): (f"supervised | {_MSRA} | 38.6 – – 35.2 – –",),
}

_VOC: dict[_Group, tuple[str, ...]] = {
    ("voc-c4", "24k", _SIMSIAM): (f"{_RANDOM} | | 33.8 60.2 33.1",),
    ("voc-c4", "24k", _MOCO): (
        f"supervised | {_MSRA} | 53.5 81.3 58.8",
        "MoCo | 200 epochs | 55.9 81.5 62.6",
        "MoCo v2 | 200 epochs | 57.0 82.4 63.6",
        "MoCo v2 | 800 epochs | 57.4 82.5 64.0",
    ),
    ("voc-c4", "24k", _DENSECL_OLDER): ("supervised | ImageNet | 54.2 – –",),
    ("voc-c4", "24k", _DENSECL): (
        "MoCo v2 | 200 epochs | 57.0 – –",
        "DenseCL | 200 epochs | 58.7 – –",
        "MoCo v2 | 800 epochs on COCO | 54.7 – –",
        "DenseCL | 800 epochs on COCO | 56.7 – –",
        "DenseCL | 1600 epochs on COCO | 57.2 – –",
    ),
    ("simsiam-voc-c4", "24k", _SIMSIAM): (
        "SimCLR | 200 epochs | 55.5 81.8 61.4",
        "MoCo v2 | 200 epochs | 57.0 82.3 63.3",
        "BYOL | 200 epochs | 55.3 81.4 61.1",
        "SwAV | 200 epochs | 55.4 81.5 61.4",
        "SimSiam, base | 200 epochs | 56.4 82.0 62.8",
        "SimSiam, optimal | 200 epochs | 57.0 82.4 63.7",
    ),
    ("pirl-voc-c4", "25k", _PIRL): (
        "supervised | ImageNet | 52.6 81.1 57.4",
        "PIRL | 800 epochs | 54.0 80.7 59.7",
    ),
}


def detection_rows(recipe: RecipeIdentity | None) -> list[DetectionRow]:
    """Return the published detectors of a record's recipe; none of any other.

    Args:
        recipe: The record's recipe.
    """
    keys = {(own.key, own.schedule) for own in published_recipes(recipe)}
    return [row for row in DETECTION_ROWS if (row.recipe, row.schedule) in keys]


def _rsa_tables() -> Iterator[DetectionRow]:
    """Yield the rows of the RSA paper, whose baselines are InfoMin's, at InfoMin's rate."""
    for table, rows in ((5, TABLE_5), (6, TABLE_6)):
        for method, printed in rows.items():
            recipe = rsa_recipe(table, method)
            yield DetectionRow(
                method=method,
                recipe=recipe.key,
                schedule=recipe.schedule,
                pretraining=_PRETRAINING.get(method, "200 epochs"),
                scores=_scores(DETECTION_METRICS, printed),
                source=f"RSA, Table {table}" + ("" if method == "RSA" else ", from InfoMin"),
            )


def _others() -> Iterator[DetectionRow]:
    for metrics, groups in ((DETECTION_METRICS, _COCO), (ELEVEN_POINT_METRICS, _VOC)):
        for (recipe, schedule, source), lines in groups.items():
            for line in lines:
                method, pretraining, printed = (part.strip() for part in line.split("|"))
                scores = _scores(metrics, printed)
                yield DetectionRow(method, recipe, schedule, pretraining, scores, source)


def _scores(metrics: tuple[str, ...], printed: str) -> dict[str, Score]:
    texts = zip(metrics, printed.split(), strict=True)
    return {metric: Score(text) for metric, text in texts if text != _NOTHING}


DETECTION_ROWS = (*_rsa_tables(), *_others())
"""All published detectors, in the order of their tables."""
