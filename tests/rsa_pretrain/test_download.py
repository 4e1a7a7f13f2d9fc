"""Downloads from a server on the loopback address."""

import hashlib
import io
import re
import resource
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
import torchvision
import yaml

from rsa_pretrain import data_sets, fetch
from rsa_pretrain.__main__ import main
from rsa_pretrain.config_files import parse_tree
from rsa_pretrain.data import normalisation, open_images, published_counts
from rsa_pretrain.data_config import DataConfig
from rsa_pretrain.data_sets import Counts, DataSet, cifar, stl10
from rsa_pretrain.errors import UserError
from rsa_pretrain.image_set import ImageSet


class Server(ThreadingHTTPServer):
    """Sends one content under every address but /missing."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = b""
        self.ranges = True
        self.cut_after = None
        self.asked = []

    @property
    def url(self):
        """Address of the archive."""
        return f"http://127.0.0.1:{self.server_port}/squares.tar.gz"


class Handler(BaseHTTPRequestHandler):
    """Knows ranges, unless told not to; may end before the end."""

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


@pytest.fixture
def server(monkeypatch):
    """A server on a free port, asked without a proxy."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(fetch.os, "sync", lambda: None)  # no test cuts the power
    with Server() as running:
        Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def tar_of(files):
    """A tar.gz file's bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(files):
    """A zip file's bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for name, content in files.items():
            zipped.writestr(name, content)
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
def add_squares(server, monkeypatch):
    """A function that adds a data set to the tuple, whose archive holds some content."""

    def add(content=ARCHIVE, served=None):
        server.content = content if served is None else served
        archive = fetch.Archive(server.url, hashlib.md5(content).hexdigest(), "squares")
        squares = DataSet(
            name="squares",
            label="Squares",
            normalisation=((0.5, 0.5, 0.5), (0.3, 0.3, 0.3)),
            open=open_squares,
            download=lambda root, url: fetch.fetch(archive, root, url),
            counts={"train": Counts(60, 2, 30), "test": Counts(20, 2, 10)},
            folders=("squares",),
        )
        monkeypatch.setattr(data_sets, "DATA_SETS", (*data_sets.DATA_SETS, squares))

    return add


