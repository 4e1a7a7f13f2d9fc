"""Downloads of the transfer suite's data sets, from a server on the loopback address."""

import gzip
import hashlib
import inspect
import io
import re
import sys
import tarfile
import zipfile
from dataclasses import replace
from importlib.util import find_spec
from threading import Thread
from types import ModuleType

import pytest
import torchvision.datasets as theirs
import transfer_trees
from file_server import FileServer

from rsa_pretrain.__main__ import main
from rsa_pretrain.data import sets
from rsa_pretrain.data.sets import (
    caltech101,
    cub200,
    dtd,
    eurosat,
    fgvc_aircraft,
    flowers102,
    food101,
    gtsrb,
    oxford_pets,
    pcam,
    resisc45,
    sun397,
    svhn,
)
from rsa_pretrain.plumbing import fetch
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.fetch import Bundle, BundledFile

# Published files, by data.name.
SOURCES = {
    "food101": food101.FOOD101_ARCHIVE,
    "cub200": cub200.CUB200_ARCHIVE,
    "sun397": sun397.SUN397_FILES,
    "fgvc_aircraft": fgvc_aircraft.FGVC_AIRCRAFT_ARCHIVE,
    "dtd": dtd.DTD_ARCHIVE,
    "oxford_pets": oxford_pets.OXFORD_PETS_FILES,
    "caltech101": caltech101.CALTECH101_FILES,
    "caltech101_background": caltech101.CALTECH101_FILES,
    "flowers102": flowers102.FLOWERS102_FILES,
    "eurosat": eurosat.EUROSAT_FILES,
    "resisc45": resisc45.RESISC45_FILES,
    "gtsrb": gtsrb.GTSRB_FILES,
    "svhn": svhn.SVHN_FILES,
    "pcam": pcam.PCAM_FILES,
}
# Contents of each archive of a bundle, below the set's folder.
PACKED = {
    "images.tar.gz": "images",
    "annotations.tar.gz": "annotations",
    "101_ObjectCategories.tar.gz": "101_ObjectCategories",
    "102flowers.tgz": "jpg",
    "EuroSAT.zip": "2750",
    "NWPU-RESISC45.zip": "NWPU-RESISC45",
    "GTSRB-Training_fixed.zip": "GTSRB/Training",
    "GTSRB_Final_Test_Images.zip": "GTSRB/Final_Test",
    "GTSRB_Final_Test_GT.zip": "GT-final_test.csv",
    "Partitions.zip": "T",
}


@pytest.fixture
def server(monkeypatch):
    """A server on a free port, asked without a proxy."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(fetch.os, "sync", lambda: None)  # no test cuts the power
    with FileServer() as running:
        Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def tar_of(folder, name, without=()):
    """A tar.gz file's bytes, of a folder's subfolder but for some of its files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(folder / name, name, filter=lambda it: None if it.name in without else it)
    return buffer.getvalue()


def zip_of(contents):
    """A zip file's bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for name, content in contents.items():
            zipped.writestr(name, content)
    return buffer.getvalue()


def files_below(folder):
    """Return the content of each file, by its path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def pack(folder, file):
    """Return a bundled file's bytes, as its publisher packs them."""
    name = file.name
    if name == "SUN397.tar.gz":  # which alone has the folder's name in its paths
        lists = [f"SUN397/{part}_01.txt" for part in ("Training", "Testing")]
        return tar_of(folder.parent, folder.name, without=lists)
    if file.inner:
        inner = file.inner.rpartition("/")[2]
        return zip_of(
            {file.inner: tar_of(folder, PACKED[inner]), "caltech-101/Annotations.tar": b""}
        )
    if name.endswith((".tar.gz", ".tgz")):
        return tar_of(folder, PACKED[name])
    if name.endswith(".zip"):
        found = files_below(folder)
        return zip_of({path: found[path] for path in found if path.startswith(PACKED[name])})
    if name.endswith(".gz"):
        return gzip.compress((folder / name.removesuffix(".gz")).read_bytes())
    return (folder / name).read_bytes()


