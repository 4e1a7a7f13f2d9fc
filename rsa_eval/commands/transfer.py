"""``rsa-eval transfer``: evaluate checkpoints on many data sets."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rsa_eval.campaigns.transfer.settings import FURTHER_SETS, KORNBLITH_SETS, TransferConfig
from rsa_eval.commands.campaigns import HOW_IT_RUNS, add_budget, conclude
from rsa_eval.commands.given_features import refuse_features_option
from rsa_eval.commands.outputs import check_output_folder
from rsa_eval.commands.subjects import CHECKPOINTS, check_checkpoints, split_checkpoints
from rsa_pretrain.plumbing.atomic_files import write_text
from rsa_pretrain.plumbing.command_line import Commands, add_overrides, positive, say
from rsa_pretrain.plumbing.config.files import load_config
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.text_table import escape_markdown

if TYPE_CHECKING:
    from rsa_eval.campaigns.campaign import Outcome
    from rsa_eval.campaigns.transfer.plan import TransferPlan
    from rsa_eval.campaigns.trials import Trial
    from rsa_eval.records.record import Record
    from rsa_eval.report.transfer import TransferTable

_TABLE_FILE = "transfer.md"
_LOGS = "logs"

_DESCRIPTION = f"""\
Evaluate every CHECKPOINT on each data set of the transfer suite that is on disk, and print a table
with the mean, the mean rank and the published rows.

{CHECKPOINTS}

The sets are those of Kornblith et al. 2019, as in BYOL's Table 3:
{", ".join(KORNBLITH_SETS[:6])},
{", ".join(KORNBLITH_SETS[6:])};
and {", ".join(FURTHER_SETS)}. Those missing below `root` are listed with how to get
them. Each set has its published split and the metric usually reported for it.

The records are FOLDER/CHECKPOINT-HASH/records/PROTOCOL-SET.json, the table of several sets is
FOLDER/{_TABLE_FILE}, and `rsa-eval report FOLDER` writes a page. Several processes, on any
machines, may work in the same FOLDER on different --sets; --jobs starts them here.

{HOW_IT_RUNS}"""

_EXAMPLES = """\
examples:
  rsa-eval transfer runs/imagenet-rsa-100ep root=data
  rsa-eval transfer runs/rsa runs/byol --random-init --sets cifar10,flowers102 --jobs 2
  rsa-eval transfer timm:vit_small_patch16_224@vit.safetensors --sets dtd settings.tokens=cls
  rsa-eval transfer runs/photos --sets photos own_sets.photos.name=imagefolder \\
      own_sets.photos.root=photos protocol=ridge"""


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("transfer", description=_DESCRIPTION, epilog=_EXAMPLES)
    parser.add_argument(
        "--sets",
        metavar="SET,…",
        type=_names,
        help="published sets, or those of own_sets (default: the suite's and own_sets)",
    )
    parser.add_argument(
        "--random-init",
        action="store_true",
        help="add random weights of the same networks, or of backbone.arch and backbone.stem",
    )
    parser.add_argument(
        "--config", metavar="CONFIG", type=Path, help="settings of the suite: a YAML file"
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        type=Path,
        default=Path("runs") / "transfer",
        help="default: %(default)s",
    )
    parser.add_argument(
        "--jobs",
        metavar="N",
        type=positive,
        default=1,
        help="data sets at a time, one process each",
    )
    add_budget(parser)
    refuse_features_option(parser)
    parser.usage = "rsa-eval transfer [options] [CHECKPOINT ...]"
    add_overrides(parser, TransferConfig)
    parser.set_defaults(command=_transfer)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(word.strip() for word in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"expected different names like dtd,pcam, found '{text}'")
    return names


def _transfer(arguments: argparse.Namespace) -> int:
    checkpoints, overrides = split_checkpoints(arguments.overrides)
    check_checkpoints(checkpoints, arguments.random_init)
    config = load_config(TransferConfig, arguments.config, overrides)
    check_output_folder(arguments.out)
    if arguments.jobs > 1 and os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError("--jobs starts processes itself; leave it out, or start without torchrun")
    from rsa_eval.campaigns.campaign import read_outcome, run_trials
    from rsa_eval.campaigns.suite import plan_suite
    from rsa_eval.campaigns.transfer.plan import plan_transfer

    out = arguments.out
    plan = plan_transfer(config, arguments.sets, out / "features")
    trials = plan_suite(
        plan.shared(config),
        plan.evaluations,
        checkpoints,
        out,
        random_init=arguments.random_init,
    )
    if arguments.jobs > 1 and (missing := read_outcome(trials).missing):
        sets = {name: name.removeprefix(f"{config.protocol}-") for _, name in missing}
        # Their files: a training in their folders must not give the processes different weights.
        files = {str(trial.checkpoint): trial.file for trial in trials if trial.file is not None}
        found = ((str(one), files.get(str(one))) for one in checkpoints)
        words = [name if file is None else os.path.join(os.curdir, file) for name, file in found]
        outcome = _run_jobs(arguments, [*words, *overrides], trials, sets)
    else:
        outcome = run_trials(trials, arguments.budget_minutes)
    if not outcome.stopped:
        written = _write_table(plan, trials, outcome, config, out) if outcome.records else []
        for name, reason in plan.absent.items():
            say(f"absent: {name}: {reason}")
        for text in written:
            say(text)
    return conclude(outcome)


def _run_jobs(
    arguments: argparse.Namespace,
    words: Sequence[str],
    trials: "list[Trial]",
    sets: Mapping[str, str],
) -> "Outcome":
    """Evaluate data sets, by the names of their records, in a process each; read all records."""
    from rsa_eval.campaigns.transfer.jobs import TransferJobs

    start = [sys.executable, "-m", "rsa_eval", "transfer", *words]
    start += ["--out", str(arguments.out)]
    if arguments.random_init:
        start.append("--random-init")
    if arguments.config is not None:
        start += ["--config", str(arguments.config)]
    commands = {name: [*start, "--sets", name] for name in sets.values()}
    jobs = TransferJobs(trials, commands, sets, arguments.out / _LOGS)
    return jobs.run(arguments.jobs, arguments.budget_minutes)


def _write_table(
    plan: "TransferPlan",
    trials: "list[Trial]",
    outcome: "Outcome",
    config: TransferConfig,
    out: Path,
) -> list[str]:
    """Write the table, unless it has a single set, and return what to print of it."""
    from rsa_eval.report.transfer import transfer_notes

    table = _table(plan, trials, outcome, config)
    notes = transfer_notes(outcome.records)
    printed = ["\n".join([table.render(), *notes])]
    if len(plan.evaluations) > 1:  # a process of one set must not replace the table of all
        path = out / _TABLE_FILE
        paragraphs = [table.render("markdown"), *map(escape_markdown, notes)]
        write_text(path, "\n\n".join(paragraphs) + "\n")
        printed.append(f"table: {path}")
    return printed


def _table(
    plan: "TransferPlan",
    trials: "list[Trial]",
    outcome: "Outcome",
    config: TransferConfig,
) -> "TransferTable":
    from rsa_eval.report.transfer import (
        PUBLISHED_PROTOCOLS,
        ModelTransfer,
        repeated_sets,
        transfer_table,
    )

    prefix = f"{config.protocol}-"
    models = []
    known: dict[str, Record] = {}
    for trial in trials:
        found = {
            entry.name.removeprefix(prefix): outcome.records[trial.name, entry.name]
            for entry in plan.evaluations
            if (trial.name, entry.name) in outcome.records
        }
        models.append(ModelTransfer.of(trial.label, found))
        known |= found
    names = [entry.name.removeprefix(prefix) for entry in plan.evaluations]
    firsts = {name: known[name] for name in names if name in known}
    columns = {name: record.headline for name, record in firsts.items()}
    published = PUBLISHED_PROTOCOLS[plan.evaluations[0].config.protocol]
    return transfer_table(models, columns, published, repeated=repeated_sets(firsts))
