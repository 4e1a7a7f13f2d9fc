"""``rsa-eval features``: extract features once for several evaluations."""

import argparse
import logging
from typing import TYPE_CHECKING

from rsa_eval.commands.given_features import refuse_features_option
from rsa_eval.commands.subjects import (
    add_config_option,
    images_of_run,
    run_of,
    split_checkpoints,
    the_checkpoint,
)
from rsa_eval.features.settings import FeaturesConfig
from rsa_pretrain.data.sets import Split
from rsa_pretrain.plumbing.command_line import Commands, add_overrides, say
from rsa_pretrain.plumbing.config.files import load_config
from rsa_pretrain.plumbing.errors import UserError

if TYPE_CHECKING:
    from rsa_pretrain.data.image_set import ImageSet

_log = logging.getLogger(__name__)

_DESCRIPTION = """\
Extract features of the frozen backbone, every image once, into cache_dir, by default the folder
features/ of the checkpoint's run.

CHECKPOINT is the same as for the evaluations. One safetensors file is written per split, with
features, labels and their provenance; it appears once complete. Evaluations with the same
cache_dir reuse it if weights, images, transform, layers, precision and feature_dtype match.
Otherwise, or if it is damaged, it is regenerated. Rerun the command to resume an interrupted
extraction, on the same device with the same batch size. Images need no classes. Processes started
by torchrun share the work."""

_EXAMPLES = """\
examples:
  rsa-eval features runs/digits
  rsa-eval knn runs/digits cache_dir=runs/digits/features
  rsa-eval features weights.safetensors --config data/cifar10 cache_dir=runs/features
  torchrun --nproc-per-node=8 -m rsa_eval features runs/imagenet-rsa-100ep"""


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "features",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    parser.add_argument(
        "--random-init",
        action="store_true",
        help="use random weights of backbone.arch and backbone.stem, or of timm:NAME or "
        "torchvision:NAME",
    )
    add_config_option(parser)
    refuse_features_option(parser)
    parser.usage = "rsa-eval features [--config CONFIG] CHECKPOINT | --random-init"
    add_overrides(parser, FeaturesConfig)
    parser.set_defaults(command=_features)


def _features(arguments: argparse.Namespace) -> int:
    given, overrides = split_checkpoints(arguments.overrides)
    checkpoint = the_checkpoint(given, arguments.random_init)
    run_dir = run_of(checkpoint)
    start = images_of_run(run_dir, checkpoint, arguments.config, overrides)
    if run_dir is not None:
        start["cache_dir"] = str(run_dir / "features")
    config = load_config(FeaturesConfig, arguments.config, overrides, start)

    from rsa_eval.features.crop import narrow_crop
    from rsa_eval.features.extract import ensure_cached
    from rsa_eval.features.frozen import frozen
    from rsa_eval.features.subject import load_subject
    from rsa_pretrain.data.image_set import UNLABELLED
    from rsa_pretrain.plumbing.device import resolve_device
    from rsa_pretrain.plumbing.distributed import process_group

    doubt = narrow_crop(config.data)
    if doubt is not None:
        _log.warning("%s", doubt)
    with process_group(resolve_device(config.device)):
        subject = load_subject(checkpoint, config)
        found = {split: _open(config, split) for split in config.splits}
        with frozen(subject.backbone):
            for split, images in found.items():
                entry = ensure_cached(
                    subject, images, config, config.cache_dir, f"{split} features"
                )
                size = f"{len(images)} x {entry.width}, {config.feature_dtype}"
                say(f"{split}: {size}: {entry.path}")
                if not images.is_labelled:
                    say(f"{split}: images without a class have label {UNLABELLED}")
    return 0


def _open(config: FeaturesConfig, split: Split) -> "ImageSet":
    from rsa_pretrain.data.open_images import open_images

    try:
        return open_images(config.data, split)
    except UserError as error:
        if config.splits == (split,):
            raise
        rest = ",".join(other for other in config.splits if other != split)
        raise UserError(
            f"{error}; or set splits=[{rest}] to leave out the {split} images"
        ) from None
