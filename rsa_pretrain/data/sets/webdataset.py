"""Read tar shards in WebDataset's layout: a stream to pretrain on, a set to evaluate on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rsa_pretrain.data.sets.base import AnySplit, DataSet
from rsa_pretrain.data.sets.imagenet import IMAGENET
from rsa_pretrain.data.shards.settings import SampleRules
from rsa_pretrain.plumbing.errors import UserError

if TYPE_CHECKING:
    from rsa_pretrain.data.image_set import ImageSet
    from rsa_pretrain.data.settings import DataConfig
    from rsa_pretrain.data.shards.stream import ShardSet


def _open(config: DataConfig, split: AnySplit) -> ImageSet | ShardSet:
    from rsa_pretrain.data.shards import locate

    if split != "pretrain":
        return locate.open_split(config, split)
    if config.num_train_images is not None:
        raise UserError(
            f"data.num_train_images {config.num_train_images} has no meaning for a stream of "
            "shards; name fewer shards in data.shards"
        )
    return locate.open_stream(config)


def _download(root: Path, url: str | None) -> NoReturn:
    raise UserError(
        "webdataset reads shards of your own, which cannot be downloaded; put them as "
        f"{root}/train/*.tar and {root}/val/*.tar, or stream them by their URLs in data.shards"
    )


WEBDATASET = DataSet(
    name="webdataset",
    label="WebDataset",
    normalisation=IMAGENET.normalisation,
    open=_open,
    download=_download,
    location=("root", "shards"),
    settings=("shards", "test_shards", "shard_sizes", *SampleRules.model_fields),
)
