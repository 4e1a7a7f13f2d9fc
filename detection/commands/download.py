"""``rsa-detect download``: download PASCAL VOC to where configs look for it."""

import argparse

from rsa_pretrain.plumbing.command_line import Commands, add_download_place, say

_NAMES = ("voc0712",)


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "download",
        description="Download PASCAL VOC's trainval and test images of 2007 and the trainval\n"
        "images of 2012 from their publisher, check the MD5s and unpack them to ROOT/VOCdevkit,\n"
        "the data.root of data/voc0712. Rerun to resume. Exit code 0: the images are there, with\n"
        "the published numbers.",
        epilog="examples:\n  rsa-detect download voc0712\n"
        "  rsa-detect download voc0712 /scratch/data --url http://mirror/voc/",
    )
    parser.add_argument("name", metavar="NAME", choices=_NAMES, help=", ".join(_NAMES))
    add_download_place(parser)
    parser.set_defaults(command=_download)


def _download(arguments: argparse.Namespace) -> int:
    from detection.coco.voc.published import VOC_FOLDER, download_voc0712

    found = download_voc0712(arguments.root, arguments.url)
    counts = ", ".join(f"{name} {count:,} images" for name, count in found.items())
    say(f"{arguments.name} is in '{arguments.root / VOC_FOLDER}': {counts}")
    return 0
