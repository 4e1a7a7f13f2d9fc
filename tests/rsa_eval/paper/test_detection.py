from collections.abc import Sequence
from pathlib import Path

import pytest
from recipe_trees import recipe_tree

from rsa_eval.paper.detection import (
    DETECTION_ROWS,
    ELEVEN_POINT_METRICS,
    DetectionRow,
    detection_rows,
)
from rsa_eval.paper.detection_recipes import (
    PUBLISHED_RECIPES,
    RECIPE_FINGERPRINTS,
    describe_recipe,
    follows_config,
    rsa_recipe,
)
from rsa_eval.paper.numbers import DETECTION_METRICS
from rsa_eval.records.detection_recipe import RecipeIdentity, recipe_fingerprint

CONFIGS = Path(__file__).parents[3] / "configs" / "detection"
MSRA = "ImageNet, MSRA's network (BGR, stride in the 1x1)"
ONE, TWO = "mask_rcnn_R_50_FPN_1x", "mask_rcnn_R_50_FPN_2x"
INFOMIN_TWO = "infomin_mask_rcnn_R_50_FPN_2x"


def _recipe(config: str, *words: str) -> RecipeIdentity:
    found = recipe_fingerprint(recipe_tree(config, *words))
    assert found is not None
    return RecipeIdentity(config, found, found)


def _rows(recipe: str, schedule: str, source: str) -> list[DetectionRow]:
    return [
        row
        for row in DETECTION_ROWS
        if (row.recipe, row.schedule) == (recipe, schedule) and row.source.startswith(source)
    ]


def _texts(row: DetectionRow, metrics: Sequence[str]) -> str:
    return " ".join(row.scores[name].text if name in row.scores else "–" for name in metrics)


@pytest.mark.parametrize("name", RECIPE_FINGERPRINTS)
def test_fingerprints_are_those_of_the_shipped_configs(name: str) -> None:
    """If a config changes, earlier results no longer belong to it."""
    assert recipe_fingerprint(recipe_tree(name)) == RECIPE_FINGERPRINTS[name]


def test_every_shipped_config_has_a_fingerprint() -> None:
    """Each its own, and the published recipes are among them."""
    shipped = {path.stem for path in CONFIGS.glob("*.yaml")}
    named = {name for name in shipped if not name.startswith(("base_", "toy_"))}
    assert named == RECIPE_FINGERPRINTS.keys()
    assert len(set(RECIPE_FINGERPRINTS.values())) == len(RECIPE_FINGERPRINTS)
    assert {recipe.config for recipe in PUBLISHED_RECIPES} - {None} <= RECIPE_FINGERPRINTS.keys()


def test_rsas_rate_makes_another_recipe_for_two_schedules() -> None:
    """At 1x both are at 0.02; at 2x RSA's is 0.03 (its Section 4.4), InfoMin's still 0.02."""
    assert rsa_recipe(5, "RSA").fingerprint == rsa_recipe(5, "PIRL").fingerprint
    assert rsa_recipe(6, "RSA").config == TWO
    assert rsa_recipe(6, "PIRL").config == INFOMIN_TWO
    rates = [recipe_tree(name)["solver"]["base_lr"] for name in (ONE, TWO, INFOMIN_TWO)]
    assert rates == [0.02, 0.03, 0.02]


def test_every_row_has_a_recipe_and_a_source() -> None:
    """Recipes are listed once, and every row is of one of them."""
    keys = [(recipe.key, recipe.schedule) for recipe in PUBLISHED_RECIPES]
    assert len(keys) == len(set(keys))
    for row in DETECTION_ROWS:
        assert (row.recipe, row.schedule) in keys
        assert row.source
        metrics = ELEVEN_POINT_METRICS if "voc" in row.recipe else DETECTION_METRICS
        assert row.scores
        assert set(row.scores) <= set(metrics)
        assert row.setting.startswith(f"{row.recipe} {row.schedule}")
        assert row.setting.endswith("AP by 11 points") == ("voc" in row.recipe)
        assert all(10 < score.mean < 90 for score in row.scores.values())


def test_average_precision_falls_with_the_overlap() -> None:
    """AP50 is above AP, and so is AP75 in all rows but random weights'."""
    for row in DETECTION_ROWS:
        for kind in ("bbox", "segm", "voc"):
            points = [row.scores.get(f"{kind}_{name}") for name in ("AP50", "AP75", "AP")]
            if all(points) and row.method != "random init.":
                values = [point.mean for point in points if point]
                assert values == sorted(values, reverse=True)


