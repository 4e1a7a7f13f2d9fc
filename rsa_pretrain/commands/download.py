"""``rsa-pretrain download``: download a data set to where configs look for it."""

import argparse
from pathlib import Path

from rsa_pretrain.data import sets
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.plumbing.command_line import Commands, add_download_place, say
from rsa_pretrain.plumbing.errors import UserError

_OF_DETECT = ("voc2007", "voc2012", "voc0712")


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "download",
        description="Download a data set from its publisher, check its MD5 and unpack it in ROOT,\n"
        "the data.root of its configs. Rerun to resume. Exit code 0: the data set is there, with\n"
        "the published number of images.",
        epilog="examples:\n  rsa-pretrain download cifar10\n"
        "  rsa-pretrain download stl10 /scratch/data --url http://mirror/stl10_binary.tar.gz",
    )
    names = [entry.name for entry in sets.DATA_SETS]
    parser.add_argument(
        "name", metavar="NAME", type=_name, choices=names, help=f"data.name: {', '.join(names)}"
    )
    add_download_place(parser)
    parser.set_defaults(command=_download)


def _name(text: str) -> str:
    if text in _OF_DETECT:
        raise argparse.ArgumentTypeError(f"PASCAL VOC comes by `rsa-detect download {text}`")
    return text


def _download(arguments: argparse.Namespace) -> int:
    chosen = sets.data_set(arguments.name)
    chosen.download(arguments.root, arguments.url)
    where = f"in '{arguments.root}'" if chosen.location else "embedded, nothing to download"
    say(f"{chosen.name} is {where}: {_count(chosen, arguments.root)}")
    return 0


def _count(chosen: sets.DataSet, root: Path) -> str:
    """Say how many images each split has.

    Raises:
        UserError: If it cannot be opened, or the numbers differ from the published ones.
    """
    config = DataConfig(name=chosen.name, root=root if chosen.location else None, image_size=32)
    found = []
    for split, counts in chosen.counts.items():
        count = len(open_images(config, split))
        if count != counts.images:
            raise UserError(
                f"{chosen.name} in '{root}' has {count:,} images in its {split} split, expected "
                f"{counts.images:,} as published; move its folder away and rerun the command"
            )
        found.append(f"{split} {count:,} images")
    return ", ".join(found)
