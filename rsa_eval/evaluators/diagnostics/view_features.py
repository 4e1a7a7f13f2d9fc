"""Run augmented views of images through a frozen backbone."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rsa_eval.evaluators.diagnostics.pictures import draw_rows
from rsa_eval.evaluators.diagnostics.settings import DiagnosticsConfig
from rsa_eval.features.batch_size import batch_size_on
from rsa_eval.features.forward import feature_width, forward_frozen
from rsa_eval.features.share import Share, own_share
from rsa_eval.features.subject import Subject
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.loader import AugmentedImages, iterate, make_loader
from rsa_pretrain.plumbing.distributed import failing_together, gather
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.progress import progress_bar
from rsa_pretrain.views.one_image import Views
from rsa_pretrain.views.settings import ViewSet


@dataclass(frozen=True)
class ViewFeatures:
    """Features of views of the same images, (N, D) each, on the CPU."""

    weak: tuple[Tensor, Tensor]
    aggressive: Sequence[Tensor]
    """An even number; the first two start from the crops of the weak views."""


def view_features(subject: Subject, images: ImageSet, config: DiagnosticsConfig) -> ViewFeatures:
    """Return the features of two weak and ``num_views`` aggressive views of some images.

    The processes of a group share the work.

    Each further pair of aggressive views is drawn as another epoch of training would draw it.

    Args:
        subject: Backbone, frozen and in eval mode, and its pixel statistics.
        images: Images to draw from.
        config: The evaluation.

    Raises:
        UserError: If a feature is not finite.
    """
    first = _forward_views(subject, images, "multi_stage", 0, config)
    aggressive = [first["v_a"], first["v_a'"]]
    for draw in range(1, config.num_views // 2):
        aggressive += _forward_views(subject, images, "aggressive_pair", draw, config).values()
    return ViewFeatures((first["v_w"], first["v_w'"]), aggressive)


def _forward_views(
    subject: Subject, images: ImageSet, view_set: ViewSet, draw: int, config: DiagnosticsConfig
) -> dict[str, Tensor]:
    """Return the features of one draw of a set of views, (N, D) by the view's name."""
    size = config.data.image_size
    views = Views(view_set, config.views, size, subject.mean, subject.std)
    rows = draw_rows(config.num_view_images, len(images), config.seed).tolist()
    # Each image gives several views, so a fraction of the images make a batch.
    batch_size = batch_size_on(subject.device, subject.backbone, config)
    width, share = max(1, batch_size // len(views.names)), own_share()
    batches = share.batches(len(rows), width)
    loader = make_loader(
        AugmentedImages(images, views, config.seed),
        [[(draw, row) for row in rows[own.start : own.stop]] for own in batches],
        config.data.num_workers,
        subject.device,
    )
    most_batches = len(Share(0, share.count).batches(len(rows), width))
    shape = (most_batches, width, len(views.names), feature_width(subject.backbone, config))
    found = torch.zeros(shape)
    label = f"views, draw {draw + 1} of {config.num_views // 2}"
    with failing_together(), progress_bar(sum(map(len, batches)), label, "img") as bar:
        for place, batch in enumerate(iterate(loader)):
            for number, view in enumerate(batch):
                features = forward_frozen(subject.backbone, view, config)
                found[place, : len(view), number] = features.cpu()
            bar.update(len(batch[0]))
    every = gather(found.to(subject.device)).cpu().view(share.count, *shape).transpose(0, 1)
    columns = every.flatten(0, 2)[: len(rows)].unbind(dim=1)
    if not all(column.isfinite().all() for column in columns):
        raise UserError(
            f"features of augmented views are not finite at precision {config.precision}; set "
            "precision=fp32, or check how the weights were trained"
        )
    return dict(zip(views.names, columns, strict=True))
