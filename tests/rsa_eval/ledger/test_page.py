from collections.abc import Callable
from pathlib import Path

import pytest

from rsa_eval.__main__ import main
from rsa_eval.record import Record, write_record
from rsa_pretrain.errors import UserError

ROOT = Path(__file__).parents[3]
RSA, ROW = "cifar10/rsa_200ep.yaml", "table2/cifar10/rsa-200ep"

AddTrial = Callable[..., None]
Draw = Callable[[], str]
LinesOf = Callable[[str, str], list[list[str]]]


def test_the_page_of_the_repository_is_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RESULTS.md is what ``make results`` writes."""
    monkeypatch.chdir(ROOT)
    before = Path("RESULTS.md").read_text()
    words = ["ledger", "results", "--notes", "results/notes.md", "--out", "RESULTS.md"]
    monkeypatch.setattr(
        "rsa_eval.ledger.page.write_text", lambda _, text: (tmp_path / "page.md").write_text(text)
    )
    assert main(words) == 0
    assert (tmp_path / "page.md").read_text() == before


def test_without_records_every_row_says_so(draw: Draw, lines_of: LinesOf) -> None:
    """Each row of the paper's tables is there, with the published number and no other."""
    page = draw()
    assert "0 are measured" in page
    ((_, data_set, epochs, batch, published, ours, _),) = lines_of(page, ROW)
    assert [data_set, epochs, batch] == ["CIFAR-10", "200", "256, sgd"]
    assert [published, ours] == ["92.3 ± 0.1", "not yet measured"]
    assert [f"### Table {number}" in page for number in range(1, 10)] == [True] * 8 + [False]
    assert "**" not in page.partition("### Table 1")[2]


def test_notes_are_kept_and_tables_come_at_their_markers(draw: Draw) -> None:
    """Prose stands as it is, in its place."""
    page = draw()
    places = [
        page.index(text)
        for text in ("\n# Ours\n\nBefore.\n", "*Generated", "\nBetween.\n", "### Table 1")
    ]
    assert places == sorted(places)
    assert page.endswith("\n\nBehind | it.\n")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"<!-- study -->", b"", "has 0 lines '<!-- study -->'"),
        (b"Between.", b"<!-- paper -->", "has 2 lines '<!-- paper -->'"),
        (b"Between.", b"\xff", "it is not UTF-8 text"),
    ],
)
def test_notes_without_a_place_for_the_tables_are_refused(
    tmp_path: Path, draw: Draw, old: bytes, new: bytes, message: str
) -> None:
    """Tables are neither lost nor doubled."""
    notes = tmp_path / "notes.md"
    notes.write_bytes(notes.read_bytes().replace(old, new))
    with pytest.raises(UserError, match=message):
        draw()
    assert not (tmp_path / "RESULTS.md").exists()


def test_the_notes_are_not_replaced_by_the_page(
    tmp_path: Path, draw: Draw, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prose is written by hand; whatever the path is spelled like."""
    before = (tmp_path / "notes.md").read_text()
    words = [str(tmp_path / "results"), "--notes", str(tmp_path / "notes.md")]
    out = tmp_path / "results" / ".." / "notes.md"
    assert main(["ledger", *words, "--out", str(out)]) == 2
    assert "would replace --notes" in capsys.readouterr().err
    assert (tmp_path / "notes.md").read_text() == before


def test_the_same_records_make_the_same_page(draw: Draw, add_trial: AddTrial) -> None:
    """No date, no order of the file system."""
    add_trial(ROW, RSA)
    add_trial("table2/cifar10/byol-200ep", "cifar10/byol_200ep.yaml")
    assert draw() == draw()


def test_a_damaged_record_is_named_and_left_out(
    tmp_path: Path,
    draw: Draw,
    add_trial: AddTrial,
    lines_of: LinesOf,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The page is written without it, and the exit code is 2."""
    add_trial(ROW, RSA, values={"top1": 92.0})
    draw()
    damaged = tmp_path / "results" / ROW / "seed-1/records/linear.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    words = [f"{tmp_path}/results", "--notes", f"{tmp_path}/notes.md"]
    assert main(["ledger", *words, "--out", f"{tmp_path}/RESULTS.md"]) == 2
    assert f"record '{damaged}' is not JSON" in capsys.readouterr().err
    page = (tmp_path / "RESULTS.md").read_text()
    assert page.count("**Left out:** record") == 1
    assert lines_of(page, ROW)[0][5] == "**92.00** (seed 0)"


def test_records_of_no_row_stand_behind_the_tables(
    tmp_path: Path,
    draw: Draw,
    add_trial: AddTrial,
    lines_of: LinesOf,
    make_result: Callable[..., Record],
) -> None:
    """A shorter schedule is no row of the paper, and is not lost."""
    add_trial(ROW, RSA, "training.epochs=50", values={"top1": 88.0})
    page = draw()
    assert lines_of(page, ROW)[0][5] == "not yet measured"
    (line,) = (line for line in page.splitlines() if "**88.00**" in line)
    assert "50 epochs on CIFAR-10" in line
    assert page.index("### Beside the tables") < page.index(line)
    write_record(make_result(random_init=True), tmp_path / "results/x/seed-0/records/a.json")
    assert "| random init, resnet18, standard stem | CIFAR-10 |" in draw()
