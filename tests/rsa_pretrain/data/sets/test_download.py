"""Downloads from a server on the loopback address."""

import hashlib
import io
import re
import resource
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urljoin

import numpy as np
import pytest
import torchvision
import yaml
from PIL import Image

from rsa_pretrain.__main__ import main
from rsa_pretrain.data import sets
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.open_images import normalisation, open_images, published_counts
from rsa_pretrain.data.sets import Counts, DataSet, cifar, imagenette, stl10
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.plumbing import fetch
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.errors import UserError


class Server(ThreadingHTTPServer):
    """Sends one content under every address but /missing."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/squares.tar.gz"
        self.ranges = True
        self.cut_after = None
        self.asked = []
        self.publish(ARCHIVE)

    def publish(self, content):
        """Send an archive from now on; its MD5 is the published one."""
        self.content = content
        self.md5 = hashlib.md5(content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Supports ranges, unless configured not to; may end early."""

    def do_GET(self):
        """Answer a request."""
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        start = 0
        if self.path == "/missing":
            return self.send_error(404)
        if self.server.ranges and wanted is not None:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(self.server.content):
                return self.send_error(416)
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cut_after])

    def log_message(self, *_):
        """Say nothing."""


def tar_of(files):
    """A tar.gz file's bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


PIXELS = {
    split: np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    for seed, (split, count) in enumerate((("train", 60), ("test", 20)))
}
FILES = {f"squares/{split}.bin": pixels.tobytes() for split, pixels in PIXELS.items()}
ARCHIVE = tar_of(FILES)


def open_squares(config, split):
    """Open a split of the data set of these tests."""
    path = config.root / "squares" / ("test.bin" if split == "test" else "train.bin")
    pixels = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, 16, 16, 3)
    labels = [index % 2 for index in range(len(pixels))]
    return ImageSet.from_array("squares", pixels, labels, ["even", "odd"])


@pytest.fixture
def server(monkeypatch):
    """A server on a free port, asked without a proxy, and a data set that it publishes."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(fetch.os, "sync", lambda: None)  # no test cuts the power
    with Server() as running:
        squares = DataSet(
            name="squares",
            label="Squares",
            normalisation=((0.5, 0.5, 0.5), (0.3, 0.3, 0.3)),
            open=open_squares,
            download=lambda root, url: fetch.fetch(
                fetch.Archive(running.url, running.md5, "squares"), root, url
            ),
            counts={"train": Counts(60, 2, 30), "test": Counts(20, 2, 10)},
            folders=("squares",),
        )
        monkeypatch.setattr(sets, "DATA_SETS", (*sets.DATA_SETS, squares))
        Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def download(*words):
    """Run the command; return its exit code."""
    return main(["download", *map(str, words)])


def error_of(capsys, *words):
    """Download in vain; return the one line that says why."""
    assert download(*words) == 2
    (line,) = re.findall(r"^error: .*$", capsys.readouterr().err, flags=re.MULTILINE)
    return line


def names_in(folder):
    """Return the contents of a folder, except the lock."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".download.lock")


def test_one_object_and_one_entry_add_a_data_set(server, tmp_path, capsys, tiny_tree):
    """Settings, statistics, opening, download and data-check know it without another change."""
    assert download("squares", tmp_path / "data") == 0
    assert "squares is in '" in capsys.readouterr().out
    tree = {"name": "squares", "root": str(tmp_path / "data"), "image_size": 16}
    config = parse_tree(DataConfig, tree, "test")
    assert normalisation(config) == ((0.5, 0.5, 0.5), (0.3, 0.3, 0.3))
    assert published_counts(config, "pretrain").images == 60
    images = open_images(config.model_copy(update={"num_train_images": 10}), "train")
    assert len(images) == 10
    assert np.array_equal(open_images(config, "test").array(), PIXELS["test"])
    run = tmp_path / "run.yaml"
    tiny_tree["data"] |= {"name": "squares", "root": str(config.root)}
    run.write_text(yaml.safe_dump(tiny_tree))
    assert main(["data-check", str(run)]) == 0
    assert "published: 60 images, 2 classes, 30 images per class" in capsys.readouterr().out


def test_unknown_names_are_told_the_known_ones(tmp_path, capsys):
    """The command and the settings list every data set, as does the settings' help."""
    names = ", ".join(entry.name for entry in sets.DATA_SETS)
    assert names in error_of(capsys, "cifar", tmp_path).replace("'", "")
    with pytest.raises(UserError, match=rf"'name': expected one of {names} \(found 'cifar'\)"):
        parse_tree(DataConfig, {"name": "cifar", "root": "x", "image_size": 32}, None)
    assert names in DataConfig.model_fields["name"].description


