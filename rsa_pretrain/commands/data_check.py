"""``rsa-pretrain data-check``: count and decode every image of a data set."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.plumbing.atomic_files import write_text
from rsa_pretrain.plumbing.command_line import Commands, add_overrides, say
from rsa_pretrain.plumbing.config.files import load_config
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.generated_files import check_json

if TYPE_CHECKING:
    from rsa_pretrain.data.split_findings import SplitFindings

PROBLEMS_EXIT_CODE = 1

_SPLITS: tuple[Literal["pretrain", "test"], ...] = ("pretrain", "test")


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "data-check",
        description="Count images and classes, decode every image, and compare with the published "
        "numbers. Exit code 0: no problems found; 1: problems found; 2: the data set cannot be "
        "checked.",
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="file or name of a config")
    parser.add_argument("--split", choices=_SPLITS, help="check only this split (default: both)")
    parser.add_argument(
        "--out", metavar="FILE.json", type=Path, help="write all findings, with each broken image"
    )
    parser.add_argument(
        "--write-sizes",
        metavar="FILE.json",
        type=Path,
        help="webdataset: write the number of images per shard, for data.shard_sizes",
    )
    add_overrides(parser, PretrainConfig)
    parser.set_defaults(command=_data_check)


def _data_check(arguments: argparse.Namespace) -> int:
    config = load_config(PretrainConfig, arguments.config, arguments.overrides).data
    if arguments.write_sizes is not None and config.name != "webdataset":
        raise UserError(f"--write-sizes is for data.name=webdataset, found {config.name}")
    if arguments.out is not None:
        check_json(arguments.out, _SPLITS, inner="problems")
    from rsa_pretrain.data.check import compare_splits, describe

    findings: list[SplitFindings] = []
    for split in _SPLITS if arguments.split is None else (arguments.split,):
        if findings and _has_no_test_split(config):
            say(
                f"test: none (data.test_dir={config.test_dir}, data.root={config.root}); "
                "evaluations need one"
            )
            break
        findings.append(_check(config, split, may_be_absent=bool(findings)))
        if len(findings) == len(_SPLITS):
            compare_splits(*findings)
        for line in describe(findings[-1]):
            say(line)
    if arguments.out is not None:
        _write_json(arguments.out, {split.split: split.to_tree() for split in findings})
    problems = sum(len(split.problems) for split in findings)
    if arguments.write_sizes is not None:
        _write_sizes(arguments.write_sizes, findings)
    say("no problems found" if problems == 0 else f"problems found: {problems}")
    return PROBLEMS_EXIT_CODE if problems else 0


def _check(
    config: DataConfig, split: Literal["pretrain", "test"], *, may_be_absent: bool
) -> "SplitFindings":
    from rsa_pretrain.data.check import check_split
    from rsa_pretrain.data.split_findings import SplitFindings

    try:
        return check_split(config, split)
    except UserError as error:
        if not may_be_absent:
            raise
        return SplitFindings(split, problems=[str(error)])


def _has_no_test_split(config: DataConfig) -> bool:
    """Return whether a user's data set is only for pretraining."""
    if config.name not in ("imagefolder", "webdataset") or config.test_shards is not None:
        return False
    return config.root is None or not (config.root / config.test_dir).exists()


def _write_sizes(path: Path, findings: "list[SplitFindings]") -> None:
    sizes: dict[str, int] = {}
    for split in findings:
        again = sorted(sizes.keys() & split.shard_sizes.keys())
        if again:
            raise UserError(
                f"both splits have a shard '{again[0]}'; write their sizes separately, with --split"
            )
        sizes |= split.shard_sizes
    _write_json(path, sizes)


def _write_json(path: Path, tree: object) -> None:
    write_text(path, json.dumps(tree, indent=2, ensure_ascii=False) + "\n")
    say(f"written: {path}")
