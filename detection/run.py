"""One detection run from its recipe to its record.

A run folder holds

    config.yaml                      every setting, resolved
    metrics.jsonl, tensorboard/      losses, rate, and average precision on the way
    checkpoints/                     the engine's, of the whole detector and its trainer
    predictions.json                 at the end: test detections in COCO's result format
    records/detection.json           at the end: average precision, also by category
"""

import json
import signal
import time
from pathlib import Path

from detection.coco_eval import Prediction, evaluate_in_detail
from detection.engines import Engine, load_engine
from detection.job import Job, open_job
from detection.recipe import RESULT_NEUTRAL_KEYS, Recipe
from detection.trunk import Trunk
from rsa_eval.record import Metric, Record, make_record, write_record
from rsa_pretrain.atomic_files import remove_leftovers, write_text
from rsa_pretrain.config_files import flatten, load_config, to_tree, write_config
from rsa_pretrain.device import resolve_device
from rsa_pretrain.distributed import is_main, min_over_ranks, process_group, wait_for_all
from rsa_pretrain.errors import UserError
from rsa_pretrain.metrics_log import METRICS_FILE, MetricsLog, read_metrics
from rsa_pretrain.stop_signal import StopSignal, exit_code

CONFIG_FILE = "config.yaml"
PREDICTIONS_FILE = "predictions.json"
RECORD_FILE = Path("records") / "detection.json"
HEADLINE = "segm_AP"


def run_recipe(recipe: Recipe, trunk: Trunk, *, resume: bool) -> tuple[int, Record | None]:
    """Train, detect, evaluate and write the record.

    Args:
        recipe: The run.
        trunk: What the detector starts from.
        resume: Continue the run in ``output_dir``.

    Returns:
        The exit code, and the record unless a signal stopped the run; the main process's alone.

    Raises:
        UserError: If the engine, the data, the device, the folder or the run to resume cannot be
            used.
    """
    engine = load_engine(recipe.engine)
    with process_group(resolve_device(recipe.training.device)):
        return _run(engine, recipe, trunk, resume)


def _run(engine: Engine, recipe: Recipe, trunk: Trunk, resume: bool) -> tuple[int, Record | None]:
    run_dir = recipe.output_dir
    _check_folder(recipe, resume)
    job = open_job(recipe, trunk)
    wait_for_all()  # all of them see the folder as it was
    if is_main():
        write_config(recipe, run_dir / CONFIG_FILE)
        remove_leftovers(run_dir / "checkpoints")
    with StopSignal() as stop:
        detector = engine.train(job, run_dir, engine.newest_checkpoint(run_dir), stop)
    received = -min_over_ranks(-(stop.received or 0))
    if received:
        return exit_code(signal.Signals(received)), None
    started = time.monotonic()
    predictions = engine.predict(detector, job)
    if not is_main():
        return 0, None
    write_text(run_dir / PREDICTIONS_FILE, json.dumps(predictions) + "\n")
    record = _make_record(job, predictions, started, engine.DIFFERENCES_FROM_DETECTRON2)
    write_record(record, run_dir / RECORD_FILE)
    _log_result(record, run_dir, recipe.solver.schedule.iterations)
    return 0, record


def _make_record(
    job: Job, predictions: list[Prediction], started: float, differences: tuple[str, ...]
) -> Record:
    recipe = job.recipe
    evaluation = evaluate_in_detail(job.test_set.tree, predictions)
    return make_record(
        kind="detection",
        protocol=recipe.name,
        metrics={name: Metric(value=value, unit="%") for name, value in evaluation.metrics.items()},
        headline=HEADLINE,
        num_samples=len(job.test_set.images),
        data_set=recipe.data.name,
        model=job.trunk.subject,
        config=recipe,
        seeds=[recipe.seed],
        device=job.device,
        seconds=time.monotonic() - started,
        details={
            "engine": recipe.engine,
            "num_predictions": len(predictions),
            "categories": evaluation.by_category,
        },
        deviations=[*job.deviations, *differences],
    )


def _log_result(record: Record, run_dir: Path, step: int) -> None:
    """End the log's curves of average precision; a run resumed at its end has done so."""
    path = run_dir / METRICS_FILE
    if path.exists() and any(
        line["step"] == step and HEADLINE in line for line in read_metrics(path)
    ):
        return
    with MetricsLog(run_dir, step) as log:
        log.write(step, {name: metric.value for name, metric in record.metrics.items()})


def _check_folder(recipe: Recipe, resume: bool) -> None:
    """Refuse a folder that holds another run; one without a run starts at step 0."""
    run_dir = recipe.output_dir
    path = run_dir / CONFIG_FILE
    if not resume or not path.is_file():
        if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
            raise UserError(
                f"'{run_dir}' exists and is not an empty folder; "
                "add --resume to continue its run, or set another output_dir"
            )
        return
    before, now = (flatten(to_tree(config)) for config in (load_config(Recipe, path), recipe))
    changed = [
        f"{key} (was {before.get(key)!r}, now {now.get(key)!r})"
        for key in sorted(before.keys() | now.keys())
        if key not in RESULT_NEUTRAL_KEYS and before.get(key) != now.get(key)
    ]
    if changed:
        raise UserError(f"cannot resume '{run_dir}' with other settings: {', '.join(changed)}")