def publish(server, source, root):
    """Serve a tree as published; return the source with the checksums of what is served."""
    folder = root / source.folder
    if not isinstance(source, Bundle):
        name = source.url.rpartition("/")[2]
        server.files[name] = tar_of(root, source.folder)
        return replace(source, md5=hashlib.md5(server.files[name]).hexdigest())
    server.files |= {file.name: pack(folder, file) for file in source.files}
    files = [
        replace(file, md5=hashlib.md5(server.files[file.name]).hexdigest()) for file in source.files
    ]
    return replace(source, files=tuple(files))


OPENED = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            name == "pcam" and find_spec("h5py") is None, reason="h5py is not installed"
        ),
    )
    for name in SOURCES
    if not name.startswith("caltech101")  # thirty images a class take long to pack
]


@pytest.mark.usefixtures("small_counts")
@pytest.mark.parametrize("name", OPENED)
def test_a_download_is_what_the_set_opens(server, tmp_path, monkeypatch, capsys, name):
    """The command leaves the published tree, and says how many images each split has."""
    transfer_trees.WRITERS[name](tmp_path / "published")
    source = publish(server, SOURCES[name], tmp_path / "published")
    entry = sets.data_set(name)
    known = replace(entry, download=lambda root, url: fetch.fetch(source, root, url))
    monkeypatch.setattr(sets, "DATA_SETS", (known,))
    url = server.url if isinstance(source, Bundle) else server.url + source.url.rpartition("/")[2]
    assert main(["download", name, str(tmp_path / "data"), "--url", url]) == 0
    shown = ", ".join(f"{split} {n:,} images" for split, n in transfer_trees.COUNTS[name].items())
    assert shown in capsys.readouterr().out
    folder = source.folder
    assert files_below(tmp_path / "data" / folder) == files_below(tmp_path / "published" / folder)


def test_caltech101_is_unpacked_from_the_archive_inside(server, tmp_path):
    """Only the images are; the outer archive is kept, so that nothing is downloaded again."""
    names = ["BACKGROUND_Google/image_0001.jpg", "Faces/image_0001.jpg"]
    folder = tmp_path / "published" / "caltech101"
    transfer_trees.write_images(folder / "101_ObjectCategories", names)
    source = publish(server, caltech101.CALTECH101_FILES, tmp_path / "published")
    for _ in range(2):
        fetch.fetch(source, tmp_path / "data", server.url)
    assert files_below(tmp_path / "data" / "caltech101") == files_below(folder)
    assert [path.name for path in (tmp_path / "data/caltech101").iterdir()] == [
        "101_ObjectCategories"
    ]
    assert (tmp_path / "data/caltech101.downloads/caltech-101.zip").is_file()
    assert server.asked == ["caltech-101.zip"]


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "pcam"])
def test_each_set_fetches_its_own_files(name):
    """Into the folder where it is looked for."""
    entry = sets.data_set(name)
    assert (entry.download.func, entry.download.args) == (fetch.fetch, (SOURCES[name],))
    assert entry.folders == (SOURCES[name].folder,)


def test_patches_are_fetched_if_they_can_be_read(tmp_path, monkeypatch):
    """From the mirror that is named; without h5py, 8 GB would be of no use."""
    asked = []
    monkeypatch.setattr(pcam, "fetch", lambda *given: asked.append(given))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"needs the package h5py .*'rsa-toolkit\[hdf5\]'$"):
        sets.data_set("pcam").download(tmp_path, "http://mirror/")
    assert not asked
    monkeypatch.setitem(sys.modules, "h5py", ModuleType("h5py"))
    sets.data_set("pcam").download(tmp_path, "http://mirror/")
    assert asked == [(pcam.PCAM_FILES, tmp_path, "http://mirror/")]
    assert sets.data_set("pcam").folders == (pcam.PCAM_FILES.folder,)


