"""Parse a command's checkpoint, configs and overrides, and find its default images."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rsa_pretrain.config import CONFIG_FILE, PretrainConfig
from rsa_pretrain.plumbing.config.files import flatten, load_config, to_tree
from rsa_pretrain.plumbing.config.layers import merge_layers, read_layers
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.user_paths import user_path
from rsa_pretrain.weights.files.regular_file import ABSENT

# A word of this form is an override, any other a path; write a path that looks like an override
# with a leading `./`.
_OVERRIDE = re.compile(r"[A-Za-z_][\w.-]*=")


def split_words(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Split words into paths and ``section.key=value`` overrides, each in the order given."""
    paths = [user_path(word) for word in words if not _OVERRIDE.match(word)]
    return paths, [word for word in words if _OVERRIDE.match(word)]


def the_checkpoint(paths: list[Path], random_init: bool) -> Path | None:
    """Return the checkpoint among a command's paths; None for random weights.

    Raises:
        UserError: If there is not exactly one, or it does not exist.
    """
    if random_init:
        if paths:
            raise UserError(f"give --random-init or a checkpoint, not both; found '{paths[0]}'")
        return None
    if len(paths) != 1:
        found = ", ".join(f"'{path}'" for path in paths) or "none"
        raise UserError(f"expected one CHECKPOINT, or --random-init; found {found}")
    if not paths[0].exists():
        raise UserError(f"checkpoint '{paths[0]}' {ABSENT}")
    return paths[0]


def images_of_run(
    run_dir: Path | None,
    checkpoint: Path | None,
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