@pytest.mark.parametrize(
    ("schedule", "printed"),
    [
        (
            "1x",
            "random init. 32.8 29.9, supervised 39.7 35.9, InstDis 38.8 35.2, PIRL 38.6 35.1, "
            "MoCo 39.4 35.6, InfoMin Aug. 40.6 36.7",
        ),
        (
            "2x",
            "random init. 38.4 34.7, supervised 41.6 37.6, InstDis 41.3 37.3, PIRL 41.2 37.4, "
            "MoCo 41.7 37.5, MoCo v2 41.7 37.6, InfoMin Aug. 42.5 38.4",
        ),
    ],
)
def test_infomins_readme_has_the_baselines_of_the_rsa_paper(schedule: str, printed: str) -> None:
    """Box and mask AP, copied from PyContrast's README, which lacks MoCo v2 at 1x."""
    rows = _rows("infomin-fpn", schedule, "RSA")
    found = [
        f"{row.method} {row.scores['bbox_AP'].text} {row.scores['segm_AP'].text}"
        for row in rows
        if (row.method, schedule) != ("MoCo v2", "1x")
    ]
    assert ", ".join(found) == printed


def test_simsiams_table_5() -> None:
    """Copied again in its columns: VOC 07+12 and COCO, each AP50, AP, AP75, then masks."""
    printed = {
        "random init.": "60.2 33.8 33.1 44.0 26.4 27.8 46.9 29.3 30.8",
        "SimCLR": "81.8 55.5 61.4 57.7 37.9 40.9 54.6 33.3 35.3",
        "MoCo v2": "82.3 57.0 63.3 58.8 39.2 42.5 55.5 34.3 36.6",
        "BYOL": "81.4 55.3 61.1 57.8 37.9 40.9 54.3 33.2 35.0",
        "SwAV": "81.5 55.4 61.4 57.6 37.6 40.3 54.2 33.1 35.1",
        "SimSiam, base": "82.0 56.4 62.8 57.5 37.9 40.9 54.2 33.2 35.2",
        "SimSiam, optimal": "82.4 57.0 63.7 59.3 39.2 42.1 56.0 34.4 36.7",
    }
    columns = [
        f"{kind}_{name}" for kind in ("voc", "bbox", "segm") for name in ("AP50", "AP", "AP75")
    ]
    rows: dict[str, dict[str, str]] = {}
    for row in DETECTION_ROWS:
        if row.source == "SimSiam, Table 5" and row.method != "supervised":
            texts = {metric: score.text for metric, score in row.scores.items()}
            rows.setdefault(row.method, {}).update(texts)
    assert {name: " ".join(row[key] for key in columns) for name, row in rows.items()} == printed


@pytest.mark.parametrize(
    ("recipe", "source", "method", "pretraining", "printed"),
    [
        ("voc-c4", "MoCo's", "supervised", MSRA, "81.3 53.5 58.8"),
        ("voc-c4", "MoCo's", "MoCo", "200 epochs", "81.5 55.9 62.6"),
        ("voc-c4", "MoCo's", "MoCo v2", "200 epochs", "82.4 57.0 63.6"),
        ("voc-c4", "MoCo's", "MoCo v2", "800 epochs", "82.5 57.4 64.0"),
        ("voc-c4", "DenseCL's", "MoCo v2", "200 epochs", "57.0 – –"),
        ("voc-c4", "DenseCL's", "MoCo v2", "800 epochs on COCO", "54.7 – –"),
        ("voc-c4", "DenseCL's", "DenseCL", "200 epochs", "58.7 – –"),
        ("voc-c4", "DenseCL's", "DenseCL", "800 epochs on COCO", "56.7 – –"),
        ("voc-c4", "DenseCL's", "DenseCL", "1600 epochs on COCO", "57.2 – –"),
        ("voc-c4", "DenseCL's", "supervised", "ImageNet", "54.2 – –"),
        ("pirl-voc-c4", "PIRL", "PIRL", "800 epochs", "80.7 54.0 59.7"),
        ("pirl-voc-c4", "PIRL", "supervised", "ImageNet", "81.1 52.6 57.4"),
    ],
)
def test_voc_rows(recipe: str, source: str, method: str, pretraining: str, printed: str) -> None:
    """AP50, AP and AP75, copied again from MoCo's README and PIRL's Table 1; DenseCL prints AP."""
    (row,) = (
        row
        for row in DETECTION_ROWS
        if row.recipe == recipe
        and row.source.startswith(source)
        and (row.method, row.pretraining) == (method, pretraining)
    )
    names = ("AP", "AP50", "AP75") if source == "DenseCL's" else ("AP50", "AP", "AP75")
    assert _texts(row, [f"voc_{name}" for name in names]) == printed


