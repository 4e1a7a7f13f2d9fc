"""``rsa-eval serve``: show records, and runs while they train, in a browser."""

import argparse
from pathlib import Path

from rsa_pretrain.plumbing.command_line import Commands, say

_DEFAULT_PORT = 8765
_LAST_PORT = 65_535


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "serve",
        description=(
            "Serve the report as a web page to browsers on this machine, and keep it up to date:\n"
            "how far each run is, its curves while it trains, and the tables of `rsa-eval report`\n"
            "as records appear. Ctrl-C ends it.\n\n"
            "RUNS are run folders (of pretraining or detection), record files, or folders of\n"
            "either, such as a sweep. A folder may be empty still. Files are only read.\n\n"
            "The page is at 127.0.0.1, which other machines cannot reach. To watch runs of a\n"
            "server, forward the port: ssh -L 8765:127.0.0.1:8765 SERVER."
        ),
        epilog=(
            "examples:\n"
            "  rsa-eval serve runs\n"
            "  rsa-eval serve runs/cifar10-rsa runs/cifar10-byol --port 0"
        ),
    )
    parser.add_argument("runs", metavar="RUNS", nargs="+", type=Path, help="runs and records")
    parser.add_argument(
        "--port",
        metavar="N",
        type=_port,
        default=_DEFAULT_PORT,
        help="port to serve at; 0 takes any free one (default: %(default)s)",
    )
    parser.set_defaults(command=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    from rsa_eval.serve.app import App
    from rsa_eval.serve.server import ReportServer

    server = ReportServer(App(arguments.runs), arguments.port)
    say(f"serving: {server.url} (Ctrl-C ends it)")
    return server.serve()


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _LAST_PORT:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to {_LAST_PORT}, found '{text}'")
    return int(text)
