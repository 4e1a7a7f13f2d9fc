"""Draw predictions beside annotations, as one page."""

from collections.abc import Sequence
from pathlib import Path

from detection.coco.evaluation import Prediction
from detection.coco.matching import MATCHING_IOU
from detection.coco.sets import CocoSet
from detection.pictures.cards import images_with_objects, predicted_cards
from detection.pictures.page import Page, write_page

_DASHED = (
    "Dashed: crowds, difficult objects, objects missed by the predictions shown, and predictions "
    f"without an object (same category, box IoU at least {MATCHING_IOU:g})"
)
_UNANNOTATED = "Without annotations, predictions cannot be judged"
_BARE = {True: "with neither annotations nor detections", False: "without detections"}


def write_predictions(
    path: Path,
    title: str,
    coco: CocoSet,
    predictions: Sequence[Prediction],
    *,
    num_images: int,
    min_score: float,
) -> None:
    """Write the page.

    Args:
        path: HTML file to write.
        title: Of the page.
        coco: The annotated set, or the images alone.
        predictions: With the set's ids.
        num_images: Maximum number to draw, spread evenly.
        min_score: Initial score threshold of the page.
    """
    cards = predicted_cards(coco, predictions, num_images)
    names = coco.category_names
    shown = f"{len(cards)} of {len(coco.images):,} images of {coco.annotations_path.name}"
    num_bare = len(coco.images) - len(images_with_objects(coco, predictions))
    if num_bare:
        shown += f"; {num_bare:,} {_BARE[coco.is_annotated]} left out"
    page = Page(
        title=title,
        subtitle=f"{shown}. {_DASHED if coco.is_annotated else _UNANNOTATED}",
        categories=[names[number] for number in coco.category_ids],
        threshold=min_score,
    )
    write_page(page, cards, path)