def error_of(capsys, *words):
    """Download in vain; return the one line that says why."""
    assert main(["download", *map(str, words)]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def names_in(folder):
    """What lies in a folder, but for the lock."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".download.lock")


def test_one_object_and_one_entry_add_a_data_set(add_squares, tmp_path, capsys, tiny_tree):
    """Settings, statistics, opening, download and data-check know it without another change."""
    add_squares()
    assert main(["download", "squares", str(tmp_path / "data")]) == 0
    assert "squares is in '" in capsys.readouterr().out
    config = parse_tree(
        DataConfig, {"name": "squares", "root": str(tmp_path / "data"), "image_size": 16}, "test"
    )
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
    names = ", ".join(entry.name for entry in data_sets.DATA_SETS)
    assert names in error_of(capsys, "cifar", tmp_path).replace("'", "")
    with pytest.raises(UserError, match=rf"'name': expected one of {names} \(found 'cifar'\)"):
        parse_tree(DataConfig, {"name": "cifar", "root": "x", "image_size": 32}, None)
    assert names in DataConfig.model_fields["name"].description


def test_reading_settings_loads_nothing_that_reads_images():
    """Commands answer before torch is loaded, which takes seconds."""
    script = "import sys, rsa_pretrain.data, rsa_pretrain.data_sets; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    heavy = {"torch", "torchvision", "sklearn", "numpy", "PIL"}
    assert "rsa_pretrain.data_config" in done.stdout.split()
    assert not heavy & set(done.stdout.split())


def test_a_download_is_whole_and_made_once(add_squares, server, tmp_path, capsys):
    """A second run finds it; what a killed one left half unpacked goes."""
    add_squares()
    (tmp_path / ".partial-squares" / "squares").mkdir(parents=True)
    (tmp_path / ".partial-squares" / "squares" / "junk").touch()
    for _ in range(2):
        assert main(["download", "squares", str(tmp_path)]) == 0
        assert "train 60 images, test 20 images" in capsys.readouterr().out
    assert server.asked == [None]
    assert names_in(tmp_path) == ["squares", "squares.tar.gz"]
    assert (tmp_path / "squares.tar.gz").read_bytes() == ARCHIVE
    assert names_in(tmp_path / "squares") == ["test.bin", "train.bin"]


def test_a_mirror_is_held_to_the_published_md5(add_squares, server, tmp_path, capsys):
    """--url replaces the address alone."""
    add_squares()
    mirror = server.url.replace("squares", "mirror")
    assert main(["download", "squares", str(tmp_path), "--url", mirror]) == 0
    server.content = b"other"
    assert "MD5" in error_of(capsys, "squares", tmp_path / "again", "--url", mirror)


def test_a_cut_download_resumes(add_squares, server, tmp_path, capsys):
    """The bytes that came are kept beside, and not asked for again."""
    add_squares()
    server.cut_after = 1000
    message = error_of(capsys, "squares", tmp_path)
    assert f"cut after 1,000 of {len(ARCHIVE):,} bytes; rerun the command to resume" in message
    assert names_in(tmp_path) == ["squares.tar.gz.part"]
    server.cut_after = None
    assert main(["download", "squares", str(tmp_path)]) == 0
    assert server.asked == [None, "bytes=1000-"]
    assert names_in(tmp_path) == ["squares", "squares.tar.gz"]


def test_two_downloads_take_turns(add_squares, server, tmp_path):
    """The second waits for the first, and finds its folder."""
    add_squares()
    squares = data_sets.data_set("squares")
    runs = [Thread(target=squares.download, args=(tmp_path, None)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert server.asked == [None]
    assert names_in(tmp_path) == ["squares", "squares.tar.gz"]


def test_a_server_without_ranges_starts_again(add_squares, server, tmp_path):
    """The whole file comes, and replaces what was there."""
    add_squares()
    server.ranges = False
    (tmp_path / "squares.tar.gz.part").write_bytes(b"x" * 100)
    assert main(["download", "squares", str(tmp_path)]) == 0
    assert server.asked == ["bytes=100-"]
    assert (tmp_path / "squares.tar.gz").read_bytes() == ARCHIVE


def test_a_download_killed_at_its_end_is_checked(add_squares, tmp_path):
    """The server has nothing beyond the last byte; the MD5 tells that all is there."""
    add_squares()
    (tmp_path / "squares.tar.gz.part").write_bytes(ARCHIVE)
    assert main(["download", "squares", str(tmp_path)]) == 0
    assert names_in(tmp_path) == ["squares", "squares.tar.gz"]


@pytest.mark.parametrize("part", [b"", b"of an older file"])
def test_other_content_is_refused(add_squares, server, tmp_path, capsys, part):
    """A wrong file, or the end of another than was begun, leaves nothing; the next run starts."""
    add_squares(served=ARCHIVE if part else b"<html>Sign in</html>")
    (tmp_path / "squares.tar.gz.part").write_bytes(part)
    message = error_of(capsys, "squares", tmp_path)
    assert f"expected {hashlib.md5(ARCHIVE).hexdigest()}; it is removed" in message
    assert names_in(tmp_path) == []
    server.content = ARCHIVE
    assert main(["download", "squares", str(tmp_path)]) == 0


def test_an_archive_that_is_there_is_used(add_squares, server, tmp_path, capsys):
    """Checked first: another file of its name is refused, and kept."""
    add_squares()
    path = tmp_path / "squares.tar.gz"
    path.write_bytes(b"mine")
    assert "is not the published archive" in error_of(capsys, "squares", tmp_path)
    assert path.read_bytes() == b"mine"
    path.write_bytes(ARCHIVE)
    assert main(["download", "squares", str(tmp_path)]) == 0
    assert server.asked == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("/missing", r"the server answers 404 Not Found to http://127\.0\.0\.1:\d+/missing;"),
        ("http://127.0.0.1:1/x", r"cannot reach http://127\.0\.0\.1:1/x \(.*refused.*\); rerun"),
        ("file:///etc/passwd", r"begins with http:// or https://, found 'file:///etc/passwd'"),
        ("http://a b/", r"cannot reach http://a b/ \(.*\); rerun"),
    ],
)
def test_unusable_addresses_are_one_error(add_squares, server, tmp_path, capsys, url, message):
    """The server's answer, or why there is none."""
    add_squares()
    url = server.url.replace("/squares.tar.gz", url) if url == "/missing" else url
    assert re.search(message, error_of(capsys, "squares", tmp_path, "--url", url))
    assert not (tmp_path / "squares").exists()


def test_a_root_that_is_a_file_is_refused(add_squares, tmp_path, capsys):
    """The file stays."""
    add_squares()
    (tmp_path / "data").write_text("mine")
    message = error_of(capsys, "squares", tmp_path / "data")
    assert f"cannot download into '{tmp_path}/data': File exists" in message
    assert (tmp_path / "data").read_text() == "mine"


def test_a_full_disk_keeps_what_came(add_squares, server, tmp_path, capsys):
    """A limit of the size of files stands for it; the next run resumes."""
    add_squares()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        message = error_of(capsys, "squares", tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"cannot download into '{tmp_path}': File too large; mend that and rerun" in message
    assert names_in(tmp_path) == ["squares.tar.gz.part"]
    assert main(["download", "squares", str(tmp_path)]) == 0
    assert server.asked == [None, "bytes=5000-"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tar_of(FILES | {"../evil": b"evil"}), "cannot unpack '.*outside the destination"),
        (tar_of({"other/x": b""}), "holds no folder 'squares'"),
        (b"no archive at all", "cannot unpack '"),
        (ARCHIVE[:-100], "cannot unpack '"),
    ],
    ids=["outside", "other folder", "no archive", "cut"],
)
def test_unusable_archives_leave_no_folder(add_squares, tmp_path, capsys, content, message):
    """Whatever its MD5: none is unpacked in part, or out of the folder."""
    add_squares(content)
    root = tmp_path / "data"
    assert re.search(message, error_of(capsys, "squares", root))
    assert names_in(root) == ["squares.tar.gz"]
    assert names_in(tmp_path) == ["data"]


