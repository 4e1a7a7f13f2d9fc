"""``rsa-pretrain export``: export a backbone to another tool."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rsa_pretrain.plumbing.command_line import Commands, checkpoint_place, say
from rsa_pretrain.plumbing.errors import UserError

if TYPE_CHECKING:
    from rsa_pretrain.weights.checkpoint import LoadedBackbone
    from rsa_pretrain.weights.export.export import Export
    from rsa_pretrain.weights.export.model_card import RecordOfWeights

TO_DETECTRON2 = "detectron2"
_PUSHED = "huggingface"
_RECORDS_FOLDER = "records"
_TRUNK = "this is the backbone of a trained detector; rsa-detect export writes all of it"

Convert = Callable[[str | Path, Path], object]
ReadRecords = Callable[[Path, "LoadedBackbone"], tuple[list["RecordOfWeights"], int]]


def add(commands: Commands, to_detectron2: Convert, read_records: ReadRecords) -> None:
    """Add the command to the parser.

    Args:
        commands: Where to add it.
        to_detectron2: Writes a checkpoint as detectron2 weights, with their proof.
        read_records: Reads a folder's records of given weights, and counts those of others. Both
            are passed in because they belong to other packages.
    """
    from rsa_pretrain.weights.export.targets import TARGETS

    parser = commands.add_parser(
        "export",
        description="Write a backbone in another tool's format. The result is imported again\n"
        "and compared bitwise; if the tool is installed, its own network must compute\n"
        "the same features. Hugging Face gets a folder with a model card made from the records.",
        epilog="examples:\n  rsa-pretrain export runs/rsa --to timm rsa.safetensors\n"
        "  rsa-pretrain export runs/rsa --to huggingface rsa --push USER/NAME",
    )
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        type=checkpoint_place,
        help="run folder, checkpoint folder, a file of this or another project, zoo:NAME, or "
        "hf://USER/NAME[@REVISION]",
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="file or folder to write")
    parser.add_argument(
        "--to",
        required=True,
        choices=[*(target.name for target in TARGETS), TO_DETECTRON2],
        help="tool to export to",
    )
    parser.add_argument(
        "--records",
        metavar="DIR",
        type=Path,
        help="records for the model card (default: records/ beside the weights)",
    )
    parser.add_argument(
        "--push",
        metavar="USER/NAME",
        help="upload the written folder to the Hugging Face hub (--to huggingface)",
    )
    parser.add_argument(
        "--private", action="store_true", help="make a repository created by --push private"
    )
    parser.set_defaults(command=lambda arguments: _export(arguments, to_detectron2, read_records))


def _export(
    arguments: argparse.Namespace, to_detectron2: Convert, read_records: ReadRecords
) -> int:
    if arguments.push is not None and arguments.to != _PUSHED:
        raise UserError(
            f"--push uploads a folder, which --to {_PUSHED} writes; found --to {arguments.to}"
        )
    if arguments.private and arguments.push is None:
        raise UserError("--private is of a repository that --push creates; give --push")
    if arguments.to == TO_DETECTRON2:
        if arguments.records is not None:
            raise UserError("--records is for a model card, which detectron2 weights do not have")
        to_detectron2(arguments.checkpoint, arguments.out)
        say(f"written   {arguments.out}, and its keys {arguments.out.with_suffix('.yaml')}")
        return 0
    from rsa_pretrain.weights.export.export import export_backbone, find_target
    from rsa_pretrain.weights.export.model_card import UNNAMED
    from rsa_pretrain.weights.load import load_weights
    from rsa_pretrain.weights.remote.hub import check_repository, push

    if arguments.push is not None:
        check_repository(arguments.push)
    loaded = load_weights(arguments.checkpoint)
    records = _records(arguments.records, loaded, read_records)
    repository = arguments.push or UNNAMED
    done = export_backbone(loaded, find_target(arguments.to), arguments.out, records, repository)
    for line in _lines(done, loaded):
        say(line)
    if arguments.push is not None:
        say(f"pushed    {push(arguments.out, arguments.push, private=arguments.private)}")
    return 0


def _records(
    folder: Path | None, loaded: "LoadedBackbone", read_records: ReadRecords
) -> "list[RecordOfWeights]":
    if folder is None:
        folder = loaded.path.parent / _RECORDS_FOLDER
        if not folder.is_dir():
            return []
    records, others = read_records(folder, loaded)
    say(f"records   {len(records)} of these weights in {folder}; {others} of others left out")
    return records


def _lines(done: "Export", loaded: "LoadedBackbone") -> list[str]:
    from rsa_pretrain.plumbing.extras import how_to_install
    from rsa_pretrain.weights.foreign.layouts.detectron2 import HEADS

    name, metadata = done.target.name, loaded.metadata
    again = "imported again, it equals the backbone bitwise"
    if done.difference is None:
        library = f"features not compared with {name}'s: {how_to_install(done.target.packages)}"
    else:
        library = f"{name}'s features differ by {done.difference:.1e} of the largest"
    depth = metadata.arch.removeprefix("resnet")
    advice = done.target.advice.replace("ARCH", metadata.arch).replace("DEPTH", depth)
    return [
        f"written   {done.out}",
        *([f"proof     {again}"] if done.imported_again else []),
        f"proof     {library}",
        *([f"detector  {_TRUNK}"] if metadata.origin and HEADS in metadata.origin.dropped else []),
        f"pixels    mean {metadata.mean}, std {metadata.std}, RGB",
        f"load      {advice.replace('OUT', str(done.out))}",
    ]
