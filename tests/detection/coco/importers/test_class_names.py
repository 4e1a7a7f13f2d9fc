import json
import logging
from pathlib import Path

import pytest

from detection.coco.importers.class_names import find_class_names, read_class_names
from rsa_pretrain.plumbing.errors import UserError


def _coco(*categories: tuple[int, str]) -> str:
    entries = [{"id": number, "name": name} for number, name in categories]
    image = {"id": 1, "file_name": "a.png", "height": 4, "width": 4}
    return json.dumps({"images": [image], "annotations": [], "categories": entries})


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("classes.txt", "zebra\n\n ant \n", ["zebra", "ant"]),
        ("obj.names", "\ufeffzebra\r\nant\r\n", ["zebra", "ant"]),
        ("labels.txt", "__ignore__\n_background_\nant\n", ["ant"]),
        ("data.yaml", "train: x\nnc: 2\nnames: [zebra, ant]", ["zebra", "ant"]),
        ("data.yml", "names:\n  1: ant\n  0: zebra\n", ["zebra", "ant"]),
        ("data.yaml", "names: [no, 1, null, 1e3]", ["no", "1", "null", "1e3"]),
        ("out.json", _coco((2, "ant"), (1, "zebra")), ["zebra", "ant"]),
    ],
)
def test_names_in_the_order_of_their_numbers(
    name: str, text: str, expected: list[str], tmp_path: Path
) -> None:
    """Each kind of file keeps its order; what YAML takes for other values stays a name."""
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    assert read_class_names(path) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("classes.txt", b" \n", "lists no class names"),
        ("classes.txt", b"k\xe4se\n", r"is not UTF-8 \(byte 1\)"),
        ("classes.txt", b"ant\nbee\nant\n", "lists class names twice: ant"),
        ("data.yaml", b"names: [ant", "not valid YAML"),
        ("data.yaml", b"names: " + b"[" * 50_000, "more than 64 brackets within one another"),
        ("data.yaml", b"train: x", "has no list 'names'"),
        ("data.yaml", b"names: ant", "has no list 'names'"),
        ("data.yaml", b"- ant", "has no list 'names'"),
        ("data.yaml", b"names: [[ant]]", "has no list 'names'"),
        ("data.yaml", b"names: []", "lists no class names"),
        ("data.yaml", b"names: {1: ant, 2: bee}", "should number its names from 0 without gaps"),
        ("data.yaml", b"names: {a: ant}", "should number its names from 0 without gaps"),
        ("data.yaml", b"nc: 3\nnames: [ant, bee]", "lists 2 names, but its nc is 3"),
        ("data.yaml", b"kpt_shape: [17, 3]\nnames: [ant]", r"key points \(kpt_shape\)"),
        ("out.json", _coco((1, "ant"), (3, "bee")).encode(), "from 1 without gaps"),
        ("out.json", b"{}", "not COCO format"),
    ],
)
def test_faults_are_one_line(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    """Files that would number classes differently than intended are refused."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_class_names(path)


def test_absent_file_is_named(tmp_path: Path) -> None:
    """As any other fault."""
    with pytest.raises(UserError, match=r"cannot read '.*no\.txt': No such file"):
        read_class_names(tmp_path / "no.txt")


def test_names_are_found_up_to_two_folders_above(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The file is told; further up nothing is looked for; two that differ are refused."""
    labels = tmp_path / "set" / "labels" / "train"
    labels.mkdir(parents=True)
    (tmp_path / "classes.txt").write_text("bee\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"no class names in .* name their file with --classes"):
        find_class_names(labels)
    (tmp_path / "set" / "data.yaml").write_text("names: [ant]", encoding="utf-8")
    with caplog.at_level(logging.INFO):
        assert find_class_names(labels) == ["ant"]
    assert f"class names from '{tmp_path / 'set' / 'data.yaml'}'" in caplog.text
    (labels / "classes.txt").write_text("ant\n", encoding="utf-8")
    assert find_class_names(labels) == ["ant"]
    (labels / "classes.txt").write_text("ant\nbee\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"differ between '.*classes\.txt' and '.*data\.yaml'"):
        find_class_names(labels)
