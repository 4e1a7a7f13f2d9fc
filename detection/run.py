"""Run a detection recipe from training to its record.

A run folder contains

    config.yaml                      every setting, resolved
    metrics.jsonl, tensorboard/      losses, rate, and average precision during training
    checkpoints/                     the engine's, of the whole detector and its trainer; and, if
                                     it is evaluated during training, its best weights so far
    predictions.json                 at the end: test detections in COCO's result format
    records/detection.json           at the end: average precision, also by category
    .lock                            locked while a process trains or evaluates
"""

import json
import logging
import os
import signal
import time
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from detection.coco.evaluation import Evaluation, Prediction, headline
from detection.coco.matches import image_keys, matches_of
from detection.engines import Engine, load_engine
from detection.job.best import SELECTED, Best, keep_best, read_best
from detection.job.evaluations import best_of, evaluate_run
from detection.job.job import Job, open_job
from detection.job.run_checkpoints import newest_checkpoint
from detection.job.trunk import Trunk, load_trunk, random_trunk
from detection.recipe.recipe import (
    DETECTOR_NEUTRAL_KEYS,
    DETECTOR_SPEED_SETTINGS,
    PREDICTIONS_FILE,
    RECORD_FILE,
    Recipe,
)
from rsa_eval.records.detection_predictions import DetectionPredictions
from rsa_eval.records.detection_recipe import (
    RECIPE_FINGERPRINT,
    recipe_fingerprint,
    with_network,
)
from rsa_eval.records.image_sets import ANNOTATIONS_SHA256
from rsa_eval.records.make import save_record
from rsa_eval.records.record import Metric, Record, Result, read_record
from rsa_pretrain.config import CONFIG_FILE
from rsa_pretrain.plumbing.atomic_files import remove_leftovers, write_text
from rsa_pretrain.plumbing.config.files import flatten, load_config, to_tree, write_config
from rsa_pretrain.plumbing.device import describe_hardware, resolve_device
from rsa_pretrain.plumbing.distributed import is_main, min_over_ranks, process_group, wait_for_all
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.folder_lock import LOCK_FILE, folder_lock
from rsa_pretrain.plumbing.metrics_log import METRICS_FILE, MetricsLog, read_metrics
from rsa_pretrain.plumbing.stop_signal import StopSignal, exit_code

_log = logging.getLogger(__name__)


def run_recipe(
    recipe: Recipe, trunk: Trunk, *, resume: bool, departures: Sequence[str] = ()
) -> tuple[int, Record | None]:
    """Train, detect, evaluate and write the record.

    Args:
        recipe: The run.
        trunk: Initial weights of the detector's backbone.
        resume: Continue the run in ``output_dir``.
        departures: Departures from the recipe as written, noted in the record.

    Returns:
        The exit code, and the record in the main process unless a signal stopped the run.

    Raises:
        UserError: If the engine, the data, the device, the folder or the run to resume cannot be
            used.
    """
    engine = load_engine(recipe.engine)
    with process_group(resolve_device(recipe.training.device)):
        return _run(engine, recipe, trunk, resume, departures)


def run_from_backbone(path: Path, overrides: Sequence[str], start: Path | None) -> int:
    """Run or resume a recipe as written but for its speed; do nothing if its result is recorded.

    Args:
        path: YAML file.
        overrides: ``key=value`` words: the seed, settings that do not change the result, and speed
            settings, which the record notes.
        start: Any checkpoint that ``load_trunk`` accepts; None starts from random weights.

    Returns:
        0, or 128 + the number of the signal that stopped it.

    Raises:
        UserError: If an override would make this another run, or as ``run_recipe``.
    """
    recipe = load_config(Recipe, path, overrides)
    written = load_config(Recipe, path).model_copy(update={"seed": recipe.seed})
    changed = _changes(written, recipe, DETECTOR_NEUTRAL_KEYS | DETECTOR_SPEED_SETTINGS)
    if changed:
        raise UserError(
            f"'{path}' becomes another run with {', '.join(changed)}; use 'rsa-detect train'"
        )
    if start is None:
        trunk = random_trunk(recipe.model, recipe.seed)
    else:
        trunk = load_trunk(start, recipe.model)
    _check_folder(recipe, resume=True)
    if _is_recorded(recipe, trunk):
        _tell_other_places(recipe)
        return 0
    return run_recipe(recipe, trunk, resume=True, departures=_speed_departures(written, recipe))[0]


