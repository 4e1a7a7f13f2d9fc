"""``rsa-pretrain zoo``: list published checkpoints, and get one by its name."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rsa_pretrain.plumbing.command_line import Commands, Parser, say
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.text_table import NOTHING, render_table

if TYPE_CHECKING:
    from rsa_pretrain.weights.metadata import BackboneMetadata
    from rsa_pretrain.weights.remote.registry import PublishedCheckpoint

_COLUMNS = ("name", "backbone", "trained on", "epochs", "linear", "licence", "published by")
_LINEAR = ("linear", "imagenet", "top-1")


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "zoo",
        description="Published checkpoints, whose facts were read in their publishers' texts.\n"
        "Without an action, list them all. A command that takes CHECKPOINT takes zoo:NAME too,\n"
        "which is downloaded at its first use.",
        epilog="examples:\n  rsa-pretrain zoo\n  rsa-pretrain zoo list moco resnet50\n"
        "  rsa-pretrain zoo get moco_v2_r50_800ep\n"
        "  rsa-eval knn zoo:moco_v2_r50_800ep --config data/imagefolder",
    )
    parser.set_defaults(command=_list, words=[])
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    _add_list(actions)
    _add_show(actions)
    _add_get(actions)


def _add_list(actions: Commands) -> None:
    parser = actions.add_parser(
        "list",
        help="list the checkpoints, one line each",
        description="List the checkpoints whose line has every WORD. The column linear is top-1\n"
        "of linear classification on ImageNet, in percent, as published.",
    )
    parser.add_argument("words", metavar="WORD", nargs="*", help="part of a line")
    parser.set_defaults(command=_list)


def _add_show(actions: Commands) -> None:
    parser = actions.add_parser(
        "show",
        help="show all that is known about one",
        description="Show where a checkpoint is published, its checksum, licence and layout, and\n"
        "the numbers published for it, each with its source.",
    )
    _add_name(parser)
    parser.set_defaults(command=_show)


def _add_get(actions: Commands) -> None:
    parser = actions.add_parser(
        "get",
        help="download, verify and import one",
        description="Download a checkpoint, verify the checksum that its publisher states, and\n"
        "import its backbone with its provenance. Rerun to resume. The published file is removed\n"
        "once it is imported. Downloads, and backbones without OUT, go to $RSA_TOOLKIT_CACHE, by\n"
        "default ~/.cache/rsa-toolkit.",
        epilog="examples:\n  rsa-pretrain zoo get moco_v2_r50_800ep\n"
        "  rsa-pretrain zoo get dino_r50_800ep weights/dino.safetensors --keep",
    )
    _add_name(parser)
    parser.add_argument(
        "out",
        metavar="OUT.safetensors",
        nargs="?",
        type=Path,
        help="file to write (default: where zoo:NAME looks for it)",
    )
    parser.add_argument("--url", help="mirror of the published file")
    parser.add_argument(
        "--file", metavar="FILE", type=Path, help="the published file, downloaded by hand"
    )
    parser.add_argument("--keep", action="store_true", help="keep the published file")
    parser.set_defaults(command=_get)


def _add_name(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="name in the list")


def _list(arguments: argparse.Namespace) -> int:
    from rsa_pretrain.weights.remote.registry import published_checkpoints

    rows = [_row(checkpoint) for checkpoint in published_checkpoints().values()]
    words = [word.lower() for word in arguments.words]
    rows = [row for row in rows if all(word in " ".join(row).lower() for word in words)]
    if not rows:
        raise UserError(
            f"no published checkpoint has '{' '.join(arguments.words)}' in its line; rsa-pretrain "
            "zoo lists all"
        )
    say(render_table(_COLUMNS, rows, numeric=("epochs", "linear")))
    return 0


def _row(checkpoint: "PublishedCheckpoint") -> list[str]:
    linear = [
        f"{number.value:g}"
        for number in checkpoint.published
        if (number.protocol, number.data_set, number.metric) == _LINEAR
    ]
    return [
        checkpoint.name,
        checkpoint.arch,
        checkpoint.data_set,
        NOTHING if checkpoint.epochs is None else f"{checkpoint.epochs:g}",
        linear[0] if linear else NOTHING,
        checkpoint.licence or "not stated",
        checkpoint.project,
    ]


def _show(arguments: argparse.Namespace) -> int:
    from rsa_pretrain.weights.remote.registry import find_published

    for line in _facts(find_published(arguments.name)):
        say(line)
    return 0


def _facts(checkpoint: "PublishedCheckpoint") -> Iterator[str]:
    yield f"name      {checkpoint.name}"
    yield f"backbone  {checkpoint.arch}, {checkpoint.stem} stem"
    epochs = "" if checkpoint.epochs is None else f", {checkpoint.epochs:g} epochs"
    yield f"training  {checkpoint.method} on {checkpoint.data_set}{epochs}"
    yield f"project   {checkpoint.project}, {checkpoint.page}"
    yield f"file      {checkpoint.url or _by_hand(checkpoint)}"
    yield from (f"mirror    {mirror}" for mirror in checkpoint.mirrors)
    yield f"checksum  {checkpoint.checksum or 'none stated by its publisher'}"
    yield f"licence   {checkpoint.licence or 'none stated by its publisher'}"
    if checkpoint.layout is not None:
        yield f"layout    {checkpoint.layout}, network {checkpoint.network}"
    yield f"pixels    mean {checkpoint.mean}, std {checkpoint.std}, RGB"
    yield f"read in   {checkpoint.read}"
    for number in checkpoint.published:
        detail = f" ({number.detail})" if number.detail else ""
        yield (
            f"published {number.protocol} on {number.data_set}{detail}: {number.metric} "
            f"{number.value:g} [{number.source}]"
        )


def _by_hand(checkpoint: "PublishedCheckpoint") -> str:
    name = f"{checkpoint.file_name} " if checkpoint.file_name else ""
    return f"{name}by hand from {checkpoint.by_hand}"


def _get(arguments: argparse.Namespace) -> int:
    if arguments.url and arguments.file:
        raise UserError("give --url or --file, not both")
    from rsa_pretrain.weights.remote.registry import find_published
    from rsa_pretrain.weights.remote.zoo import get_published, kept_place

    checkpoint = find_published(arguments.name)
    out = arguments.out or kept_place(checkpoint)
    loaded = get_published(
        checkpoint, out, url=arguments.url, file=arguments.file, keep=arguments.keep
    )
    for line in _report(checkpoint, loaded.metadata):
        say(line)
    say(f"written   {out}")
    return 0


def _report(checkpoint: "PublishedCheckpoint", metadata: "BackboneMetadata") -> Sequence[str]:
    from rsa_pretrain.weights.foreign.describe import import_lines

    if checkpoint.checksum is None:
        verified = f"its publisher states none; the SHA-256 found is {metadata.parent}"
    else:
        verified = f"{checkpoint.checksum}, as its publisher states"
    return [f"checksum  {verified}", *import_lines(metadata)]
