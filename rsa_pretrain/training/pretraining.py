"""Train one run to its end, in one process or in those that a launcher started."""

from collections.abc import Callable
from contextlib import closing

import torch

from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.open_images import AnySplit, open_images
from rsa_pretrain.data.sets.folders import refuse_among_images
from rsa_pretrain.data.shards.stream import ShardSet
from rsa_pretrain.plumbing.atomic_files import remove_leftovers
from rsa_pretrain.plumbing.device import resolve_device
from rsa_pretrain.plumbing.distributed import process_group
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.training.extension import Parent
from rsa_pretrain.training.finished_run import refuse_another_finished_run
from rsa_pretrain.training.trainer import Evaluate, Trainer
from rsa_pretrain.weights.checkpoint import BACKBONE_FILE

MakeEvaluate = Callable[[PretrainConfig, ImageSet, ImageSet, torch.device], Evaluate]


def pretrain(
    config: PretrainConfig,
    *,
    resume: bool = False,
    make_evaluate: MakeEvaluate | None = None,
    profile: bool = False,
    parent: Parent | None = None,
) -> int:
    """Train a run to its end, in one process or in those that the launcher started.

    The run folder ``config.output_dir`` then holds ``backbone.safetensors``, which
    ``load_backbone`` reads:

        config = load_config(PretrainConfig, "digits/rsa", ["training.epochs=2"])
        pretrain(config)
        backbone = load_backbone(config.output_dir).backbone

    Args:
        config: The run.
        resume: Resume from the run folder's last checkpoint, if it has one; a finished run is only
            compared with ``config``.
        make_evaluate: Builds the evaluation run every ``monitor.knn_every_epochs`` from the run
            and its held-out images: ``rsa_eval.make_online_knn``. Not needed if
            ``monitor.knn_every_epochs`` is None.
        profile: Profile some early steps.
        parent: The finished run to extend, if the run folder has no checkpoint.

    Returns:
        0, or 128 + the number of the signal that stopped it.

    Raises:
        UserError: If the run is finished and ``resume`` not set, if ``monitor.knn_every_epochs`` is
            set without ``make_evaluate``, and as ``Trainer``.
    """
    refuse_among_images(config.data, config.output_dir)
    if (config.output_dir / BACKBONE_FILE).exists():
        if not resume:
            raise UserError(
                f"'{config.output_dir}' contains a finished run; choose another output_dir"
            )
        refuse_another_finished_run(config, lambda: _open_images(config)[0].fingerprint())
        remove_leftovers(config.output_dir)
        remove_leftovers(config.output_dir / "checkpoints")
        return 0
    if config.monitor.knn_every_epochs is not None and make_evaluate is None:
        raise UserError(
            f"monitor.knn_every_epochs is {config.monitor.knn_every_epochs}, but pretrain() has "
            "nothing to measure with; pass make_evaluate=rsa_eval.make_online_knn, or set "
            "monitor.knn_every_epochs to null"
        )
    device = resolve_device(config.training.device)
    with process_group(device):
        images, held_out = _open_images(config)
        evaluate = None
        if held_out is not None and make_evaluate is not None:
            assert isinstance(images, ImageSet), "a stream has no held-out images"
            evaluate = make_evaluate(config, images, held_out, device)
        trainer = Trainer(
            config, images, resume=resume, evaluate=evaluate, profile=profile, parent=parent
        )
        with closing(trainer.folder):
            return trainer.run()


def _open_images(config: PretrainConfig) -> tuple[ImageSet | ShardSet, ImageSet | None]:
    """Open the training images, and the images held out of them for the monitor."""
    # Supervised training needs every image labelled; the other methods use all images.
    split: AnySplit = "train" if config.method.name == "supervised" else "pretrain"
    images = open_images(config.data, split)
    if config.monitor.knn_every_epochs is None:
        return images, None
    if isinstance(images, ShardSet):
        raise UserError(
            "monitor.knn_every_epochs needs held-out images, which a stream of shards cannot "
            "provide; set it to null"
        )
    return images.hold_out(config.monitor.num_held_out_images, config.seed)