@pytest.mark.parametrize(
    ("recipe", "schedule", "source", "method", "printed"),
    [
        ("moco-fpn", "2x", "MoCo, Table 5b", "supervised", "40.6 – 44.4 36.8 – 39.5"),
        ("moco-fpn", "2x", "MoCo, Table 5b", "MoCo", "40.8 – 44.7 36.9 – 39.7"),
        ("moco-c4", "1x", "SimSiam", "supervised", "38.2 58.2 41.2 33.3 54.7 35.2"),
        ("moco-c4", "1x", "PyContrast's", "MoCo", "38.5 – – 33.6 – –"),
        ("moco-c4", "1x", "PyContrast's", "InfoMin Aug.", "39.0 – – 34.1 – –"),
        ("moco-c4", "2x", "PyContrast's", "supervised", "40.0 – – 34.7 – –"),
        ("moco-c4", "2x", "PyContrast's", "MoCo", "40.7 – – – – –"),
        ("moco-c4", "2x", "PyContrast's", "InfoMin Aug.", "41.3 – – 36.0 – –"),
        ("detectron2-fpn", "1x", "detectron2's", "supervised", "38.6 – – 35.2 – –"),
    ],
)
def test_coco_rows(recipe: str, schedule: str, source: str, method: str, printed: str) -> None:
    """AP, AP50 and AP75 of boxes, then of masks: a slip in one place shows in the other."""
    (row,) = (row for row in _rows(recipe, schedule, source) if row.method == method)
    assert _texts(row, DETECTION_METRICS) == printed


def test_one_method_stands_with_each_of_its_recipes() -> None:
    """MoCo v2 by its authors' recipe, which is DenseCL's on VOC, by InfoMin's and by SimSiam's."""
    found = {
        (row.recipe, next(iter(row.scores.values())).text)
        for row in DETECTION_ROWS
        if (row.method, row.pretraining) == ("MoCo v2", "200 epochs")
    }
    assert found == {
        ("infomin-fpn", "40.1"),
        ("infomin-fpn", "41.7"),
        ("simsiam-c4", "39.2"),
        ("voc-c4", "57.0"),
        ("simsiam-voc-c4", "57.0"),
    }


@pytest.mark.parametrize(
    ("config", "words", "methods"),
    [
        (ONE, [], 8),
        (TWO, [], 1),
        (INFOMIN_TWO, [], 7),
        (TWO, ["solver.base_lr=0.02"], 7),  # by its settings, whatever its name
        (ONE, ["seed=5", "engine=torchvision", "training.precision=bf16"], 8),
        (ONE, ["solver.batch_size=8"], 0),
        ("moco_mask_rcnn_R_50_FPN_1x", [], 0),  # no number could be read in its source
        ("moco_mask_rcnn_R_50_FPN_2x", [], 2),
        ("moco_mask_rcnn_R_50_C4_1x", [], 4),
        ("moco_mask_rcnn_R_50_C4_2x", [], 3),
        ("toy_shapes", [], 0),
    ],
)
def test_rows_beside_a_recipe_are_of_that_recipe(
    config: str, words: list[str], methods: int
) -> None:
    """InfoMin's baselines and RSA at 1x; at 2x one or the other by the rate; else none."""
    rows = detection_rows(_recipe(config, *words))
    assert len(rows) == methods
    assert ("RSA" in {row.method for row in rows}) == (methods in (8, 1))


def test_nothing_stands_beside_an_unknown_recipe() -> None:
    """Recipes without a shipped config have no fingerprint either."""
    assert detection_rows(None) == []
    assert detection_rows(RecipeIdentity(ONE, None, "unknown")) == []
    unshipped = "moco_not_shipped"
    assert not follows_config(RecipeIdentity(unshipped, None, "unknown"), unshipped)


def test_changed_settings_under_a_shipped_name_are_said() -> None:
    """The name alone would look like the shipped recipe."""
    shipped, changed = _recipe(ONE), _recipe(ONE, "solver.base_lr=0.01")
    assert describe_recipe(shipped) == f"{ONE} [{RECIPE_FINGERPRINTS[ONE]}]"
    assert describe_recipe(changed) == (
        f"{ONE} [{changed.fingerprint}], other settings than the config's "
        f"[{RECIPE_FINGERPRINTS[ONE]}]"
    )
    assert follows_config(shipped, ONE)
    assert not follows_config(changed, ONE)
    renamed = RecipeIdentity("mine", shipped.fingerprint, shipped.key)
    assert not follows_config(renamed, ONE)
    assert describe_recipe(_recipe("toy_shapes")).startswith("toy_shapes [")
    assert "other settings" not in describe_recipe(_recipe("toy_shapes"))
    unknown = RecipeIdentity(ONE, None, "unknown 0123abcd")
    assert describe_recipe(unknown) == f"{ONE} [unknown recipe]"
