"""``rsa-pretrain import``: convert another project's backbone to this toolkit's format."""

import argparse
from pathlib import Path

from rsa_pretrain.data.settings import RGB
from rsa_pretrain.plumbing.command_line import Commands, say
from rsa_pretrain.plumbing.errors import UserError

_NAME_COLUMNS = 18


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    from rsa_pretrain.weights.foreign.layouts import LAYOUTS
    from rsa_pretrain.weights.foreign.recognise import AUTO

    parser = commands.add_parser(
        "import",
        description="Convert one network of another project's checkpoint to this toolkit's\n"
        "format, with its provenance. An import succeeds only if every backbone tensor is present\n"
        "with the right shape and every other tensor is on the layout's drop list. If no layout\n"
        "below fits, the network with known tensor names is taken, under any prefix or wrapper;\n"
        "if there are several, choose one with --prefix. No code in the file is run.",
        epilog="layouts and their networks (the first is taken unless --network names another):\n"
        + "\n".join(
            f"  {layout.name:<{_NAME_COLUMNS}} {', '.join(layout.networks)}: {layout.made_by}"
            for layout in LAYOUTS
        )
        + "\n\nexample:\n  rsa-pretrain import moco_v2_800ep_pretrain.pth.tar moco_v2.safetensors",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="checkpoint of another project")
    parser.add_argument("out", metavar="OUT.safetensors", type=Path, help="file to write")
    parser.add_argument(
        "--layout", metavar="NAME", default=AUTO, help="layout; auto (default) infers it by keys"
    )
    parser.add_argument("--network", metavar="NAME", help="which of the layout's networks to take")
    parser.add_argument(
        "--prefix",
        metavar="PREFIX",
        help="prefix of the network's tensor names, such as state_dict/model.backbone.; "
        "everything elsewhere is dropped",
    )
    parser.add_argument("--method", metavar="NAME", help="how the weights were made, for tables")
    parser.add_argument("--data-set", metavar="NAME", help="data set they were trained on")
    for name in ("mean", "std"):
        parser.add_argument(
            f"--{name}", metavar="R,G,B", type=_rgb, help=f"input {name}, pixels in [0, 1]"
        )
    parser.add_argument(
        "--cifar-stem",
        action="store_true",
        help="a 3x3 first convolution has stride 1, padding 1 and no max-pool after it",
    )
    parser.add_argument("--allow-non-finite", action="store_true", help="accept NaN and infinity")
    parser.set_defaults(command=_import)


def _import(arguments: argparse.Namespace) -> int:
    mean, std = arguments.mean, arguments.std
    _check_pixels(mean, std)
    from rsa_pretrain.weights.foreign.describe import import_lines
    from rsa_pretrain.weights.foreign.layout import Pixels
    from rsa_pretrain.weights.foreign.load import ImportOptions, write_import

    options = ImportOptions(
        layout=arguments.layout,
        network=arguments.network,
        prefix=arguments.prefix,
        method=arguments.method,
        data_set=arguments.data_set,
        pixels=None if mean is None else Pixels(mean, std),
        cifar_stem=arguments.cifar_stem,
        allow_non_finite=arguments.allow_non_finite,
    )
    metadata = write_import(arguments.file, arguments.out, options)
    for line in import_lines(metadata):
        say(line)
    say(f"written   {arguments.out}")
    return 0


def _rgb(text: str) -> RGB:
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        message = f"expected three numbers such as 0.485,0.456,0.406, found '{text}'"
        raise argparse.ArgumentTypeError(message) from None
    return red, green, blue


def _check_pixels(mean: RGB | None, std: RGB | None) -> None:
    if (mean is None) != (std is None):
        raise UserError("give both --mean and --std, or neither")
    if std is not None and min(std) <= 0:
        raise UserError(f"--std must be positive, found {std}")
