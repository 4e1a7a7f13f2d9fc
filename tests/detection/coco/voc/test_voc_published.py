"""Test the download of PASCAL VOC, from a server on the loopback address."""

import hashlib
import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
from file_server import FileServer
from PIL import Image
from torchvision.datasets.voc import DATASET_YEAR_DICT

from detection.__main__ import main
from detection.coco.opening import open_set
from detection.coco.voc import published
from detection.recipe.recipe import Recipe
from rsa_pretrain.plumbing import fetch
from rsa_pretrain.plumbing.config.files import load_config

# The sets in each archive, with their images.
ARCHIVES = {
    "VOCtrainval_06-Nov-2007.tar": ("2007/trainval", ("000005", "000007")),
    "VOCtest_06-Nov-2007.tar": ("2007/test", ("000001",)),
    "VOCtrainval_11-May-2012.tar": ("2012/trainval", ("2008_000002", "2008_000003", "2008_000007")),
}
XML = (
    "<annotation><size><width>8</width><height>6</height></size><object><name>cat</name>"
    "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></object></annotation>"
)


def _archive(name: str, images: tuple[str, ...], top: str = "VOCdevkit") -> bytes:
    """Pack a set as published: each archive has the whole path from VOCdevkit on."""
    year, _, image_set = name.partition("/")
    photo = io.BytesIO()
    Image.new("RGB", (8, 6)).save(photo, "JPEG")
    lines = "".join(f"{image}\n" for image in images)
    files = {f"ImageSets/Main/{image_set}.txt": lines.encode()}
    for image in images:
        files[f"Annotations/{image}.xml"] = XML.encode()
        files[f"JPEGImages/{image}.jpg"] = photo.getvalue()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(f"{top}/VOC{year}/{path}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _publish(server: FileServer, patch: pytest.MonkeyPatch, **changes: str) -> None:
    server.files = {name: _archive(*found, **changes) for name, found in ARCHIVES.items()}
    files = [
        replace(file, md5=hashlib.md5(server.files[file.name]).hexdigest())
        for file in published.VOC0712_FILES.files
    ]
    source = replace(published.VOC0712_FILES, files=tuple(files))
    patch.setattr(published, "VOC0712_FILES", source)
    counts = {name: len(images) for name, images in ARCHIVES.values()}
    patch.setattr(published, "VOC0712_COUNTS", counts)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server on a free port, asked without a proxy, with the three archives."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(fetch.os, "sync", lambda: None)  # no test cuts the power
    with FileServer() as running:
        Thread(target=running.serve_forever, daemon=True).start()
        _publish(running, monkeypatch)
        yield running
        running.shutdown()


def _download(server: FileServer, root: Path) -> int:
    return main(["download", "voc0712", str(root), "--url", server.url])


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = re.findall(r"^error: .*$", capsys.readouterr().err, flags=re.MULTILINE)
    return str(line)


def test_a_download_is_what_the_config_opens(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three archives, one folder; a second run finds it and asks for nothing."""
    assert _download(server, tmp_path / "data") == 0
    assert _download(server, tmp_path / "data") == 0
    said = (
        f"voc0712 is in '{tmp_path}/data/VOCdevkit': 2007/trainval 2 images, 2007/test 1 images, "
        "2012/trainval 3 images\n"
    )
    assert capsys.readouterr().out == 2 * said
    assert server.asked == list(ARCHIVES)
    root = f"data.root={tmp_path}/data/VOCdevkit"
    data = load_config(Recipe, "data/voc0712", [root], {"name": "x"}).data
    assert [image["file_name"] for image in open_set(data, "train").images] == [
        *(f"VOC2007/JPEGImages/{name}.jpg" for name in ARCHIVES["VOCtrainval_06-Nov-2007.tar"][1]),
        *(f"VOC2012/JPEGImages/{name}.jpg" for name in ARCHIVES["VOCtrainval_11-May-2012.tar"][1]),
    ]
    assert len(open_set(data, "test").images) == 1


def test_a_cut_download_resumes(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is taken for the data set before all is there."""
    server.cut_after = 700
    assert _download(server, tmp_path) == 2
    assert "cut after 700 of" in _error(capsys)
    assert not (tmp_path / "VOCdevkit").exists()
    server.cut_after = None
    assert _download(server, tmp_path) == 0
    assert server.starts[:2] == [0, 700]


def test_another_folder_is_refused(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of 2007 alone, for example."""
    assert _download(server, tmp_path) == 0
    (tmp_path / "VOCdevkit" / "VOC2012").rename(tmp_path / "VOC2012")
    assert _download(server, tmp_path) == 2
    assert re.search(r"has 0 images of 2012/trainval .* are 3; move the folder", _error(capsys))
    (tmp_path / "VOC2012").rename(tmp_path / "VOCdevkit" / "VOC2012")
    (tmp_path / "VOCdevkit/VOC2007/JPEGImages/000001.jpg").unlink()
    assert _download(server, tmp_path) == 2
    assert re.search(r"has 0 images of 2007/test .* published are 1", _error(capsys))


def test_an_archive_of_another_layout_is_refused(
    server: FileServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As VOC2011's is, whose VOCdevkit lies deeper."""
    _publish(server, monkeypatch, top="TrainVal/VOCdevkit")
    assert _download(server, tmp_path) == 2
    assert "contain no folder 'VOCdevkit'" in _error(capsys)
    assert not (tmp_path / "VOCdevkit").exists()


def test_addresses_checksums_and_layout_are_torchvision_s() -> None:
    """All three unpack to VOCdevkit."""
    known = [DATASET_YEAR_DICT[key] for key in ("2007", "2007-test", "2012")]
    assert [(file.url, file.md5) for file in published.VOC0712_FILES.files] == [
        (entry["url"], entry["md5"]) for entry in known
    ]
    assert [entry["base_dir"].split("/")[0] for entry in known] == [published.VOC_FOLDER] * 3
    assert sum(published.VOC0712_COUNTS.values()) - published.VOC0712_COUNTS["2007/test"] == 16_551


def test_names_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is asked of a server."""
    assert main(["download", "voc2008"]) == 2
    assert "invalid choice: 'voc2008' (choose from 'voc0712')" in _error(capsys)
