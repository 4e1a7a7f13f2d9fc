"""Compare a finished run's folder with the requested run."""

import dataclasses
import logging
from collections.abc import Callable

from rsa_pretrain.config import CONFIG_FILE, PretrainConfig, load_run
from rsa_pretrain.plumbing.config.files import to_tree
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.training.continuation import RESUME
from rsa_pretrain.weights.checkpoint import BACKBONE_FILE, load_checkpoint, newest_checkpoint

_log = logging.getLogger(__name__)

_FINISHED = dataclasses.replace(
    RESUME,
    remedy="restore them, choose another output_dir, or train the finished run further with "
    "--extend",
)


def with_known_parent(config: PretrainConfig) -> PretrainConfig:
    """Fill in which run the one in ``output_dir`` extends, which is stated only at its start."""
    if config.extends is not None or not (config.output_dir / CONFIG_FILE).is_file():
        return config
    return config.model_copy(update={"extends": load_run(config.output_dir).extends})


def refuse_another_finished_run(config: PretrainConfig, fingerprint: Callable[[], str]) -> None:
    """Refuse a run that differs from the finished one in its folder, as resuming does.

    Settings and images are compared with the last checkpoint's; without checkpoints, only the
    settings, with those of config.yaml.

    Args:
        config: The requested run.
        fingerprint: Opens its training images and identifies them.

    Raises:
        UserError: If they differ, or there is nothing to compare with.
    """
    folder = config.output_dir
    checkpoint = newest_checkpoint(folder)
    if checkpoint is None:
        if not (folder / CONFIG_FILE).is_file():
            raise UserError(
                f"'{folder}' has a {BACKBONE_FILE}, but neither checkpoints nor {CONFIG_FILE} to "
                "tell which run it is from; choose another output_dir"
            )
        _FINISHED.refuse_other_settings(to_tree(load_run(folder)), config)
        _log.info(
            "'%s' has no checkpoints left; its settings are the same, its images are not compared",
            folder,
        )
        return
    _, _, state = load_checkpoint(checkpoint)
    try:
        _FINISHED.refuse_other_settings(state["config"], config)
        _FINISHED.refuse_other_images(state["data_fingerprint"], _fingerprint(config, fingerprint))
    except KeyError as error:
        raise UserError(f"the trainer state of '{checkpoint}' lacks {error}") from None


def _fingerprint(config: PretrainConfig, fingerprint: Callable[[], str]) -> str:
    try:
        return fingerprint()
    except UserError as error:
        raise UserError(
            f"'{config.output_dir}' contains a finished run, but its training images cannot be "
            f"compared: {error}"
        ) from None
