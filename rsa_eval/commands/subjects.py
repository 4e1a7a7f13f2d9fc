"""Parse a command's checkpoint, configs and overrides, and find its default images."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rsa_eval.features.networks.spec import (
    Checkpoint,
    NetworkSpec,
    check_checkpoint,
    checkpoint_of,
)
from rsa_eval.records.pretraining_run import run_folder_of
from rsa_pretrain.config import CONFIG_FILE, PretrainConfig
from rsa_pretrain.plumbing.config.files import flatten, load_config, to_tree
from rsa_pretrain.plumbing.config.layers import merge_layers, read_layers
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.user_paths import user_path

CHECKPOINTS = """\
CHECKPOINT is a run folder, a checkpoint folder, a safetensors file, or a file of another
project (rsa-pretrain inspect describes it). It may also be a network that is none of this
toolkit's: timm:NAME@FILE and torchvision:NAME@FILE with weights from a file, hf:FOLDER saved by
transformers, or python:MODULE:FUNCTION, a function of yours; timm:NAME@pretrained and
torchvision:NAME@DEFAULT download the library's weights. zoo:NAME is a published checkpoint
(rsa-pretrain zoo lists them), hf://USER/NAME[@REVISION] one on the Hugging Face hub."""
"""Paragraph for the commands' help."""

# A word of this form is an override, any other a path; write a path that looks like an override
# with a leading `./`.
_OVERRIDE = re.compile(r"[A-Za-z_][\w.-]*=")


def split_words(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Split words into paths and ``section.key=value`` overrides, each in the order given."""
    paths = [user_path(word) for word in words if not _OVERRIDE.match(word)]
    return paths, [word for word in words if _OVERRIDE.match(word)]


def split_checkpoints(words: Sequence[str]) -> tuple[list[Checkpoint], list[str]]:
    """Split words into checkpoints, which may be networks such as timm:NAME@FILE, and overrides.

    Raises:
        UserError: If a word begins like a network but is none.
    """
    checkpoints = [checkpoint_of(word) for word in words if not _OVERRIDE.match(word)]
    return checkpoints, [word for word in words if _OVERRIDE.match(word)]


def the_checkpoint(given: Sequence[Checkpoint], random_init: bool) -> Checkpoint | None:
    """Return the checkpoint among a command's words; None for random weights of a ResNet.

    Raises:
        UserError: If there is not exactly one, or it does not exist.
    """
    if random_init:
        if not given:
            return None
        bare = [one for one in given if isinstance(one, NetworkSpec) and one.lacks_weights]
        if len(given) > 1 or not bare:
            raise UserError(f"give --random-init or a checkpoint, not both; found '{given[0]}'")
        return bare[0].randomised()
    if len(given) != 1:
        found = ", ".join(f"'{path}'" for path in given) or "none"
        raise UserError(f"expected one CHECKPOINT, or --random-init; found {found}")
    check_checkpoint(given[0])
    return given[0]


def check_checkpoints(given: Sequence[Checkpoint], random_init: bool) -> None:
    """Refuse, before any work is done, checkpoints that do not exist.

    Args:
        given: Checkpoints of a command that takes several.
        random_init: Whether networks without weights take random ones.

    Raises:
        UserError: Names what is missing.
    """
    for one in given:
        if not (random_init and isinstance(one, NetworkSpec) and one.lacks_weights):
            check_checkpoint(one)


def run_of(checkpoint: Checkpoint | None) -> Path | None:
    """Return the run folder that contains a checkpoint, if there is one."""
    return run_folder_of(checkpoint) if isinstance(checkpoint, Path) else None


def images_of_run(
    run_dir: Path | None,
    checkpoint: Checkpoint | None,
    configs: Sequence[Path],
    overrides: Sequence[str],
) -> dict[str, Any]:
    """Return the data settings of the run that made a checkpoint, as defaults.

    Empty if a config names images itself.

    Raises:
        UserError: If there is no run and no settings name images.
    """
    if "data.name" in flatten(merge_layers(read_layers(configs))):
        return {}
    if run_dir is not None:
        config = load_config(PretrainConfig, run_dir / CONFIG_FILE)
        return {"data": to_tree(config.data)}
    if not any(override.startswith("data.") for override in overrides):
        what = "--random-init" if checkpoint is None else f"'{checkpoint}', outside a run folder,"
        raise UserError(
            f"{what} does not determine the images; give a data config, such as --config "
            "data/cifar10, or data.name and data.image_size (and data.root) as overrides"
        )
    return {}


def add_config_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``, for protocols and data sets."""
    parser.add_argument(
        "--config",
        metavar="CONFIG",
        type=Path,
        action="append",
        default=[],
        help="settings: YAML file or name of a shipped config, such as linear/dinov2 or "
        "data/cifar10; later ones override earlier ones",
    )
