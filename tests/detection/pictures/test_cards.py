import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detection.__main__ import main
from detection.coco.sets import CocoSet, open_coco
from detection.pictures.cards import annotated_cards, predicted_cards
from detection.pictures.predictions import write_predictions
from detection.recipe.recipe import Recipe
from rsa_pretrain.plumbing.config.files import write_config

Predictions = list[dict[str, Any]]


def test_predictions_stand_beside_annotations(
    shapes_test_set: CocoSet, perfect_predictions: Predictions
) -> None:
    """Perfect detections are drawn as the annotations are, with scores; a wrong one is marked."""
    predictions = perfect_predictions
    first = predictions[0]["image_id"]
    wrong = {**predictions[0], "bbox": [0.0, 0.0, 5.0, 5.0], "score": 0.01}
    cards = predicted_cards(shapes_test_set, [*predictions, wrong], 10)
    assert len(cards) == 3
    for image, card in zip(shapes_test_set.images, cards, strict=True):
        annotated, found = (panel.objects for panel in card.panels)
        assert len(found) == len(annotated) + (image["id"] == first)
        assert [drawn.is_special for drawn in found] == [drawn.score == 0.01 for drawn in found]
        assert sorted(drawn.box for drawn in annotated) == sorted(
            drawn.box for drawn in found if not drawn.is_special
        )
        assert all(drawn.label.endswith(f" {drawn.score:.2f}") for drawn in found)


def test_objects_know_the_score_that_found_them(
    shapes_test_set: CocoSet, perfect_predictions: Predictions
) -> None:
    """The page can tell at any threshold which objects are missed; one is at all, being unfound."""
    *found, _ = perfect_predictions
    cards = predicted_cards(shapes_test_set, found, 10)
    targets = [drawn for card in cards for drawn in card.panels[0].objects]
    assert all(drawn.is_target and drawn.score is None for drawn in targets)
    scores = [drawn.found_score for drawn in targets]
    assert scores.count(None) == 1
    assert sorted(score for score in scores if score is not None) == sorted(
        entry["score"] for entry in found
    )


def test_masks_alone_have_boxes_drawn_around_them(
    shapes_test_set: CocoSet, perfect_predictions: Predictions
) -> None:
    """A prediction without bbox gets the mask's box, within a pixel of the annotation's."""
    (prediction, *_) = perfect_predictions
    box = prediction.pop("bbox")
    drawn = next(
        drawn
        for card in predicted_cards(shapes_test_set, [prediction], 3)
        for drawn in card.panels[1].objects
    )
    x, y, width, height = box
    assert drawn.box == pytest.approx((x, y, x + width, y + height), abs=1)


def test_images_are_spread(shapes_test_set: CocoSet) -> None:
    """Fewer cards than images are taken at equal distances; images that cannot be read are not."""
    names = [image["file_name"] for image in shapes_test_set.images]
    assert [card.title for card in annotated_cards(shapes_test_set, {1, 2, 3}, 2)] == names[:2]
    assert [card.title for card in annotated_cards(shapes_test_set, {3}, 2)] == names[2:]


@pytest.mark.parametrize(
    ("absent", "said"),
    [
        ([], "3 of 4 images of images.json; 1 with neither annotations nor detections left out. "),
        (
            ["annotations"],
            "1 of 4 images of images.json; 3 without detections left out. Without annotations",
        ),
    ],
)
def test_images_left_out_are_counted(
    shapes_test_set: CocoSet,
    perfect_predictions: Predictions,
    tmp_path: Path,
    absent: list[str],
    said: str,
) -> None:
    """A page states how many images it omits because there is nothing to draw in them."""
    tree = shapes_test_set.tree
    images = [*tree["images"], {**tree["images"][0], "id": 999}]
    tree = {key: value for key, value in {**tree, "images": images}.items() if key not in absent}
    path, page = tmp_path / "images.json", tmp_path / "page.html"
    path.write_text(json.dumps(tree), encoding="utf-8")
    coco = open_coco(path, shapes_test_set.images_dir, needs_annotations=False)
    write_predictions(page, "own", coco, perfect_predictions[:1], num_images=9, min_score=0.5)
    assert said in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("count", "drawn", "title"),
    [(150, 150, "found"), (1500, 1000, "highest of 1,500 found:")],
)
def test_the_highest_are_drawn(
    shapes_test_set: CocoSet,
    perfect_predictions: Predictions,
    count: int,
    drawn: int,
    title: str,
) -> None:
    """All of a detector that keeps many; of a file without end 1,000, and the drawing says so."""
    (prediction, *_) = perfect_predictions
    many = [{**prediction, "score": number / 2000} for number in range(count)]
    cards = predicted_cards(shapes_test_set, many, 3)
    (panel,) = [card.panels[1] for card in cards if card.panels[1].objects]
    scores = [drawn.score for drawn in panel.objects]
    assert scores == [number / 2000 for number in reversed(range(count - drawn, count))]
    assert panel.title == title


def test_visualize_draws_a_run(
    make_recipe: Callable[..., Recipe], result_files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Annotations and images default to those of the run folder."""
    recipe = make_recipe()
    write_config(recipe, recipe.output_dir / "config.yaml")
    (recipe.output_dir / "predictions.json").write_bytes(Path(result_files[1]).read_bytes())
    page = recipe.output_dir / "page.html"
    words = ["visualize", str(recipe.output_dir), str(page), "--num-images", "2"]
    assert main([*words, "--min-score", "0.3"]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.count("<article") == 2
    assert text.count("<figure") == 4
    assert 'value="0.3"' in text
    assert "://" not in text
