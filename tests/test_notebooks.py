"""The notebooks of docs/notebooks run in an empty folder and show what their records state."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from rsa_eval import compare_sides, read_predictions, read_record, read_side, sentences
from rsa_pretrain import load_backbone

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs/notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
COMMAND = re.compile(r"^!.*$", re.MULTILINE)
MACHINE_PATH = re.compile(r"(^|[\s'\"(])(/(home|mnt|opt|root|tmp|work|Users)\b|[A-Z]:\\)")
ACCURACY = r"(\d+\.\d \[\d+\.\d, \d+\.\d\])"


def load(name):
    """Read a notebook as it is stored."""
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=nbformat.NO_CONVERT)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_stored_without_results(name):
    """No output, no number of a run, no editor's settings: a change is a change of the text."""
    notebook = load(name)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata == METADATA
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    for cell in notebook.cells:
        assert re.fullmatch(r"[a-z][a-z-]+", cell.id), "a name, not a random number"
        assert cell.metadata == {}
        assert cell.source == cell.source.strip("\n")
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("name", NAMES)
def test_code_is_clean(name):
    """Python beside lines of commands, as ruff wants it; a command is one of this toolkit."""
    for cell in load(name).cells:
        if cell.cell_type == "code":
            ast.parse(COMMAND.sub("pass", cell.source))
            for command in COMMAND.findall(cell.source):
                assert re.match(r"!rsa-(pretrain|eval) [a-z-]+ ", command), command
    ruff, path = Path(sys.executable).with_name("ruff"), f"docs/notebooks/{name}.ipynb"
    for words in (["check"], ["format", "--check"]):
        done = subprocess.run([ruff, *words, path], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
        assert "No Python files found" not in done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_text_fits_any_machine(name):
    """It says how to start, in short lines, without the paths of a machine."""
    cells = load(name).cells
    assert cells[0].source.startswith("# ")
    assert f"jupyter lab docs/notebooks/{name}.ipynb" in cells[0].source
    for cell in cells:
        assert not MACHINE_PATH.search(cell.source), cell.id
        lines = [line for line in cell.source.splitlines() if not line.startswith("|")]
        assert all(len(line) <= 120 for line in lines), cell.id


def execute(name, folder, monkeypatch, **parameters):
    """Run a notebook in a folder with the code of this checkout; a failing cell is an error.

    Args:
        name: The notebook.
        folder: Where it finds and leaves files.
        monkeypatch: Sets the environment of its kernel.
        parameters: Values that its cell of parameters gets for its own.

    Returns:
        The outputs of each cell by its name.
    """
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    notebook = load(name)
    (cell,) = (cell for cell in notebook.cells if cell.id == "parameters")
    for key, value in parameters.items():
        cell.source, count = re.subn(rf"^{key} = \S+", f"{key} = {value}", cell.source, flags=re.M)
        assert count == 1
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=300, resources=resources).execute()
    return {cell.id: cell.get("outputs", []) for cell in notebook.cells}


def text_of(outputs, stream="stdout"):
    """Return what a cell printed and the Markdown that it shows, or another stream."""
    shown = [own.text for own in outputs if own.get("name") == stream]
    if stream == "stdout":
        shown += [own.data.get("text/markdown", "") for own in outputs if "data" in own]
    return "\n".join(shown).replace("\r\n", "\n")


def num_pictures(outputs):
    """Return the number of PNG pictures that a cell shows."""
    return sum("image/png" in own.get("data", {}) for own in outputs)


def top1_of(path):
    """Return the top-1 accuracy of a record as notebooks show it."""
    return read_record(path).metrics["top1"].text


@pytest.mark.process
def test_photos_to_report(tmp_path, monkeypatch):
    """Each step leaves its files and pictures; table and sentences are those of the records."""
    shown = execute("photos_to_report", tmp_path, monkeypatch, EPOCHS=1)
    for outputs in shown.values():
        assert "Traceback" not in text_of(outputs, "stderr")

    assert len(list(tmp_path.glob("data/photos/train/*/*.png"))) == 1437
    assert "train: 1,437 images in 10 classes" in text_of(shown["data-check"])
    assert text_of(shown["data-check"]).rstrip().endswith("no problems found")
    pictures = {cell: num_pictures(outputs) for cell, outputs in shown.items()}
    expected = {"preview": 1, "curves": 1, "pictures": 4}
    assert {cell: number for cell, number in pictures.items() if number} == expected

    runs = tmp_path / "runs/photos"
    names = ("random", "control", "rsa-1ep")
    table = re.findall(rf"^\| (\S+) \| {ACCURACY} \| {ACCURACY} \|$", text_of(shown["table"]), re.M)
    assert table == [
        (name, *(top1_of(runs / name / f"records/{kind}.json") for kind in ("knn", "logistic")))
        for name in names
    ]
    assert all(30 < float(text.split()[0]) < 95 for _, *texts in table for text in texts)
    trained = read_record(runs / "rsa-1ep/records/knn.json").model
    assert (trained.metadata.method, trained.metadata.epochs) == ("rsa", 1)
    assert read_record(runs / "random/records/knn.json").model.is_random

    monkeypatch.chdir(tmp_path)
    ours = Path("runs/photos/rsa-1ep")
    for name in ("control", "random"):
        comparison = compare_sides(read_side([ours]), read_side([Path("runs/photos", name)]))
        assert all(f"- {own}" in text_of(shown["verdict"]) for own in sentences(comparison)[:2])

    for exported in ("huggingface/model.safetensors", "timm.safetensors"):
        assert (runs / "rsa-1ep" / exported).stat().st_size > 40e6
    assert text_of(shown["export-files"]).count("the same weights: True") == 2
    assert "<iframe" in shown["write-report"][-1].data["text/html"]
    page = (runs / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in names)


@pytest.mark.process
def test_compare_two_checkpoints(tmp_path, monkeypatch):
    """The verdict, the counts by image and the images needed follow from the records."""
    shown = execute("compare_two_checkpoints", tmp_path, monkeypatch)
    for outputs in shown.values():
        assert "Traceback" not in text_of(outputs, "stderr")
    pictures = {cell: num_pictures(outputs) for cell, outputs in shown.items()}
    expected = {"verdict": 1, "pictures": 3, "classes": 1}
    assert {cell: number for cell, number in pictures.items() if number} == expected

    monkeypatch.chdir(tmp_path)
    runs = Path("runs/which")
    assert load_backbone(runs / "first").metadata.arch == "resnet18_w16"
    assert "second.pth: resnet18, 11.2 M weights, torchvision" in text_of(shown["inspect"])
    printed = re.findall(rf"^(\w) +(\w+) +top-1 {ACCURACY} %$", text_of(shown["evaluate"]), re.M)
    assert printed == [
        (side, kind, top1_of(runs / side / f"records/{kind}.json"))
        for side in ("A", "B")
        for kind in ("knn", "logistic")
    ]
    comparison = compare_sides(read_side([runs / "A"]), read_side([runs / "B"]), margin=2)
    assert all(own in text_of(shown["verdict"]) for own in sentences(comparison))

    right = []
    for side in ("A", "B"):
        path = runs / side / "records/logistic.json"
        right += list(read_predictions(path, read_record(path)).predictions.outcomes("top1"))
    counts = [*map(int, re.findall(r"\| (\d+)", text_of(shown["answers"])))]
    ours, theirs = right
    assert counts == [(a & b).sum() for a in (ours, ~ours) for b in (theirs, ~theirs)]
    assert sum(counts) == 360

    needed = re.findall(r"^\| ([\d.]+)[^|]*\| ([\d,]+) \|$", text_of(shown["power"]), re.M)
    numbers = [int(number.replace(",", "")) for _, number in needed]
    assert [points for points, _ in needed[:4]] == ["1", "2", "5", "10"]
    assert numbers[:4] == sorted(numbers[:4], reverse=True)
    assert numbers[0] > 10_000 > numbers[2]
    assert numbers[4] == comparison.verdicts[1].needed.images
    assert re.search(r"^\d+ unfair, \d+ to be careful about", text_of(shown["audit"]), re.M)
