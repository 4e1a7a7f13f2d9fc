"""The command ``rsa-eval transfer`` on generated trees, embedded sets and an own folder."""

import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import transfer_trees

from rsa_eval.__main__ import main
from rsa_eval.campaigns.campaign import Outcome
from rsa_eval.campaigns.transfer import jobs
from rsa_eval.campaigns.transfer.plan import plan_transfer
from rsa_eval.campaigns.transfer.settings import FURTHER_SETS, KORNBLITH_SETS, TransferConfig
from rsa_eval.campaigns.trials import Trial
from rsa_eval.commands import transfer
from rsa_eval.records.record import read_record
from rsa_eval.report.write import write_report
from rsa_pretrain.plumbing.errors import UserError

pytestmark = pytest.mark.usefixtures("small_counts")

QUICK = [
    *("backbone.arch=resnet18", "backbone.stem=cifar", "image_size=16"),
    *("settings.search.num_values=3", "num_workers=0", "device=cpu"),
]

# Sets of which not every file can be downloaded.
BY_HAND = {"stanford_cars"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with Flowers, which publishes validation images."""
    transfer_trees.flowers102(tmp_path / "data")
    return tmp_path / "data"


def _run(root: Path, out: Path, *words: str) -> int:
    return main(["transfer", "--random-init", f"root={root}", "--out", str(out), *QUICK, *words])


def test_present_sets_are_evaluated_and_absent_ones_listed(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One record per set, by its metric and on its validation images; the table has means."""
    assert _run(root, tmp_path / "out", "--sets", "flowers102,dtd,digits") == 0
    out = capsys.readouterr().out
    assert "absent: dtd: " in out
    assert f"`rsa-pretrain download dtd {root}`" in out
    folder = tmp_path / "out" / "random-resnet18-cifar-seed0" / "records"
    assert sorted(path.name for path in folder.glob("*.json")) == [
        "logistic-digits.json",
        "logistic-flowers102.json",
    ]
    flowers = read_record(folder / "logistic-flowers102.json")
    assert (flowers.protocol, flowers.headline) == ("kornblith", "mean_per_class")
    assert flowers.metrics["mean_per_class"].interval is not None
    assert flowers.details["num_published_validation_images"] == 102
    assert not any("validation images drawn" in text for text in flowers.deviations)
    digits = read_record(folder / "logistic-digits.json")
    assert digits.headline == "top1"
    assert "validation images drawn by class (protocol: its authors' own draw)" in digits.deviations
    table = (tmp_path / "out" / "transfer.md").read_text(encoding="utf-8")
    assert "flowers102 (% per class)" in table
    assert "Mean of 2" in table
    assert "BYOL, ResNet-50 (BYOL, Table 3)" in table
    assert "Numbers in brackets are 95 % intervals over test images" in table
    assert digits.warnings
    assert f"logistic-digits of {folder.parent.name}: {digits.warnings[0][:20]}" in table


@pytest.mark.process
def test_a_rerun_evaluates_nothing_again(
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Records are kept, also those that another process made, of which a line tells each."""
    caplog.set_level(logging.INFO)
    words = ("--sets", "digits,scattered_digits", "protocol=ridge", "--jobs", "2")
    assert _run(root, tmp_path / "out", *words) == 0
    first, progress = capsys.readouterr().out, caplog.text
    log, found = tmp_path / "out" / "logs" / "digits.log", r"\d+\.\d \[.*\] %"
    assert f" digits: started, {log}\n" in progress
    assert re.search(f" digits: recorded, {found}$", progress, re.MULTILINE)
    logs = sorted(path.name for path in (tmp_path / "out" / "logs").iterdir())
    assert logs == ["digits.log", "scattered_digits.log"]
    records = sorted((tmp_path / "out").rglob("records/*.json"))
    content = [path.read_bytes() for path in records]
    assert [path.name for path in records] == ["ridge-digits.json", "ridge-scattered_digits.json"]
    assert read_record(records[0]).protocol == "ridge"
    assert _run(root, tmp_path / "out", *words[:3]) == 0
    assert capsys.readouterr().out == first
    assert [path.read_bytes() for path in records] == content
    shutil.rmtree(tmp_path / "out" / "logs")
    assert _run(root, tmp_path / "out", *words) == 0  # starts no process
    assert capsys.readouterr().out == first
    assert not (tmp_path / "out" / "logs").exists()


def test_the_end_of_a_set_reads_its_records_only(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Those of the other sets are read once, after all have ended."""
    words = ("--sets", "digits,scattered_digits", "protocol=ridge")
    assert _run(root, tmp_path / "out", *words) == 0
    found = []
    for path in sorted((tmp_path / "out").rglob("records/*.json")):
        found.append(path.read_bytes())
        path.unlink()

    def run(commands: Mapping[str, object], _: int, __: Path, ___: None, tell: Any) -> Any:
        folder = tmp_path / "out" / "random-resnet18-cifar-seed0" / "records"
        for name, content in zip(sorted(commands), found, strict=True):
            (folder / f"ridge-{name}.json").write_bytes(content)
            tell(name, 0)
        return dict.fromkeys(commands, 0), 0

    read: list[list[str]] = []
    read_outcome = jobs.read_outcome

    def counted(trials: Sequence[Trial]) -> Outcome:
        read.extend(trial.record_names for trial in trials)
        return read_outcome(trials)

    monkeypatch.setattr(jobs.processes, "run_in_processes", run)
    monkeypatch.setattr(jobs, "read_outcome", counted)
    caplog.set_level(logging.INFO)
    assert _run(root, tmp_path / "out", *words, "--jobs", "2") == 0
    names = ["ridge-digits", "ridge-scattered_digits"]
    assert read == [names[:1], names[1:], names]
    assert re.search(r" scattered_digits: recorded, [\d.]+ \[[^]]*\] %$", caplog.text, re.MULTILINE)


@pytest.mark.parametrize("code", [2, -9])
def test_a_failed_process_is_reported_and_its_set_left(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: int,
) -> None:
    """Its records are missing; this process names the log and does not make them itself."""
    from rsa_eval.campaigns.transfer import processes

    monkeypatch.setattr(processes, "run_in_processes", lambda *_: ({"digits": code}, 0))
    assert _run(tmp_path, tmp_path / "out", "--sets", "digits", "--jobs", "2") == 2
    said = capsys.readouterr()
    error = said.err.splitlines()[-1]
    assert error.startswith("error: 1 of 1 evaluations failed; rerun the command to retry: ")
    assert f"exit code {code}; see {tmp_path / 'out' / 'logs' / 'digits.log'}" in error
    assert "Mean of" not in said.out  # no record, no table
    assert not list(tmp_path.rglob("records/*.json"))


def test_jobs_are_for_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under torchrun each of its processes would start all of them."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert _run(tmp_path, tmp_path / "out", "--sets", "digits", "--jobs", "2") == 2
    assert "start without torchrun" in capsys.readouterr().err


def test_images_of_several_classes(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """VOC 2007 is measured by mAP at eleven points, beside the published rows."""
    assert _run(root, tmp_path / "out", "--sets", "voc2007,digits") == 0
    folder = root / "VOCdevkit" / "VOC2007"
    lack = f"absent: voc2007: no ImageSets in '{folder}'; run `rsa-detect download voc2007 {root}`"
    assert lack in capsys.readouterr().out
    transfer_trees.voc2007(root)
    assert _run(root, tmp_path / "out", "--sets", "voc2007,digits") == 0
    (path,) = (tmp_path / "out").rglob("records/logistic-voc2007.json")
    record = read_record(path)
    assert (record.data_set, record.headline) == ("voc2007", "mAP_11_points")
    assert record.details["num_published_validation_images"] == 12
    shown = f"{record.metrics['mAP_11_points'].value:.1f}"
    assert shown in (tmp_path / "out" / "transfer.md").read_text(encoding="utf-8")
    # What only some sets can set does not split the report's row.
    write_report([tmp_path / "out"], tmp_path / "report.html")
    page = (tmp_path / "report.md").read_text(encoding="utf-8").splitlines()
    (start,) = [n for n, line in enumerate(page) if "Mean of 2" in line]
    assert page[start + 2].startswith("| random weights")
    assert page[start + 3].startswith("| BYOL")
    assert _run(root, tmp_path / "ridge", "--sets", "voc2007", "protocol=ridge") == 0
    (path,) = (tmp_path / "ridge").rglob("records/ridge-voc2007.json")
    record = read_record(path)
    assert (record.protocol, record.headline) == ("ridge", "mAP_11_points")
    assert record.metrics["mAP_11_points"].interval is not None
    assert record.predictions is not None


def test_a_part_of_voc2007_is_refused(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its column would stand above published numbers of all images."""
    transfer_trees.voc2007(root)
    for path in (root / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main").glob("*_test.txt"):
        path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    assert _run(root, tmp_path / "out", "--sets", "voc2007") == 2
    error = capsys.readouterr().err
    assert "have 11 images and 2 classes, as published voc2007 has 12 and 2; move" in error
    assert not list(tmp_path.rglob("records/*.json"))


@pytest.mark.real_data
def test_ridge_of_real_satellite_images(rsa_data: Path, tmp_path: Path) -> None:
    """Ten classes of EuroSAT, from random features of 600 images: above chance on 300 others."""
    own = {"name": "imagefolder", "root": rsa_data / "eurosat_mini"}
    own |= {"num_train_images": 600, "num_test_images": 300}
    words = [f"own_sets.satellite.{key}={value}" for key, value in own.items()]
    words.append("settings.search.num_values=12")
    out = tmp_path / "out"
    assert _run(rsa_data, out, "--sets", "satellite", "protocol=ridge", *words) == 0
    (path,) = out.rglob("records/ridge-satellite.json")
    record = read_record(path)
    assert record.num_samples == 300
    interval = record.metrics["top1"].interval
    assert interval is not None
    assert interval.low > 15  # chance is 10
    assert len(record.details["leave_one_out"]) == 12


def test_own_sets(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder of the user's is a column; a published name is refused."""
    names = [
        f"{part}/{label}/{n}.png" for part in ("train", "val") for label in "ab" for n in range(4)
    ]
    transfer_trees.write_images(tmp_path / "mine", names, "PNG")
    own = ("own_sets.mine.name=imagefolder", f"own_sets.mine.root={tmp_path / 'mine'}")
    assert _run(root, tmp_path / "out", "--sets", "mine", *own) == 0
    assert "mine (%)" in capsys.readouterr().out
    assert not (tmp_path / "out" / "transfer.md").exists()  # of several sets
    assert _run(root, tmp_path / "out", "own_sets.dtd.name=imagefolder") == 2
    assert "own_sets: 'dtd' is the name of a published set" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--sets", "dtd,dtd"), "expected different names like dtd,pcam, found 'dtd,dtd'"),
        (("--sets", "imagenet1"), "unknown data set 'imagenet1'; .*expected some of .*voc2007"),
        (("--sets", "digit"), "unknown data set 'digit'; did you mean 'digits'\\? expected some"),
        (("--sets", "a", "own_sets.a.root=x"), "^error: own_sets.a: 'name' is required"),
        (("--sets", "dtd,svhn"), "none of 2 data sets is on disk; dtd: .*; svhn: "),
        (("--sets", "digits", "settings.serach.num_values=3"), "digits: .*serach"),
        (
            ("settings.protocol=dinov2",),
            "'settings': 'protocol' is set for the suite; use protocol",
        ),
        (("settings.data.root=x",), "'data.root' is set for the suite; use root or own_sets"),
        (("settings.backbone.arch=resnet50",), "'backbone.arch' is set for the suite; use backb"),
        (("own_sets={../../up: {name: digits}}",), "'../../up' names files; use only letters"),
        (("--jobs", "0"), "expected a whole number above 0, found '0'"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    """Each names what was found and what is expected."""
    assert _run(tmp_path, tmp_path / "out", *words) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(err)


def test_every_set_of_the_suite_says_what_to_fetch(tmp_path: Path) -> None:
    """Without any file, each is listed, with the command or the address, and its folder."""
    root = tmp_path / "my data"
    config = TransferConfig(root=root)
    plan = plan_transfer(config, (*KORNBLITH_SETS, *FURTHER_SETS, "digits"), tmp_path)
    assert [entry.name for entry in plan.evaluations] == ["logistic-digits"]
    assert plan.absent.keys() == {*KORNBLITH_SETS, *FURTHER_SETS}
    for name, reason in plan.absent.items():
        program = "rsa-detect" if name == "voc2007" else "rsa-pretrain"
        is_command = f"`{program} download {name} '{root}'`" in reason
        is_address = f"{root}/" in reason and "https://" in reason
        assert is_command or (is_address and name in BY_HAND), reason
    with pytest.raises(UserError, match="none of 18 data sets is on disk"):
        plan_transfer(config, None, tmp_path)


@pytest.mark.process
def test_a_budget_stops_all_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command ends as its processes do, and does not start over by itself."""
    words = ("--sets", "digits,scattered_digits", "--jobs", "2", "--budget-minutes", "1e-6")
    assert _run(tmp_path, tmp_path / "out", *words) == 142
    assert not list(tmp_path.rglob("records/*.json"))
    assert "stopped; 2 of 2 evaluations remain" in capsys.readouterr().out


def test_the_table_is_written_before_it_is_printed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever becomes of standard output, the file is there."""

    def refuse(text: str) -> None:
        raise UserError("no output")

    monkeypatch.setattr(transfer, "say", refuse)
    assert _run(root, tmp_path / "out", "--sets", "flowers102,digits") == 2
    assert "Mean of 2" in (tmp_path / "out" / "transfer.md").read_text(encoding="utf-8")
