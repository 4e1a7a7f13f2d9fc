"""``rsa-detect evaluate``: compute average precision of a file of predictions."""

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detection.commands.data_words import data_of_config
from rsa_pretrain.plumbing.command_line import Commands, positive, say
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.text_table import render_table

if TYPE_CHECKING:
    from detection.coco.evaluation import Evaluation, Prediction

_log = logging.getLogger(__name__)


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    from detection.coco.evaluation import COCO_MAX_DETECTIONS

    parser = commands.add_parser(
        "evaluate",
        description="Compare predictions of any detector, in COCO's result format, with\n"
        "annotations, and print COCO's metrics and AP by category, in percent. Boxes are compared\n"
        "if every prediction has a bbox, masks if every one has a segmentation. Sizes and\n"
        "categories without objects show a dash. For PASCAL VOC's folders VOC's own AP follows:\n"
        "of VOC2007's eleven recalls (voc), and the area of 2010 and later (voc_area).",
        epilog="examples:\n"
        "  rsa-detect evaluate instances_val2017.json runs/coco/predictions.json\n"
        "  rsa-detect evaluate data/voc0712 found.json\n"
        "  rsa-detect evaluate cells.json found.json --max-detections 300",
    )
    parser.add_argument(
        "annotations",
        metavar="ANNOTATIONS.json|CONFIG",
        type=Path,
        help="COCO-format annotations, or a config, whose test set is taken",
    )
    parser.add_argument(
        "predictions", metavar="PREDICTIONS.json", type=Path, help="image_id, category_id, score, …"
    )
    parser.add_argument(
        "--max-detections",
        metavar="N",
        type=positive,
        default=COCO_MAX_DETECTIONS,
        help="number of highest-scoring detections that count per image and category (default "
        f"{COCO_MAX_DETECTIONS}, as in COCO's metrics)",
    )
    parser.add_argument(
        "--intervals",
        action="store_true",
        help="also print 95 %% intervals over images, by bootstrap (on COCO: a few minutes)",
    )
    parser.set_defaults(command=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> int:
    from detection.coco.evaluation import COCO_MAX_DETECTIONS, METRICS, evaluate_in_detail
    from detection.coco.results import iou_types_of, read_predictions
    from detection.coco.sets import check_objects, mask_gap
    from detection.coco.voc.evaluation import VOC_KINDS, with_voc_metrics

    if arguments.max_detections < COCO_MAX_DETECTIONS:
        raise UserError(
            f"--max-detections: expected {COCO_MAX_DETECTIONS} or more, found "
            f"{arguments.max_detections}: COCO's metrics count {COCO_MAX_DETECTIONS}, "
            "even if a detector keeps fewer"
        )
    tree, is_voc = _open(arguments.annotations)
    check_objects(arguments.annotations, tree)
    predictions = read_predictions(arguments.predictions, tree)
    kinds = iou_types_of(predictions)
    if not kinds:
        raise UserError(
            f"some predictions of '{arguments.predictions}' have only a bbox, others only "
            "a segmentation; split the file"
        )
    gap = mask_gap(tree) if "segm" in kinds else None
    if gap is not None:
        kinds.remove("segm")
        if not kinds:
            raise UserError(
                f"'{arguments.annotations}': {gap}; AP of masks needs them all: add them, or "
                "evaluate boxes by giving each prediction a bbox"
            )
        say(f"masks are not evaluated: {gap}\n")
    evaluation = evaluate_in_detail(tree, predictions, kinds, arguments.max_detections)
    voc_kinds = VOC_KINDS if is_voc and "bbox" in kinds else ()
    if voc_kinds:
        evaluation = with_voc_metrics(evaluation, tree, predictions)
    for note in evaluation.notes:
        _log.warning("%s", note)
    rows = [
        [kind, *(_printed(evaluation.metrics.get(f"{kind}_{name}")) for name in METRICS)]
        for kind in (*kinds, *voc_kinds)
    ]
    if arguments.intervals:
        rows += _intervals(tree, predictions, kinds, arguments.max_detections)
    say(render_table(("", *METRICS), rows, numeric=METRICS))
    say("")
    say(_table_by_category(evaluation, [*_keys("AP", kinds), *_keys("AP50", voc_kinds)]))
    found = len({prediction["image_id"] for prediction in predictions})
    say(f"\n{len(predictions):,} predictions on {found:,} of {len(tree['images']):,} images")
    return 0


def _keys(name: str, kinds: Sequence[str]) -> list[str]:
    return [f"{kind}_{name}" for kind in kinds]


def _table_by_category(evaluation: "Evaluation", metrics: Sequence[str]) -> str:
    rows = [
        [entry["name"], entry["num_objects"], *(_printed(entry[metric]) for metric in metrics)]
        for entry in evaluation.by_category
    ]
    columns = [" ".join(metric.rsplit("_", 1)) for metric in metrics]
    return render_table(("category", "objects", *columns), rows)


def _open(source: Path) -> tuple[dict[str, Any], bool]:
    """Return the annotations' content, and whether they are PASCAL VOC's."""
    data = data_of_config(source)
    if data is None:
        from detection.coco.sets import read_sound_tree

        return read_sound_tree(source), False
    from detection.coco.opening import read_sound

    return read_sound(data, "test").tree, data.format == "voc"


def _intervals(
    tree: Mapping[str, Any],
    predictions: Sequence["Prediction"],
    kinds: Sequence[str],
    max_detections: int,
) -> list[list[str | None]]:
    """Return a row of 95 % intervals for each IoU type."""
    from detection.coco.evaluation import METRICS
    from detection.coco.matches import matches_of
    from rsa_eval.records.detection_predictions import DetectionPredictions

    kept = DetectionPredictions.of(
        {kind: matches_of(tree, predictions, kind, max_detections) for kind in kinds}
    )
    rows: list[list[str | None]] = []
    for kind in kinds:
        found = [kept.interval(f"{kind}_{name}") for name in METRICS]
        bounds = [own and f"[{own[0].low:.1f}, {own[0].high:.1f}]" for own in found]
        rows.append([f"{kind} 95 %", *bounds])
    return rows


def _printed(value: float | None) -> str | None:
    return None if value is None else f"{value:5.2f}"