def _run(
    engine: Engine, recipe: Recipe, trunk: Trunk, resume: bool, departures: Sequence[str]
) -> tuple[int, Record | None]:
    _check_folder(recipe, resume)
    job = open_job(recipe, trunk, departures)
    engine.check(job)
    with folder_lock(recipe.output_dir):
        _check_folder(recipe, resume)  # which another run may have used meanwhile
        return _run_alone(engine, recipe, job)


def _run_alone(engine: Engine, recipe: Recipe, job: Job) -> tuple[int, Record | None]:
    """Run a job, of a recipe as it is written, in a folder that no other run writes to."""
    run_dir = recipe.output_dir
    newest = newest_checkpoint(run_dir)
    if newest is None and (run_dir / RECORD_FILE).is_file():
        raise UserError(
            f"'{run_dir}' contains a finished run ({RECORD_FILE}) without its checkpoints, which "
            "resuming needs and a new run would replace; set another output_dir"
        )
    wait_for_all()  # every process has seen the folder unchanged
    if is_main():
        write_config(recipe, run_dir / CONFIG_FILE)
        remove_leftovers(run_dir / "checkpoints")
        remove_leftovers((run_dir / engine.BEST_FILE).parent)
    with StopSignal() as stop:
        detector = engine.train(job, run_dir, newest, stop)
    received = -min_over_ranks(-(stop.received or 0))
    if received:
        return exit_code(signal.Signals(received)), None
    started = time.monotonic()
    predictions = engine.predict(detector, job)
    if not is_main():
        return 0, None
    write_text(run_dir / PREDICTIONS_FILE, json.dumps(predictions) + "\n")
    evaluation = evaluate_run(job, predictions)
    best = _settle_best(engine, detector, job, evaluation)
    record = save_record(
        _describe(recipe, job, engine, evaluation, best, predictions),
        run_dir / RECORD_FILE,
        kind="detection",
        protocol=recipe.name,
        data_set=recipe.data.name,
        model=job.trunk.subject,
        config=recipe,
        seed=recipe.seed,
        hardware=describe_hardware(job.device),
        seconds=time.monotonic() - started,
    )
    _log_result(record, run_dir, recipe.solver.schedule.iterations)
    return 0, record


def _settle_best(engine: Engine, detector: Any, job: Job, evaluation: Evaluation) -> Best | None:
    """Include the final weights in the comparison; return the best if any were kept."""
    recipe = job.recipe
    run_dir, step = recipe.output_dir, recipe.solver.schedule.iterations
    file = run_dir / engine.BEST_FILE
    if recipe.training.evaluate_every_iterations is not None or file.is_file():
        save = partial(engine.save_weights, detector, job)
        keep_best(file, best_of(evaluation, step), save)
    return read_best(file)