def test_zip_files_are_unpacked_inside(add_squares, tmp_path):
    """A name that climbs out of the archive does not."""
    add_squares(zip_of(FILES | {"../../evil": b"evil"}))
    root = tmp_path / "data"
    assert main(["download", "squares", str(root)]) == 0
    assert names_in(root) == ["squares", "squares.tar.gz"]
    assert names_in(tmp_path) == ["data"]


def test_what_is_there_but_not_whole_is_told(add_squares, server, tmp_path, capsys):
    """A folder of the name is never replaced."""
    add_squares()
    (tmp_path / "squares").mkdir()
    (tmp_path / "squares" / "train.bin").write_bytes(PIXELS["train"][:50].tobytes())
    message = error_of(capsys, "squares", tmp_path)
    assert "has 50 images in its train split, published are 60; move its folder" in message
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
    monkeypatch.setattr(data_sets, "DATA_SETS", (replace(stl10.STL10, counts=counts),))
    words = ["stl10", tmp_path, "--url", server.url]
    assert f"expected {torchvision.datasets.STL10.tgz_md5}" in error_of(capsys, *words)
    md5 = hashlib.md5(server.content).hexdigest()
    monkeypatch.setattr(torchvision.datasets.STL10, "tgz_md5", md5)
    assert main(["download", *map(str, words)]) == 0
    assert "pretrain 50 images, train 20 images, test 10 images" in capsys.readouterr().out


@pytest.mark.parametrize("num_classes", [10, 100])
def test_cifar_is_what_torchvision_knows(tmp_path, monkeypatch, num_classes):
    """Address, checksum and folder of each are its own."""
    asked = []
    monkeypatch.setattr(cifar, "fetch", lambda *given: asked.append(given))
    theirs = {10: torchvision.datasets.CIFAR10, 100: torchvision.datasets.CIFAR100}[num_classes]
    data_sets.data_set(f"cifar{num_classes}").download(tmp_path, None)
    assert asked == [
        (fetch.Archive(theirs.url, theirs.tgz_md5, theirs.base_folder), tmp_path, None)
    ]


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
    assert main(["download", "digits", str(tmp_path / "data")]) == 0
    out = capsys.readouterr().out
    assert "embedded, nothing to download: train 1,437 images, test 360 images" in out
    assert not (tmp_path / "data").exists()