@pytest.mark.parametrize("name", ["voc2007", "voc2012", "voc0712"])
def test_voc_is_another_commands(tmp_path, capsys, name):
    """The error names the program that downloads it."""
    assert f"PASCAL VOC comes by `rsa-detect download {name}`" in error_of(capsys, name, tmp_path)


def test_a_download_is_whole_and_made_once(server, tmp_path, capsys):
    """A second run finds it; what a killed one left half unpacked goes."""
    (tmp_path / ".partial-squares" / "squares").mkdir(parents=True)
    (tmp_path / ".partial-squares" / "squares" / "junk").touch()
    for _ in range(2):
        assert download("squares", tmp_path) == 0
        assert "train 60 images, test 20 images" in capsys.readouterr().out
    assert server.asked == [None]
    assert names_in(tmp_path) == ["squares", "squares.tar.gz"]
    assert (tmp_path / "squares.tar.gz").read_bytes() == ARCHIVE
    assert names_in(tmp_path / "squares") == ["test.bin", "train.bin"]


def test_a_mirror_is_held_to_the_published_md5(server, tmp_path, capsys):
    """--url replaces the address alone."""
    mirror = server.url.replace("squares", "mirror")
    assert download("squares", tmp_path, "--url", mirror) == 0
    server.content = b"other"
    assert "MD5" in error_of(capsys, "squares", tmp_path / "again", "--url", mirror)


def test_a_cut_download_resumes(server, tmp_path, capsys):
    """The bytes that came are kept beside, and not asked for again."""
    server.cut_after = 1000
    message = error_of(capsys, "squares", tmp_path)
    assert f"cut after 1,000 of {len(ARCHIVE):,} bytes; rerun the command to resume" in message
    assert names_in(tmp_path) == ["squares.tar.gz.part"]
    server.cut_after = None
    assert download("squares", tmp_path) == 0
    assert server.asked == [None, "bytes=1000-"]
    assert names_in(tmp_path) == ["squares", "squares.tar.gz"]


def test_two_downloads_take_turns(server, tmp_path):
    """The second waits for the first, and finds its folder."""
    squares = sets.data_set("squares")
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: squares.download(tmp_path, None), range(2)))
    assert server.asked == [None]
    assert names_in(tmp_path) == ["squares", "squares.tar.gz"]


@pytest.mark.parametrize(
    ("part", "ranges"),
    [(b"x" * 100, False), (ARCHIVE, True)],
    ids=["server without ranges", "killed at the end"],
)
def test_a_partial_file_becomes_the_archive(server, tmp_path, part, ranges):
    """A server without ranges sends all of it again; where all is there, the MD5 tells so."""
    server.ranges = ranges
    (tmp_path / "squares.tar.gz.part").write_bytes(part)
    assert download("squares", tmp_path) == 0
    assert server.asked == [f"bytes={len(part)}-"]
    assert names_in(tmp_path) == ["squares", "squares.tar.gz"]
    assert (tmp_path / "squares.tar.gz").read_bytes() == ARCHIVE


@pytest.mark.parametrize("part", [b"", b"of an older file"])
def test_other_content_is_refused(server, tmp_path, capsys, part):
    """A wrong file, or the end of another than was begun, leaves nothing; the next run starts."""
    server.content = ARCHIVE if part else b"<html>Sign in</html>"
    (tmp_path / "squares.tar.gz.part").write_bytes(part)
    message = error_of(capsys, "squares", tmp_path)
    assert f"expected {hashlib.md5(ARCHIVE).hexdigest()}; it is removed" in message
    assert names_in(tmp_path) == []
    server.content = ARCHIVE
    assert download("squares", tmp_path) == 0


