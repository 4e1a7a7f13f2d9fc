import json
import re
from pathlib import Path
from typing import Any

import pytest

from detection.__main__ import main
from detection.coco.sets import CocoSet


def test_evaluate_prints_both_tables(
    result_files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Perfect predictions have AP 100 in total and by category, at sizes that occur."""
    assert main(["evaluate", *result_files]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["AP", "AP50", "AP75", "APs", "APm", "APl"]
    for line, kind in zip(lines[1:3], ("bbox", "segm"), strict=True):
        assert line.split()[:2] == [kind, "100.00"]
    (circle,) = [line.split() for line in lines if line.startswith("circle")]
    assert circle[2:] in (["100.00", "100.00"], ["–", "–"])
    assert "predictions on 3 of 3 images" in lines[-1]


def test_intervals_on_request(result_files, capsys):
    """A row of each IoU type holds the 95 % intervals of its metrics, around their values."""
    assert main(["evaluate", *result_files, "--intervals"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("bbox")]
    (values, intervals) = lines
    low, high = re.findall(r"\[([\d.]+), ([\d.]+)\]", intervals)[0]
    assert float(low) <= float(values.split()[1]) <= float(high)


def test_evaluate_takes_boxes_alone(
    result_files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Without masks the table has boxes alone; with some of each there is no table."""
    path = Path(result_files[1])
    predictions = json.loads(path.read_text(encoding="utf-8"))
    for entry in predictions:
        del entry["segmentation"]
    path.write_text(json.dumps(predictions), encoding="utf-8")
    assert main(["evaluate", *result_files]) == 0
    text = capsys.readouterr().out
    assert "bbox" in text
    assert "segm" not in text
    predictions[0]["segmentation"] = {"size": [64, 64], "counts": [64 * 64]}
    del predictions[0]["bbox"]
    path.write_text(json.dumps(predictions), encoding="utf-8")
    assert main(["evaluate", *result_files]) == 2
    assert "split the file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 99}, "[0] has image_id 99, which the annotations do not define"),
        ({"image_id": [1]}, "[0] has image_id [1], which"),
        ({"category_id": True}, "[0] has category_id true"),
        ({"score": "high"}, "[0] has no score"),
        ({"bbox": [1, 2, 3]}, "[0] has a bbox that is not"),
        ({"segmentation": []}, "[0] has a segmentation that is not a mask"),
        ({"segmentation": {"size": [9, 9], "counts": [81]}}, "code of size [9, 9], its image is"),
    ],
)
def test_predictions_that_cannot_be_evaluated(
    result_files: list[str],
    change: dict[str, Any],
    message: str,
    shapes_test_set: CocoSet,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Both commands name the entry in one error line, exit code 2, and write nothing."""
    path = Path(result_files[1])
    predictions = json.loads(path.read_text(encoding="utf-8"))
    predictions[0].update(change)
    path.write_text(json.dumps(predictions), encoding="utf-8")
    page = path.with_name("page.html")
    where = ["--annotations", result_files[0], "--images", str(shapes_test_set.images_dir)]
    for words in (["evaluate", *result_files], ["visualize", result_files[1], str(page), *where]):
        assert main(words) == 2
        captured = capsys.readouterr()
        (line,) = captured.err.splitlines()
        assert line.startswith("error: predictions '")
        assert message in line
        assert captured.out == ""
    assert not page.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "are not JSON"),
        ("{}", "expected a JSON list"),
        ("[3]", "[0] is not a JSON object"),
        ('[{"image_id": 1, "category_id": 1, "score": 1}]', "neither bbox nor segmentation"),
    ],
)
def test_files_that_are_no_results(
    result_files: list[str], content: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of another format is named."""
    Path(result_files[1]).write_text(content, encoding="utf-8")
    assert main(["evaluate", *result_files]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_predictions_of_other_encodings_are_read(
    result_files: list[str], encoding: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A byte order mark, or UTF-16, changes no number and is noted."""
    path = Path(result_files[1])
    path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))
    assert main(["evaluate", *result_files]) == 0
    (line,) = [line for line in caplog.messages if str(path) in line]
    assert line.endswith(("ignored", "not in UTF-8, read as such"))


def test_predictions_in_code_pages_are_refused(
    result_files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The error says which encoding is expected, as for annotations."""
    Path(result_files[1]).write_bytes(b'["\xf6"]')
    assert main(["evaluate", *result_files]) == 2
    assert "are not UTF-8 (byte 2); save the file as UTF-8" in capsys.readouterr().err
