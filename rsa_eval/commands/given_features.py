"""Evaluate features that were extracted elsewhere: ``--features TRAIN TEST`` of the evaluators."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rsa_eval.commands.outputs import check_record_output
from rsa_eval.config import EvaluationConfig
from rsa_eval.evaluators.given import GIVEN_EVALUATORS
from rsa_eval.features.given_settings import GivenFeaturesConfig
from rsa_eval.features.networks.spec import Checkpoint
from rsa_eval.records.record import Record
from rsa_pretrain.plumbing.config.files import flatten, load_config
from rsa_pretrain.plumbing.config.layers import COMMAND_LINE, read_layers
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of
from rsa_pretrain.plumbing.user_paths import as_text

# Settings of sections that features share with images, and that only images need.
_OF_VIEWS = ("probe.views", "probe.crop_scale", "probe.crop_ratio", "probe.flip_probability")


def add_features_option(parser: argparse.ArgumentParser, kind: str) -> None:
    """Add ``--features``, hidden where an evaluator needs images."""
    parser.add_argument(
        "--features",
        nargs=2,
        metavar=("TRAIN", "TEST"),
        type=Path,
        help="evaluate features and labels in files (.npz, .npy or .safetensors), no checkpoint; "
        "data_set=NAME names their images, num_classes=N states their classes"
        if kind in GIVEN_EVALUATORS
        else argparse.SUPPRESS,
    )


class _RefuseFeatures(argparse.Action):
    """Name the evaluators that take ``--features``."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        raise UserError(
            f"{parser.prog} needs images and networks; --features is an option of "
            f"{', '.join(GIVEN_EVALUATORS)}"
        )


def refuse_features_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--features``, hidden, to a command that cannot take it, and refuse it by name."""
    parser.add_argument("--features", nargs="*", action=_RefuseFeatures, help=argparse.SUPPRESS)


def evaluate_features(
    arguments: argparse.Namespace,
    kind: str,
    images: type[EvaluationConfig],
    checkpoints: Sequence[Checkpoint],
    overrides: Sequence[str],
) -> tuple[Record, Path, Record | None]:
    """Evaluate the features that ``--features`` names.

    Args:
        arguments: The command's.
        kind: Name of the evaluator.
        images: Its settings where it reads images, of which those of images are refused.
        checkpoints: Words of the command line that are no overrides.
        overrides: ``section.key=value`` words.

    Returns:
        The record, its file, and the record that was there before.

    Raises:
        UserError: If the evaluator needs images, a checkpoint is given as well, a setting concerns
            images, there is no ``--out``, or as raised by the evaluation.
    """
    if kind not in GIVEN_EVALUATORS:
        raise UserError(
            f"{kind} needs images and a network; evaluate a CHECKPOINT "
            f"(--features is an option of {', '.join(GIVEN_EVALUATORS)})"
        )
    if checkpoints or arguments.random_init:
        found = "--random-init" if arguments.random_init else f"'{checkpoints[0]}'"
        raise UserError(f"give --features or a checkpoint, not both; found {found}")
    if arguments.out is None:
        raise UserError("features belong to no run folder; give --out FILE.json")
    evaluator = GIVEN_EVALUATORS[kind]
    _refuse_settings_of_images(evaluator.config, images, arguments.config, overrides)
    train, test = arguments.features
    start = {"data_set": as_text(train.stem)}
    config = load_config(evaluator.config, arguments.config, overrides, start)
    former = check_record_output(arguments.out, kind)
    for path in (train, test):
        if not path.exists():  # before libraries that take seconds to import
            raise UserError(
                f"cannot read '{path}': No such file or directory; expected a .npz, .npy or "
                ".safetensors file of features"
            )

    from rsa_eval.campaigns.given_records import make_record_of_features

    record = make_record_of_features(train, test, evaluator, config, arguments.out)
    return record, arguments.out, former


def _refuse_settings_of_images(
    given: type[GivenFeaturesConfig],
    images: type[EvaluationConfig],
    configs: Sequence[Path],
    overrides: Sequence[str],
) -> None:
    """Refuse settings that would be ignored; misspelt ones are left to ``load_config``."""
    needless = images.model_fields.keys() - given.model_fields.keys()
    found = [
        key if layer.source == COMMAND_LINE else f"{key} (of {layer.source})"
        for layer in read_layers(configs, overrides)
        for key in flatten(layer.tree)
        if key.partition(".")[0] in needless or key.startswith(_OF_VIEWS)
    ]
    if found:
        raise UserError(
            f"{first_of(found)} cannot be set with --features, which has neither images nor a "
            "network; leave it out (protocol=NAME chooses a protocol, data_set=NAME names the "
            "images)"
        )
