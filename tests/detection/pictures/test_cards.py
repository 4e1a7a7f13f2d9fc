import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detection.__main__ import main
from detection.coco.sets import CocoSet, open_coco
from detection.pictures.cards import annotated_cards, match, predicted_cards
from detection.pictures.predictions import write_predictions
from detection.recipe import Recipe
from rsa_pretrain.plumbing.config.files import write_config

Predictions = list[dict[str, Any]]

BOX = [10.0, 10.0, 20.0, 20.0]


def _entry(box: list[float], category: int = 1, **more: Any) -> dict[str, Any]:
    return {"bbox": box, "category_id": category, **more}


def test_matching_by_hand() -> None:
    """An object is taken once, by the best score; category and overlap must fit; crowds give way.

    The third box overlaps the object by 10 of 30 columns, IoU 1/3.
    """
    truth = [_entry(BOX), _entry([60.0, 60.0, 30.0, 30.0], iscrowd=1)]
    found = [
        _entry(BOX, category=2),
        _entry(BOX),
        _entry([20.0, 10.0, 20.0, 20.0]),
        _entry([11.0, 10.0, 20.0, 20.0]),
        _entry([60.0, 60.0, 10.0, 10.0]),
        _entry([62.0, 62.0, 10.0, 10.0]),
    ]
    assert match(truth, found) == [None, 0, None, None, 1, 1]
    assert match([], found) == [None] * 6
    assert match(truth, []) == []


def test_the_larger_overlap_is_taken() -> None:
    """Of two objects a detection takes the nearer one and leaves the other."""
    truth = [_entry([13.0, 10.0, 20.0, 20.0]), _entry(BOX)]
    assert match(truth, [_entry(BOX), _entry([14.0, 10.0, 20.0, 20.0])]) == [1, 0]


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
        annotated, found = (panel.things for panel in card.panels)
        assert len(found) == len(annotated) + (image["id"] == first)
        assert [thing.is_special for thing in found] == [thing.score == 0.01 for thing in found]
        assert sorted(thing.box for thing in annotated) == sorted(
            thing.box for thing in found if not thing.is_special
        )
        assert all(thing.label.endswith(f" {thing.score:.2f}") for thing in found)


def test_objects_know_the_score_that_found_them(
    shapes_test_set: CocoSet, perfect_predictions: Predictions
) -> None:
    """The page can tell at any threshold which objects are missed; one is at all, being unfound."""
    *found, _ = perfect_predictions
    cards = predicted_cards(shapes_test_set, found, 10)
    targets = [thing for card in cards for thing in card.panels[0].things]
    assert all(thing.is_target and thing.score is None for thing in targets)
    scores = [thing.found_score for thing in targets]
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
    thing = next(
        thing
        for card in predicted_cards(shapes_test_set, [prediction], 3)
        for thing in card.panels[1].things
    )
    x, y, width, height = box
    assert thing.box == pytest.approx((x, y, x + width, y + height), abs=1)


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
    (panel,) = [card.panels[1] for card in cards if card.panels[1].things]
    scores = [thing.score for thing in panel.things]
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