def test_partitions_of_scenes_are_beside_their_images(server, tmp_path):
    """Both archives end in the folder SUN397, where torchvision also has the lists."""
    transfer_trees.WRITERS["sun397"](tmp_path / "published")
    source = publish(server, sun397.SUN397_FILES, tmp_path / "published")
    with zipfile.ZipFile(io.BytesIO(server.files["Partitions.zip"])) as zipped:
        assert sorted(zipped.namelist()) == ["Testing_01.txt", "Training_01.txt"]
    fetch.fetch(source, tmp_path / "data", server.url)
    names = {path.name for path in (tmp_path / "data" / "SUN397").iterdir()}
    assert names == {"a", "c", "s", "ClassName.txt", "Training_01.txt", "Testing_01.txt"}
    assert {path.name for path in (tmp_path / "data").iterdir()} == {
        ".download.lock",
        "SUN397",
        "SUN397.downloads",
    }


def test_addresses_and_checksums_are_torchvision_s():
    """Of every set that it downloads from where this toolkit does."""
    for source, known in ((food101.FOOD101_ARCHIVE, theirs.Food101), (dtd.DTD_ARCHIVE, theirs.DTD)):
        assert (source.url, source.md5) == (known._URL, known._MD5)
    assert fgvc_aircraft.FGVC_AIRCRAFT_ARCHIVE.url == theirs.FGVCAircraft._URL
    pets = [(file.url, file.md5) for file in oxford_pets.OXFORD_PETS_FILES.files]
    assert pets == list(theirs.OxfordIIITPet._RESOURCES)
    flowers = {(file.name, file.md5) for file in flowers102.FLOWERS102_FILES.files}
    assert flowers == set(theirs.Flowers102._file_dict.values())
    prefix = theirs.Flowers102._download_url_prefix
    assert {file.url for file in flowers102.FLOWERS102_FILES.files} == {
        prefix + name for name, _ in flowers
    }
    assert sun397.SUN397_FILES.files[0].md5 == theirs.SUN397._DATASET_MD5
    digits = [[file.url, file.name, file.md5] for file in svhn.SVHN_FILES.files]
    assert digits == [theirs.SVHN.split_list["train"], theirs.SVHN.split_list["test"]]
    patches = {(file.name.removesuffix(".gz"), file.md5) for file in pcam.PCAM_FILES.files}
    known = [part for parts in theirs.PCAM._FILES.values() for part in parts.values()]
    assert patches == {(name, md5) for name, _, md5 in known}
    for files, known in (
        (caltech101.CALTECH101_FILES.files, theirs.Caltech101),
        (eurosat.EUROSAT_FILES.files[:1], theirs.EuroSAT),
        (gtsrb.GTSRB_FILES.files, theirs.GTSRB),
    ):
        text = inspect.getsource(known.download)
        for file in files:
            assert file.name in text
            assert file.url.rpartition("/")[0] in text
            assert file.md5 in text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stanford_cars", r"gone: .*kaggle.*pytorch/vision/issues/7545 .* as ROOT/stanford_cars/"),
    ],
)
def test_what_cannot_be_downloaded_is_explained(tmp_path, capsys, name, message):
    """Where it comes from and where it goes; nothing is made."""
    assert main(["download", name, str(tmp_path / "data")]) == 2
    (line,) = re.findall(r"^error: .*$", capsys.readouterr().err, flags=re.MULTILINE)
    assert re.search(
        message.replace(" as ROOT", ".* ROOT"), line.replace(f"{tmp_path}/data", "ROOT")
    )
    assert not (tmp_path / "data").exists()
    (tmp_path / "data" / sets.data_set(name).folders[0]).mkdir(parents=True)
    sets.data_set(name).download(tmp_path / "data", None)  # as of every set that is there


# Bundles


@pytest.fixture
def bundle(server):
    """A zip file, a compressed one and a plain one."""
    server.files = {
        "pictures.zip": zip_of({"pictures/a.jpg": b"a", "../evil": b"evil"}),
        "table.csv.gz": gzip.compress(b"a,1\n"),
        "list.txt": b"a.jpg\n",
    }
    files = [
        BundledFile(server.url + name, hashlib.md5(content).hexdigest())
        for name, content in server.files.items()
    ]
    return Bundle("set", tuple(files))


WHOLE = {"pictures/a.jpg": b"a", "table.csv": b"a,1\n", "list.txt": b"a.jpg\n", "evil": b"evil"}


