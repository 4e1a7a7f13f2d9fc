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
MOVED = ("http://host.robots.ox.ac.uk", "https://thor.robots.ox.ac.uk")  # in torchvision 0.26
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
    for year, bundle in published.VOC_FILES.items():
        files = [
            replace(file, md5=hashlib.md5(server.files[file.name]).hexdigest())
            for file in bundle.files
        ]
        patch.setitem(published.VOC_FILES, year, replace(bundle, files=tuple(files)))
        names = [ARCHIVES[file.name] for file in files]
        patch.setitem(published.VOC_COUNTS, year, {name: len(images) for name, images in names})


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


def _download(server: FileServer, root: Path, name: str = "voc0712") -> int:
    return main(["download", name, str(root), "--url", server.url])


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = re.findall(r"^error: .*$", capsys.readouterr().err, flags=re.MULTILINE)
    return str(line)


def test_a_download_is_what_the_config_opens(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three archives, two folders; a second run finds them and asks for nothing."""
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
    assert not (tmp_path / "VOCdevkit" / "VOC2007").exists()
    server.cut_after = None
    assert _download(server, tmp_path) == 0
    assert server.starts[:2] == [0, 700]


def test_a_year_is_downloaded_alone_and_kept(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The transfer suite takes 2007; detection then needs 2012's archive only."""
    assert _download(server, tmp_path, "voc2007") == 0
    found = f"voc2007 is in '{tmp_path}/VOCdevkit': 2007/trainval 2 images, 2007/test 1 images\n"
    assert capsys.readouterr().out == found
    assert server.asked == list(ARCHIVES)[:2]
    assert _download(server, tmp_path) == 0
    assert server.asked == list(ARCHIVES)


def test_another_folder_is_refused(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One without its lists, or with an image missing."""
    assert _download(server, tmp_path) == 0
    (tmp_path / "VOCdevkit" / "VOC2012" / "ImageSets").rename(tmp_path / "lists")
    assert _download(server, tmp_path) == 2
    assert re.search(
        r"VOC2012' has 0 images of 2012/trainval .* are 3; move the folder", _error(capsys)
    )
    (tmp_path / "lists").rename(tmp_path / "VOCdevkit" / "VOC2012" / "ImageSets")
    (tmp_path / "VOCdevkit/VOC2007/JPEGImages/000001.jpg").unlink()
    assert _download(server, tmp_path) == 2
    assert re.search(r"VOC2007' has 0 images of 2007/test .* published are 1", _error(capsys))


def test_an_archive_of_another_layout_is_refused(
    server: FileServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As VOC2011's is, whose VOCdevkit lies deeper."""
    _publish(server, monkeypatch, top="TrainVal/VOCdevkit")
    assert _download(server, tmp_path) == 2
    assert "contain no folder 'VOCdevkit/VOC2007'" in _error(capsys)
    assert not (tmp_path / "VOCdevkit" / "VOC2007").exists()


def test_addresses_checksums_and_layout_are_torchvision_s() -> None:
    """Two unpack to VOCdevkit/VOC2007, one to VOCdevkit/VOC2012."""
    known = [DATASET_YEAR_DICT[key] for key in ("2007", "2007-test", "2012")]
    bundles = published.VOC_FILES.values()
    assert [(file.url, file.md5) for bundle in bundles for file in bundle.files] == [
        (entry["url"].replace(*MOVED), entry["md5"]) for entry in known
    ]
    assert [bundle.inside for bundle in bundles for _ in bundle.files] == [
        entry["base_dir"] for entry in known
    ]
    counts = published.VOC_COUNTS["2007"] | published.VOC_COUNTS["2012"]
    assert counts["2007/trainval"] + counts["2012/trainval"] == 16_551


def test_names_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is asked of a server."""
    assert main(["download", "voc2008"]) == 2
    assert "'voc2008' (choose from 'voc0712', 'voc2007', 'voc2012')" in _error(capsys)