def test_an_archive_that_is_there_is_used(server, tmp_path, capsys):
    """Checked first: another file of its name is refused, and kept."""
    path = tmp_path / "squares.tar.gz"
    path.write_bytes(b"mine")
    assert "is not the published file" in error_of(capsys, "squares", tmp_path)
    assert path.read_bytes() == b"mine"
    path.write_bytes(ARCHIVE)
    assert download("squares", tmp_path) == 0
    assert server.asked == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("/missing", r"the server answers 404 Not Found to http://127\.0\.0\.1:\d+/missing;"),
        ("http://127.0.0.1:1/x", r"cannot reach http://127\.0\.0\.1:1/x \(.*refused.*\); rerun"),
        ("file:///etc/passwd", r"starting with http:// or https://, found 'file:///etc/passwd'"),
        ("http://a b/", r"cannot reach http://a b/ \(.*\); rerun"),
    ],
)
def test_unusable_addresses_are_one_error(server, tmp_path, capsys, url, message):
    """The server's answer, or why there is none."""
    words = ["squares", tmp_path, "--url", urljoin(server.url, url)]
    assert re.search(message, error_of(capsys, *words))
    assert not (tmp_path / "squares").exists()


def test_a_root_that_is_a_file_is_refused(server, tmp_path, capsys):
    """The file stays."""
    (tmp_path / "data").write_text("mine")
    message = error_of(capsys, "squares", tmp_path / "data")
    assert f"'{tmp_path}/data' is a file where a folder is to be" in message
    assert (tmp_path / "data").read_text() == "mine"


def test_a_full_disk_keeps_what_came(server, tmp_path, capsys):
    """A limit of the size of files stands for it; the next run resumes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        message = error_of(capsys, "squares", tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"cannot download into '{tmp_path}': File too large; fix that and rerun" in message
    assert names_in(tmp_path) == ["squares.tar.gz.part"]
    assert download("squares", tmp_path) == 0
    assert server.asked == [None, "bytes=5000-"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tar_of(FILES | {"../evil": b"evil"}), "cannot unpack '.*outside the destination"),
        (tar_of({"other/x": b""}), "contains no folder 'squares'"),
        (b"no archive at all", "cannot unpack '"),
        (ARCHIVE[:-100], "cannot unpack '"),
    ],
    ids=["outside", "other folder", "no archive", "cut"],
)
def test_unusable_archives_leave_no_folder(server, tmp_path, capsys, content, message):
    """Whatever its MD5: none is unpacked in part, or out of the folder."""
    server.publish(content)
    root = tmp_path / "data"
    assert re.search(message, error_of(capsys, "squares", root))
    assert names_in(root) == ["squares.tar.gz"]
    assert names_in(tmp_path) == ["data"]


def test_zip_files_are_unpacked_inside(server, tmp_path):
    """A name that climbs out of the archive does not."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        for name, content in (FILES | {"../../evil": b"evil"}).items():
            zipped.writestr(name, content)
    server.publish(archive.getvalue())
    root = tmp_path / "data"
    assert download("squares", root) == 0
    assert names_in(root) == ["squares", "squares.tar.gz"]
    assert names_in(tmp_path) == ["data"]


def test_what_is_there_but_not_whole_is_told(server, tmp_path, capsys):
    """A folder of the name is never replaced."""
    (tmp_path / "squares").mkdir()
    (tmp_path / "squares" / "train.bin").write_bytes(PIXELS["train"][:50].tobytes())
    message = error_of(capsys, "squares", tmp_path)
    assert "has 50 images in its train split, expected 60 as published; move its folder" in message
    assert names_in(tmp_path / "squares") == ["train.bin"]
    assert server.asked == []


