"""Which weights a command looks at, and which images by default."""

from pathlib import Path
from typing import Any

from rsa_pretrain.config import CONFIG_FILE, PretrainConfig
from rsa_pretrain.config_files import load_config, to_tree
from rsa_pretrain.errors import UserError


def the_checkpoint(paths: list[Path], random_init: bool) -> Path | None:
    """Return the checkpoint among a command's paths; None for random weights.

    Raises:
        UserError: If there is not exactly one, or it does not exist.
    """
    if random_init:
        if paths:
            raise UserError(
                f"--random-init stands in place of a checkpoint, but '{paths[0]}' was given too"
            )
        return None
    if len(paths) != 1:
        found = ", ".join(f"'{path}'" for path in paths) or "none"
        raise UserError(f"expected one CHECKPOINT, or --random-init; found {found}")
    if not paths[0].exists():
        raise UserError(f"checkpoint '{paths[0]}' does not exist")
    return paths[0]


def images_of_run(
    run_dir: Path | None, checkpoint: Path | None, overrides: list[str]
) -> dict[str, Any] | None:
    """Return the images of the run that made a checkpoint, as settings to start from.

    Raises:
        UserError: If there is no run, and no settings name images either.
    """
    if run_dir is not None:
        config = load_config(PretrainConfig, run_dir / CONFIG_FILE)
        return {"data": to_tree(config.data)}
    if not any(override.startswith("data.") for override in overrides):
        what = "--random-init" if checkpoint is None else f"'{checkpoint}', in no run folder,"
        raise UserError(
            f"{what} does not say which images to use; give --config, or data.name and "
            "data.image_size (and data.root) as overrides"
        )
    return None
