import csv
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from recipe_trees import recipe_tree

from rsa_eval.__main__ import main
from rsa_eval.records.detection_recipe import recipe_fingerprint
from rsa_eval.records.record import Record, write_record
from rsa_eval.report.write import write_report
from rsa_pretrain.plumbing.errors import UserError

MakeResult = Callable[..., Record]
WriteLog = Callable[..., None]
RSA = "cifar10/rsa"


def _rows(page: str) -> list[str]:
    return [" ".join(re.sub(r"<[^>]*>", " ", row).split()) for row in page.split("<tr")]


class _Elements(HTMLParser):
    """Collects the elements of a page and what scripts hold."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] == "script":
            self.scripts.append(data)


def test_numbers_baseline_difference_and_published(tmp_path: Path, make_result: MakeResult) -> None:
    """The page and the Markdown hold the record's numbers, and others' beside them."""
    write_record(make_result(), tmp_path / "run/records/a.json")
    baseline = make_result(random_init=True, values={"top1": 40.5, "top5": 90.0})
    write_record(baseline, tmp_path / "random/records/a.json")
    assert write_report([tmp_path], tmp_path / "report.html") == []
    page = (tmp_path / "report.html").read_text()
    assert any("91.25 +50.75 99.50" in row for row in _rows(page))
    assert any("random weights" in row and "40.50" in row for row in _rows(page))
    assert any("92.58" in row and "solo-learn" in row for row in _rows(page))
    table = (tmp_path / "report.md").read_text()
    assert "| 91.25 | 99.50 |  |  | +50.75 | seed 0 |" in table
    assert "BYOL (published) | 92.58 |" in table


def test_neighbours_on_imagenette_beside_lightlys(tmp_path: Path, make_trial: MakeResult) -> None:
    """Both schedules, with what differs: the best epoch is named as such."""
    record = make_trial("imagenette/byol", kind="knn", protocol="weighted_vote")
    write_record(record, tmp_path / "run/records/a.json")
    assert write_report([tmp_path], tmp_path / "report.html") == []
    page = (tmp_path / "report.html").read_text()
    (elsewhere,) = re.findall(r"Published elsewhere, for orientation.*?</table>", page, re.DOTALL)
    for epochs, top1 in ((200, "70.5"), (800, "88.7")):
        setting = f"ResNet-18, {epochs} epochs, batch 256, k=200, best epoch"
        assert any(top1 in row and setting in row for row in _rows(elsewhere))
    assert "| BYOL (published) | 88.7 |" in (tmp_path / "report.md").read_text()


def test_ours_beside_the_papers_in_every_format(tmp_path: Path, make_trial: MakeResult) -> None:
    """RSA's cell of Table 2: three trials, and a footnote for the batch."""
    for seed, top1 in enumerate((92.0, 92.2, 92.4)):
        record = make_trial(RSA, "training.global_batch_size=64", seed=seed, values={"top1": top1})
        write_record(record, tmp_path / f"runs/{seed}/records/linear.json")
    write_report([tmp_path / "runs"], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert any(row.startswith("> RSA 92.20 ± 0.20 1 92.3 ± 0.1 93.7") for row in _rows(page))
    assert (
        "| RSA | **92.20 ± 0.20** [1], 92.3 ± 0.1 | 93.7 |" in (tmp_path / "report.md").read_text()
    )
    latex = (tmp_path / "report.tex").read_text()
    assert r"RSA & \textbf{92.20 $\pm$ 0.20}\textsuperscript{1} / 92.3$\pm$0.1 & 93.7 &" in latex
    assert r"[1] pretraining: training.global\_batch\_size 64 (recipe: 256)" in latex
    lines = list(csv.DictReader(io.StringIO((tmp_path / "report.csv").read_text())))
    (ours,) = (line for line in lines if (line["table"], line["source"]) == ("Table 2", "ours"))
    assert (ours["row"], ours["column"], ours["n"]) == ("RSA", "CIFAR-10 200 ep", "3")
    assert float(ours["mean"]) == pytest.approx(92.2)
    assert float(ours["std"]) == pytest.approx(0.2)
    assert ours["trials"] == "seed 0: 92.00, seed 1: 92.20, seed 2: 92.40"
    assert ours["files"].count("linear.json") == 3


def test_detectors_stand_with_their_recipe_in_every_format(
    tmp_path: Path, make_result: MakeResult
) -> None:
    """Two recipes of one name are two tables, told by the fingerprints in their titles."""
    name = "mask_rcnn_R_50_FPN_1x"
    marks = []
    for number, words in enumerate(([], ["solver.base_lr=0.01"])):
        tree = recipe_tree(name, *words)
        marks.append(recipe_fingerprint(tree))
        record = make_result(
            kind="detection",
            data_set="coco",
            num_samples=5_000,
            protocol=name,
            config=json.loads(json.dumps(tree, default=str)),
            values={"bbox_AP": 41.5 + number},
        )
        write_record(record, tmp_path / f"runs/{number}/records/detection.json")
    write_report([tmp_path / "runs"], tmp_path / "report.html")
    page, markdown, latex, lines = (
        (tmp_path / f"report.{suffix}").read_text() for suffix in ("html", "md", "tex", "csv")
    )
    title = "Object detection and instance segmentation on COCO"
    for mark, other in (marks, marks[::-1]):
        assert f"<h2>{title} [{mark}]</h2>" in page
        assert f"COCO · object detection and instance segmentation [{mark}]</div>" in page
        assert rf"### {title} \[{mark}\]" in markdown
        assert f"[{mark}]" in latex
        own = [line for line in lines.splitlines() if line.startswith(f"{title} [{mark}],")]
        assert own
        assert all(f",{mark}," in line and f",{other}," not in line for line in own)
    assert page.count("Published, by the same recipe") == 1
    assert "Published elsewhere" not in page
    assert "InfoMin Aug. (published) | 40.6 |" in markdown


def test_latex_tables_are_whole(tmp_path: Path, make_trial: MakeResult) -> None:
    """Every line of a table has as many cells as the table has columns; braces match."""
    write_record(make_trial(RSA, deviations=["a {b"]), tmp_path / "records/a.json")
    write_report([tmp_path], tmp_path / "report.html")
    latex = (tmp_path / "report.tex").read_text()
    plain = latex.replace(r"\{", "").replace(r"\}", "").replace(r"\&", "")
    assert plain.count("{") == plain.count("}")
    tables = re.findall(r"\\begin{tabular}{([lr]+)}(.*?)\\end{tabular}", plain, re.DOTALL)
    assert len(tables) == 8
    for columns, body in tables:
        for line in body.splitlines():
            if line.endswith(r"\\") and "multicolumn" not in line:
                assert line.count("&") == len(columns) - 1, line


EVIL = "</script></style></title><script>alert(1)</script><img src=x onerror=alert(1)>"


def test_nothing_from_outside_becomes_markup(
    tmp_path: Path, make_trial: MakeResult, write_log: WriteLog
) -> None:
    """Data set, paths, metrics, protocol, settings, titles, categories and logs stay text."""
    record = make_trial(
        RSA,
        data_set=EVIL,
        protocol=EVIL,
        deviations=[EVIL],
        headline=EVIL,
        values={EVIL: 1.0},
        hardware=EVIL,
        config={EVIL: EVIL},
        command=[EVIL],
        library_versions={EVIL: EVIL},
        details={EVIL: [{EVIL: EVIL}]},
        artifacts={EVIL: EVIL, f'" onload="{EVIL}': "good.png"},
    )
    path = tmp_path / 'x" onmouseover="alert(1)' / "a.json"
    model = record.model.model_copy(update={"checkpoint": f"{EVIL}/b/c"})
    write_record(record.model_copy(update={"model": model}), path)
    Image.new("RGB", (4, 4)).save(path.parent / "good.png")
    run = tmp_path / "<b>run"
    write_log(run, lines=[{"step": 1, "loss": 1.0, f"loss_{EVIL}": 1.0}])
    (run / "config.yaml").write_text(EVIL)
    write_report([path, run], tmp_path / "report.html")
    page = _Elements((tmp_path / "report.html").read_text())
    assert [tag for tag, _ in page.found].count("script") == 1
    assert not any("alert(1)" in text for text in page.scripts)
    images = [attributes for tag, attributes in page.found if tag == "img"]
    assert [sorted(image) for image in images] == [["alt", "src"]]
    names = {name for _, attributes in page.found for name in attributes}
    assert not {name for name in names if name.startswith("on")}
    assert "b" not in [tag for tag, _ in page.found]
    markdown = (tmp_path / "report.md").read_text()
    assert not re.search(r"<[a-z/]", markdown)
    assert "alert" in markdown


def test_latex_and_spreadsheet_run_nothing(tmp_path: Path, make_trial: MakeResult) -> None:
    """A data set named like a formula or a command is neither."""
    for number, name in enumerate((r"\input{/etc/passwd}", "=HYPERLINK(1)", "@SUM(1)")):
        record = make_trial(RSA, data_set=name, deviations=[name], values={name: 1.0})
        write_record(record, tmp_path / f"records/{number}.json")
    write_report([tmp_path], tmp_path / "report.html")
    assert r"\input" not in (tmp_path / "report.tex").read_text()
    lines = csv.reader(io.StringIO((tmp_path / "report.csv").read_text()))
    cells = [cell for line in lines for cell in line]
    assert "'=HYPERLINK(1)" in cells
    assert not [cell for cell in cells if cell.startswith(("=", "@", "+"))]


def test_page_loads_nothing(tmp_path: Path, make_result: MakeResult, write_log: WriteLog) -> None:
    """No script, style sheet, image or font comes from outside the file, nor may any."""
    write_record(make_result(), tmp_path / "runs/a/records/x.json")
    write_log(tmp_path / "runs/a")
    write_report([tmp_path / "runs"], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert not re.search(r"https?:", page)
    assert not re.search(r"<(link|iframe|object|embed|base)\b|@import|\bsrc=|url\((?!#)", page)
    assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', page))
    assert "default-src 'none'" in page
    assert page.count("<svg") == 3
    assert "4711" in page


@pytest.mark.parametrize(("num_runs", "num_open"), [(4, 4), (5, 0)])
def test_many_runs_are_folded(
    tmp_path: Path, write_log: WriteLog, num_runs: int, num_open: int
) -> None:
    """The curves of a study's runs would bury the rest of the page."""
    for number in range(num_runs):
        write_log(tmp_path / f"runs/{number}")
    write_report([tmp_path / "runs"], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count('<details class="run"') == num_runs
    assert page.count('<details class="run" open>') == num_open


def test_every_link_leads_somewhere_on_the_page(tmp_path: Path, make_trial: MakeResult) -> None:
    """Contents and footnotes name elements that are there, and no name is given twice."""
    write_record(make_trial(RSA, deviations=["odd"]), tmp_path / "records/x.json")
    write_report([tmp_path], tmp_path / "report.html")
    found = _Elements((tmp_path / "report.html").read_text()).found
    names = [attributes["id"] for _, attributes in found if "id" in attributes]
    assert len(names) == len(set(names))
    targets = {attributes["href"] for tag, attributes in found if tag == "a"}
    assert {f"#{name}" for name in names} >= targets
    assert "#table-1-note-1" in targets
    assert "#paper-2-note-1" in targets


def test_pictures_and_lists_of_a_record(tmp_path: Path, make_result: MakeResult) -> None:
    """A PNG is shown, another file named with the reason, and AP by category listed."""
    categories = [
        {"name": "cat", "num_objects": 3, "bbox_AP": 41.25, "segm_AP": None},
        {"name": "dog", "num_objects": 5, "bbox_AP": 12.5, "segm_AP": 10.0},
    ]
    record = make_result(
        artifacts={"The map": "map.png", "The page": "page.html"},
        details={"by_category": categories, "loss_by_epoch": [1.0], "engine": "x"},
    )
    write_record(record, tmp_path / "records/a.json")
    Image.new("RGB", (4, 4)).save(tmp_path / "records/map.png")
    (tmp_path / "records/page.html").write_text("<p>")
    write_report([tmp_path], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count('<img src="data:image/png;base64,') == 1
    assert "The page: page.html (not shown: not an image; see the file beside the record)" in page
    assert any(row.endswith("cat 3 41.25") for row in _rows(page))
    assert any("dog 5 12.5 10" in row for row in _rows(page))


def test_corrupt_record_is_named_and_the_rest_reported(
    tmp_path: Path, make_result: MakeResult, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page is written without it and says so; the command fails and says so."""
    write_record(make_result(), tmp_path / "records/good.json")
    (tmp_path / "records/bad.json").write_text("{")
    out = tmp_path / "report.html"
    assert main(["report", str(tmp_path), "--out", str(out)]) == 2
    captured = capsys.readouterr()
    errors = captured.err.splitlines()
    assert [line for line in errors if "bad.json" in line] == errors
    assert errors[0].startswith("error: ")
    page = out.read_text()
    assert "bad.json" in page
    assert "91.25" in page
    assert "bad.json" in out.with_suffix(".md").read_text().replace("\\", "")
    written = [line.rpartition(".")[2] for line in captured.out.splitlines()]
    assert written == ["html", "md", "tex", "csv"]


def test_records_found_twice_count_once(tmp_path: Path, make_result: MakeResult) -> None:
    """A run and its parent folder given together do not double a row."""
    write_record(make_result(), tmp_path / "run/records/x.json")
    write_report([tmp_path, tmp_path / "run"], tmp_path / "out/report.html")
    assert (tmp_path / "out/report.md").read_text().count("91.25") == 1


def test_other_json_of_a_run_is_no_record(
    tmp_path: Path, make_result: MakeResult, write_log: WriteLog
) -> None:
    """Predictions, annotations and a sweep's summary are not taken for damaged records."""
    write_log(tmp_path / "run", machines=("A",))
    (tmp_path / "run/predictions.json").write_text("[]")
    (tmp_path / "sweep.json").write_text("{}")
    (tmp_path / "data/annotations").mkdir(parents=True)
    (tmp_path / "data/annotations/instances.json").write_text("{}")
    assert write_report([tmp_path / "run"], tmp_path / "report.html") == []
    assert write_report([tmp_path], tmp_path / "report.html") == []


def test_nothing_to_report_is_an_error(tmp_path: Path) -> None:
    """An empty or absent folder is named, and no page is written."""
    with pytest.raises(UserError, match="nothing to report"):
        write_report([tmp_path], tmp_path / "report.html")
    with pytest.raises(
        UserError, match=r"does not exist; expected a run folder, a record, or a folder of either$"
    ):
        write_report([tmp_path / "absent"], tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []
