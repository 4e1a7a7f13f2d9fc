"""Check that files of runs kept in the repository are small and name no machine."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from rsa_eval.__main__ import main
from rsa_eval.records.class_predictions import ClassPredictions
from rsa_eval.records.predictions import decode_predictions, encode_predictions

ROOT = Path(__file__).parents[1]
KEPT = re.compile(
    r"notes\.md"
    r"|.+/seed-\d+/(config\.yaml|metrics\.jsonl|machines\.json|records/[\w-]+(\.json|\.predictions\.npz))"
)
ABSOLUTE = re.compile(r"(?<![\w.)<])/(?:data|home|mnt|opt|root|tmp|Users|usr|var|work)\b")
MOST_BYTES = 1_000_000


def faults(folder, names):
    """Return the problems of files below a folder of results."""
    found = []
    for name in names:
        path = folder / name
        if not KEPT.fullmatch(name):
            found.append(f"{name} is none of what is kept of a run")
        elif path.stat().st_size > MOST_BYTES:
            found.append(f"{name} is large")
        elif match := ABSOLUTE.search(_text(path)):
            found.append(f"{name} names {match[0]}")
    return found


def _text(path):
    """Return a file's text; of predictions the names of the images."""
    if path.suffix == ".npz":
        return json.dumps(decode_predictions(path.read_bytes()).keys)
    return path.read_text(encoding="utf-8", errors="replace")


def test_committed_results_are_small_and_name_no_machine():
    """No weights, no picture, no absolute path."""
    listed = ["git", "-C", str(ROOT / "results"), "ls-files"]
    try:
        names = subprocess.run(listed, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git checkout")
    assert "notes.md" in names
    assert faults(ROOT / "results", names.splitlines()) == []


def test_the_page_is_up_to_date(tmp_path, monkeypatch):
    """RESULTS.md is what ``make results`` writes."""
    monkeypatch.chdir(ROOT)
    page = tmp_path / "page.md"
    words = ["report", "results", "--markdown", str(page), "--notes", "results/notes.md"]
    assert main(words) == 0
    assert page.read_text() == Path("RESULTS.md").read_text()


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("study/rsa/seed-0/records/knn.json", '{"root": "data", "rate": "2 images/s"}', None),
        ("study/rsa/seed-0/records/knn.json", '["data.root=/tmp/cifar10"]', "names /tmp"),
        ("study/rsa/seed-0/config.yaml", "root: /home/me/data", "names /home"),
        ("study/rsa/seed-0/metrics.jsonl", " " * 1_000_001, "is large"),
        ("study/rsa/seed-0/backbone.safetensors", "", "is none of what is kept"),
        ("study/rsa/seed-0/records/knn.state.pt", "", "is none of what is kept"),
        ("records/knn.json", "{}", "is none of what is kept"),
    ],
)
def test_faults_are_found(tmp_path, name, text, fault):
    """Each of them would be."""
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    found = faults(tmp_path, [name])
    assert found == [] if fault is None else fault in found[0]


def test_images_named_by_their_place_are_found(tmp_path):
    """Names of images are compressed, so that the file's bytes do not show them."""
    name = "study/rsa/seed-0/records/knn.predictions.npz"
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    labels = np.zeros(1, int)
    answers = ClassPredictions(labels, labels[None], labels[None], ("",), 2)
    for key, found in (("a/1.png", []), ("/home/me/a/1.png", [f"{name} names /home"])):
        path.write_bytes(encode_predictions([key], answers))
        assert faults(tmp_path, [name]) == found
