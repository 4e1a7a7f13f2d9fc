"""``rsa-pretrain inspect``: show the contents of a checkpoint file."""

import argparse

from rsa_pretrain.plumbing.command_line import Commands, checkpoint_place, say


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "inspect",
        description="Show the contents of any project's checkpoint: its file format, its layout\n"
        "and how sure that is, its networks, tensors, statistics, NaNs and values, the\n"
        "objects that are ignored, and what an import refuses. No code in the file is run, and\n"
        "nothing is written. For a run folder, shows the backbone, or the last checkpoint while\n"
        "there is none.",
        epilog="examples:\n  rsa-pretrain inspect moco_v2_800ep_pretrain.pth.tar\n"
        "  rsa-pretrain inspect runs/rsa",
    )
    parser.add_argument(
        "file",
        metavar="FILE|RUN",
        type=checkpoint_place,
        help="checkpoint file, run folder, zoo:NAME or hf://USER/NAME",
    )
    parser.add_argument("--tensors", action="store_true", help="add one line per tensor")
    parser.set_defaults(command=_inspect)


def _inspect(arguments: argparse.Namespace) -> int:
    from rsa_pretrain.weights.checkpoint import find_weights
    from rsa_pretrain.weights.foreign.describe import describe_file
    from rsa_pretrain.weights.remote.places import local_weights

    path = local_weights(arguments.file)
    file = find_weights(path) if path.is_dir() else path
    for line in describe_file(file, every_tensor=arguments.tensors):
        say(line)
    return 0
