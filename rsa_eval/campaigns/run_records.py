"""Reuse a record if it matches checkpoint and settings, and make it otherwise."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rsa_eval.campaigns.outdated import why_outdated
from rsa_eval.config import EvaluationConfig, result_settings
from rsa_eval.evaluators import Evaluator, Workspace
from rsa_eval.features.networks.spec import NetworkSpec
from rsa_eval.records.record import Record, read_record
from rsa_pretrain.plumbing.config.files import Section, to_tree
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of
from rsa_pretrain.plumbing.regular_files import is_there

_log = logging.getLogger(__name__)

_MEMORY_HINT = (
    "lower batch_size (for fine-tuning: tuning.batch_size), set cache_dir=FOLDER, or train a "
    "linear probe with probe.mode=online"
)


def make_record_of(
    checkpoint: str | Path | NetworkSpec | None,
    evaluator: Evaluator,
    config: EvaluationConfig,
    path: Path,
    *,
    departures: Sequence[str] = (),
) -> Record:
    """Evaluate a checkpoint and write the record; resume a stopped evaluation.

        config = KNNConfig(data=load_run(run).data)
        record = make_record_of(run, EVALUATORS["knn"], config, run / "records" / "knn.json")

    Args:
        checkpoint: Anything ``load_subject`` takes; None for random weights.
        evaluator: The evaluator.
        config: The evaluator's settings.
        path: File of the record; the evaluation's other files go beside it.
        departures: Departures of the weights from their recipe, noted in the record beside those
            of the evaluation from its protocol.

    Raises:
        UserError: As raised by the evaluation.
    """
    from rsa_eval.features.crop import narrow_crop
    from rsa_eval.features.subject import load_subject
    from rsa_eval.records.make import save_record
    from rsa_pretrain.plumbing.device import (
        describe_hardware,
        explained_out_of_memory,
        resolve_device,
    )
    from rsa_pretrain.plumbing.distributed import is_main, process_group

    workspace, doubt = Workspace(path), narrow_crop(config.data)
    if doubt is not None:
        _log.warning("%s", doubt)
    with process_group(resolve_device(config.device)), explained_out_of_memory(_MEMORY_HINT):
        subject = load_subject(checkpoint, config)
        started = time.perf_counter()
        result = evaluator.evaluate(subject, config, workspace)
        result = replace(result, deviations=[*departures, *result.deviations])
        result = result.warned([] if doubt is None else [doubt])
        record = save_record(
            result,
            path,
            kind=evaluator.name,
            protocol=config.recorded_protocol,
            data_set=config.data_set,
            model=subject.model,
            config=config,
            seed=config.seed,
            hardware=describe_hardware(subject.device),
            seconds=time.perf_counter() - started,
        )
        if is_main():
            workspace.remove_states()  # not before: a full disk must not cost the training
    return record


def recorded(
    path: Path, sha256: str | None, config: EvaluationConfig, other_network: str | None = None
) -> Record | None:
    """Return the record at ``path`` if it is for these weights and settings.

    Args:
        path: File of the record.
        sha256: Hash of the weights; None for random weights, which the settings determine.
        config: The evaluation's settings.
        other_network: Name of a network that is none of the toolkit's.

    Returns:
        None if there is no such record or, with a warning, if the file or that of its predictions
        is unreadable, or what the evaluation reads beside weights and images has changed.
    """
    record = _read_if_whole(path)
    if record is None or _differing_keys(record, config):
        return None
    model = record.model
    is_same = model.is_random if sha256 is None else model.sha256 == sha256
    # One file may fit two networks, and equal random weights may.
    if not is_same or model.other_network != other_network:
        return None
    if record.predictions is not None:
        from rsa_eval.records.predictions import read_predictions

        try:
            read_predictions(path, record)
        except UserError as error:
            _log.warning("%s; evaluating again", error)
            return None
    reason = why_outdated(record, config)
    if reason is not None:
        _log.warning("%s, which '%s' lacks; evaluating again", reason, path)
        return None
    return record


def warn_of_other_folder(record: Record, config: EvaluationConfig, path: Path) -> None:
    """Warn if a reused record was made from images in another folder."""
    place = record.config.get("data", {}).get("root")
    if place != to_tree(config)["data"]["root"]:
        _log.warning(
            "'%s' was made from the images in '%s', not in '%s'; if these differ, delete it and "
            "rerun the command",
            path,
            place,
            config.data.root,
        )


def check_replaceable(path: Path, config: Section) -> Record | None:
    """Refuse, before any work is done, to replace a record made with other settings.

    Returns:
        The record that will be replaced; None if there is none.

    Raises:
        UserError: Names the settings that differ.
    """
    record = _read_if_whole(path)
    keys = [] if record is None else _differing_keys(record, config)
    if keys:
        raise UserError(
            f"'{path}' is a record made with other settings ({first_of(keys)}); give "
            "--out FILE.json"
        )
    return record


def _read_if_whole(path: Path) -> Record | None:
    if not is_there(path):
        return None
    try:
        return read_record(path)
    except UserError as error:
        _log.warning("%s; evaluating again", error)
        return None


def _differing_keys(record: Record, config: Section) -> list[str]:
    """Return the settings that may make the record's result differ from that of ``config``."""
    found, wanted = result_settings(record.config), result_settings(to_tree(config))
    missing = object()
    return sorted(
        key
        for key in found.keys() | wanted.keys()
        if found.get(key, missing) != wanted.get(key, missing)
    )