def test_stl10_is_downloaded_by_torchvision_s_checksum(server, tmp_path, monkeypatch, capsys):
    """The command's result is what the data set opens."""
    sizes = {"train": 20, "test": 10, "unlabeled": 30}
    monkeypatch.setattr(stl10, "NUM_IMAGES", sizes)
    files = {}
    for part, count in sizes.items():
        files[f"stl10_binary/{part}_X.bin"] = bytes(27_648 * count)
        files[f"stl10_binary/{part}_y.bin"] = bytes([1]) * count
    server.content = tar_of(files)
    counts = {"pretrain": Counts(50), "train": Counts(20), "test": Counts(10)}
    monkeypatch.setattr(sets, "DATA_SETS", (replace(stl10.STL10, counts=counts),))
    words = ["stl10", tmp_path, "--url", server.url]
    assert f"expected {torchvision.datasets.STL10.tgz_md5}" in error_of(capsys, *words)
    md5 = hashlib.md5(server.content).hexdigest()
    monkeypatch.setattr(torchvision.datasets.STL10, "tgz_md5", md5)
    assert download(*words) == 0
    assert "pretrain 50 images, train 20 images, test 10 images" in capsys.readouterr().out


def test_imagenette_is_downloaded_by_its_published_checksum(server, tmp_path, monkeypatch, capsys):
    """The command's result is what the data set opens; files that are no images stay outside."""
    image = io.BytesIO()
    Image.new("RGB", (20, 16)).save(image, "JPEG")
    files = {"imagenette2-160/noisy_imagenette.csv": b"path\n"}
    for name in imagenette.WORDNET_IDS:
        files |= {
            f"imagenette2-160/{split}/{name}/0.JPEG": image.getvalue() for split in ("train", "val")
        }
    server.publish(tar_of(files))
    counts = {"train": Counts(10), "test": Counts(10)}
    known = replace(imagenette.IMAGENETTE, counts=counts)
    monkeypatch.setattr(sets, "DATA_SETS", (known,))
    words = ["imagenette", tmp_path, "--url", server.url]
    assert f"expected {imagenette.IMAGENETTE_ARCHIVE.md5}" in error_of(capsys, *words)
    published = replace(imagenette.IMAGENETTE_ARCHIVE, md5=server.md5)
    monkeypatch.setattr(imagenette, "IMAGENETTE_ARCHIVE", published)
    assert download(*words) == 0
    assert "train 10 images, test 10 images" in capsys.readouterr().out
    assert names_in(tmp_path) == ["imagenette2-160", "imagenette2-160.tgz"]


@pytest.mark.parametrize("num_classes", [10, 100])
def test_cifar_is_what_torchvision_knows(tmp_path, monkeypatch, num_classes):
    """Address, checksum and folder of each are its own."""
    asked = []
    monkeypatch.setattr(cifar, "fetch", lambda *given: asked.append(given))
    theirs = {10: torchvision.datasets.CIFAR10, 100: torchvision.datasets.CIFAR100}[num_classes]
    sets.data_set(f"cifar{num_classes}").download(tmp_path, None)
    archive = fetch.Archive(theirs.url, theirs.tgz_md5, theirs.base_folder)
    assert asked == [(archive, tmp_path, None)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("imagenet", r"https://image-net\.org/.* and unpack them as ROOT/train/WNID/\*\.JPEG"),
        ("imagenet100", r"https://image-net\.org/.* and unpack them as ROOT/train/WNID/"),
        ("imagefolder", r"images of your own.*put them as ROOT/train/CLASS/IMAGE"),
        ("webdataset", r"shards of your own.*put them as ROOT/train/\*\.tar"),
    ],
)
def test_what_cannot_be_downloaded_is_explained(tmp_path, capsys, name, message):
    """Where it comes from and where it goes; nothing is made."""
    found = error_of(capsys, name, tmp_path / "data")
    assert re.search(message, found.replace(f"{tmp_path}/data", "ROOT"))
    assert not (tmp_path / "data").exists()


def test_digits_are_embedded(tmp_path, capsys):
    """Nothing is downloaded, and no folder made."""
    assert download("digits", tmp_path / "data") == 0
    out = capsys.readouterr().out
    assert "embedded, nothing to download: train 1,437 images, test 360 images" in out
    assert not (tmp_path / "data").exists()