def test_a_bundle_is_whole_and_made_once(server, bundle, tmp_path):
    """A second run finds it; archives are kept beside, and nothing lands outside the folder."""
    (tmp_path / "data" / ".partial-set" / "junk").mkdir(parents=True)
    for _ in range(2):
        fetch.fetch(bundle, tmp_path / "data")
    assert files_below(tmp_path / "data" / "set") == WHOLE
    assert set(files_below(tmp_path / "data" / "set.downloads")) == {"pictures.zip", "table.csv.gz"}
    assert server.asked == ["pictures.zip", "table.csv.gz", "list.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_cut_bundle_resumes(server, bundle, tmp_path):
    """The bytes that came are kept, and only the rest is asked for."""
    server.cut_after = 60
    with pytest.raises(UserError, match=r"cut after 60 of .*rerun the command to resume '.*zip"):
        fetch.fetch(bundle, tmp_path)
    assert not (tmp_path / "set").exists()
    server.cut_after = None
    fetch.fetch(bundle, tmp_path)
    assert server.starts == [0, 60, 0, 0]
    assert files_below(tmp_path / "set") == WHOLE


def test_a_bundle_of_plain_files_leaves_nothing_beside(server, bundle, tmp_path):
    """They are kept once."""
    fetch.fetch(replace(bundle, files=bundle.files[2:]), tmp_path)
    assert files_below(tmp_path / "set") == {"list.txt": b"a.jpg\n"}
    assert not (tmp_path / "set.downloads").exists()


def test_an_interrupted_bundle_keeps_its_files(server, bundle, tmp_path, monkeypatch):
    """Nothing is downloaded again, and other files among the downloads do no harm."""

    def interrupt():
        raise KeyboardInterrupt

    plain = replace(bundle, files=bundle.files[2:])
    with monkeypatch.context() as patched:
        patched.setattr(fetch.os, "sync", interrupt)
        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            fetch.fetch(plain, tmp_path)
    (tmp_path / "set.downloads" / "notes").touch()
    fetch.fetch(plain, tmp_path)
    assert server.asked == ["list.txt"]
    assert files_below(tmp_path / "set") == {"list.txt": b"a.jpg\n"}
    assert set(files_below(tmp_path / "set.downloads")) == {"notes"}


def test_a_mirror_of_a_bundle_is_a_folder(server, bundle, tmp_path):
    """An address that is none would give every file the same content."""
    with pytest.raises(UserError, match=r"ending in /, that has pictures\.zip, table\.csv\.gz, li"):
        fetch.fetch(bundle, tmp_path, f"{server.url}pictures.zip")
    fetch.fetch(bundle, tmp_path, server.url.replace("files", "mirror"))
    assert files_below(tmp_path / "set") == WHOLE


@pytest.mark.parametrize(
    ("name", "content", "inner", "message"),
    [
        ("pictures.zip", b"other", "", r"MD5 is .*, expected .*; it is removed"),
        ("pictures.zip", None, "", "answers 404"),
        ("pictures.zip", zip_of({"x": b""}), "in/y.tar", "contains no 'in/y.tar'"),
        ("pictures.zip", b"no archive", "", "cannot unpack '.*pictures.zip'"),
        ("table.csv.gz", gzip.compress(b"a,1\n")[:-6], "", "cannot unpack '.*table.csv.gz'"),
        ("table.csv.gz", b"no gzip", "", "cannot unpack '.*table.csv.gz'"),
    ],
    # Archives state when they were made, so their bytes would name the tests differently each time.
    ids=["other file", "no file", "another member", "no zip", "cut gzip", "no gzip"],
)
def test_unusable_files_leave_no_folder(server, bundle, tmp_path, name, content, inner, message):
    """Whatever is wrong with one file of a bundle, none of it appears."""
    server.files[name] = content
    if content is None:
        del server.files[name]
    published = b"" if content in (None, b"other") else content
    md5 = hashlib.md5(published).hexdigest()
    files = [
        replace(file, md5=md5, inner=inner) if file.name == name else file for file in bundle.files
    ]
    with pytest.raises(UserError, match=message):
        fetch.fetch(replace(bundle, files=tuple(files)), tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {".download.lock", "set.downloads"}
