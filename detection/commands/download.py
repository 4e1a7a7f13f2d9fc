"""``rsa-detect download``: download PASCAL VOC to where configs look for it."""

import argparse

from rsa_pretrain.plumbing.command_line import Commands, add_download_place, say

_YEARS = {"voc0712": ("2007", "2012"), "voc2007": ("2007",), "voc2012": ("2012",)}


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "download",
        description="Download PASCAL VOC's trainval and test images of 2007, the trainval images\n"
        "of 2012, or both from their publisher, check the MD5s and unpack them to ROOT/VOCdevkit,\n"
        "the data.root of data/voc0712. Rerun to resume. Exit code 0: the images are there, with\n"
        "the published numbers.",
        epilog="examples:\n  rsa-detect download voc0712\n"
        "  rsa-detect download voc2007 /scratch/data --url http://mirror/voc/",
    )
    parser.add_argument("name", metavar="NAME", choices=list(_YEARS), help=", ".join(_YEARS))
    add_download_place(parser)
    parser.set_defaults(command=_download)


def _download(arguments: argparse.Namespace) -> int:
    from detection.coco.voc.published import VOC_FOLDER, download_voc

    found = download_voc(_YEARS[arguments.name], arguments.root, arguments.url)
    counts = ", ".join(f"{name} {count:,} images" for name, count in found.items())
    say(f"{arguments.name} is in '{arguments.root / VOC_FOLDER}': {counts}")
    return 0