def _describe(
    recipe: Recipe,
    job: Job,
    engine: Engine,
    evaluation: Evaluation,
    best: Best | None,
    predictions: Sequence[Prediction],
) -> Result:
    written = with_network(to_tree(recipe), job.trunk.backbone)  # as written, not as it ran
    details: dict[str, Any] = {
        "engine": recipe.engine,
        RECIPE_FINGERPRINT: recipe_fingerprint(written),
        ANNOTATIONS_SHA256: {"train": job.train_sha256, "test": job.test_sha256},
        "num_predictions": len(predictions),
    }
    _log.info("matching detections with objects, for intervals over test images")
    limit = job.recipe.sampling.detections_per_image
    kept = DetectionPredictions.of(
        {kind: matches_of(job.test_set.tree, predictions, kind, limit) for kind in job.iou_types}
    )
    if best is not None:
        details |= {
            "best_step": best.step,
            "best_AP": best.value,
            "best_metric": best.metric,
            "best_file": str(engine.BEST_FILE),
            "best_note": SELECTED,
        }
    return Result(
        metrics={name: Metric(value=value, unit="%") for name, value in evaluation.metrics.items()},
        headline=headline(evaluation.metrics),
        num_samples=len(job.test_set.images),
        details=details | {"categories": evaluation.by_category},
        predictions=kept,
        deviations=[*job.deviations, *engine.DIFFERENCES_FROM_DETECTRON2, *evaluation.notes],
        test_keys=image_keys(job.test_set.tree),
    )


def _log_result(record: Record, run_dir: Path, step: int) -> None:
    """Log the final average precision; a run resumed at its end has already done so."""
    path = run_dir / METRICS_FILE
    if path.exists() and any(
        line["step"] == step and record.headline in line for line in read_metrics(path)
    ):
        return
    with MetricsLog(run_dir, step) as log:
        log.write(step, {name: metric.value for name, metric in record.metrics.items()})


def _check_folder(recipe: Recipe, resume: bool) -> None:
    """Refuse a folder that contains another run; one without a run starts at step 0."""
    run_dir = recipe.output_dir
    path = run_dir / CONFIG_FILE
    if not resume or not path.is_file():
        if run_dir.exists() and (not run_dir.is_dir() or set(os.listdir(run_dir)) - {LOCK_FILE}):
            raise UserError(
                f"'{run_dir}' exists and is not an empty folder; "
                "add --resume to continue its run, or set another output_dir"
            )
        return
    changed = _changes(load_config(Recipe, path), recipe)
    if changed:
        raise UserError(
            f"cannot resume '{run_dir}' with other settings: {', '.join(changed)}; restore them or "
            "set another output_dir"
        )


def _speed_departures(written: Recipe, recipe: Recipe) -> list[str]:
    """List the speed settings that differ from the recipe as written, with both values."""
    planned, chosen = flatten(to_tree(written)), flatten(to_tree(recipe))
    return [
        f"{key} {chosen[key]} (recipe: {planned[key]})"
        for key in sorted(DETECTOR_SPEED_SETTINGS)
        if chosen[key] != planned[key]
    ]


def _changes(
    before: Recipe, now: Recipe, may_differ: Collection[str] = DETECTOR_NEUTRAL_KEYS
) -> list[str]:
    """List the changed settings that affect the result, as ``key (was …, now …)``."""
    old, new = flatten(to_tree(before)), flatten(to_tree(now))
    return [
        f"{key} (was {old.get(key)!r}, now {new.get(key)!r})"
        for key in sorted(old.keys() | new.keys())
        if key not in may_differ and old.get(key) != new.get(key)
    ]


def _tell_other_places(recipe: Recipe) -> None:
    """Warn if the record that is kept was made with images in other places."""
    before = load_config(Recipe, recipe.output_dir / CONFIG_FILE).data
    for name in before.PLACES:
        place = getattr(before, name)
        if place != getattr(recipe.data, name):
            _log.warning(
                "'%s' was made with data.%s '%s'; if that is different data, remake it with "
                "'rsa-detect train --resume'",
                recipe.output_dir / RECORD_FILE,
                name,
                place,
            )


def _is_recorded(recipe: Recipe, trunk: Trunk) -> bool:
    """Return whether the folder's run has ended; an unreadable record is made again."""
    path = recipe.output_dir / RECORD_FILE
    if not path.is_file():
        return False
    try:
        return read_record(path).model.sha256 == trunk.subject.sha256
    except UserError as error:
        _log.warning("%s; the record is made again", error)
        return False
