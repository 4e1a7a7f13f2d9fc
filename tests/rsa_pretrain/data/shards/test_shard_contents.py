"""Users' shards are read alike by the stream, the index and the check, or refused by all."""

import bz2
import gzip
import io
import json
import lzma
import os
import re
import tarfile

import pytest
from PIL import Image

from rsa_pretrain.data.check import check_split, describe
from rsa_pretrain.data.image_set import UNLABELLED
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.data.shards.stream import read_shard
from rsa_pretrain.plumbing.errors import UserError


def grey(number, form="PNG"):
    """An image file whose pixels are a number."""
    buffer = io.BytesIO()
    Image.new("L", (3, 2), number).save(buffer, form)
    return buffer.getvalue()


A, B, C = grey(1), grey(2), grey(3)
ODD = "caf\udce9"  # a name in Latin-1, as tarfile reads it
PAIRS = {"a.png": A, "a.cls": "0", "b.png": B, "b.cls": "1"}
NAMED = {"a.png": A, "a.cls": "dog\n", "b.png": B, "b.cls": "cat"}


def tar(members, form=tarfile.PAX_FORMAT):
    """A tar of members: bytes or text by name, or a header to add as it is."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def write(tmp_path):
    """Write shards, given as members or bytes by file name; return the root."""

    def write_splits(train, val=None):
        for folder, shards in (("train", train), ("val", val or {})):
            for name, shard in shards.items():
                path = tmp_path / folder / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(shard if isinstance(shard, bytes) else tar(shard))
        return tmp_path

    return write_splits


def configure(root, **settings):
    """Settings of a webdataset."""
    return DataConfig(**{"name": "webdataset", "root": root, "image_size": 8} | settings)


def streamed(root, **settings):
    """Stream train/: (pixel, class as stated) of each image."""
    config = configure(root, **settings)
    return [
        (image.encoded.read()[0].getpixel((0, 0))[0], image.label)
        for path in sorted((root / "train").glob("*.t*"))
        for image in read_shard(str(path), config, config)
    ]


def read_alike(root, **settings):
    """Read train/ by all readers; return (pixel, name of the class) of each image."""
    config = configure(root, **settings)
    images = open_images(config, "train")
    labels = images.labels or [UNLABELLED] * len(images)
    indexed = [
        (images[index].getpixel((0, 0))[0], None if label < 0 else images.class_names[label])
        for index, label in enumerate(labels)
    ]
    stream = streamed(root, **settings)
    assert [
        (pixel, None if label == UNLABELLED else str(label)) for pixel, label in stream
    ] == indexed
    assert sum(open_images(config, "pretrain").sizes) == len(indexed)
    check = check_split(config, "pretrain")
    assert check.num_images == len(indexed)
    assert list(check.class_sizes) == images.class_names
    for name, count in check.class_sizes.items():
        assert count == [found for _, found in indexed].count(name)
    return indexed


def refused_alike(root, message, **settings):
    """The stream, the count, the index and the check refuse train/ with one message."""
    config = configure(root, **settings)
    with pytest.raises(UserError, match=message) as first:
        streamed(root, **settings)
    for split in ("pretrain", "train"):
        with pytest.raises(UserError, match=f"^{re.escape(str(first.value))}$"):
            open_images(config, split)
    assert str(first.value) in check_split(config, "pretrain").problems


# Names


BOTH = [(1, "0"), (2, "1")]


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (PAIRS, BOTH),
        ({"a.input.png": A, "a.target.cls": "0", "b.image.png": B, "b.cls": "1"}, BOTH),
        (
            {"a.png": A, "a.seg.png": C, "a.cls": "0", "b.seg.png": C, "b.png": B, "b.cls": "1"},
            BOTH,
        ),
        ({"n01_1.v2.png": A, "n01_1.v2.cls": "0", "n01_2.v2.png": B, "n01_2.v2.cls": "1"}, BOTH),
        ({"p.1.png": A, "p.1.cls": "0", "p.2.png": B, "p.2.cls": "1"}, BOTH),
        ({"p.1.cls": "0", "p.1.png": A, "p.2.cls": "1", "p.2.png": B}, BOTH),
        ({"p.png": A, "p.cls": "0", "p.1.png": B, "p.1.cls": "1"}, BOTH),
        ({"a.PNG": A, "a.CLS": "0", "b.Png": B, "b.cls": "1"}, BOTH),
        ({"a.jpg": grey(1, "JPEG"), "a.cls": "0", "b.bmp": grey(2, "BMP"), "b.cls": "1"}, BOTH),
        ({"./x/a.png": A, "./x/a.cls": "0", "y.z/b.png": B, "y.z/b.cls": "1"}, BOTH),
        ({"d/" * 99 + "a" * 99 + ".png": A, "d/" * 99 + "a" * 99 + ".cls": "0"}, [(1, "0")]),
        ({f"{ODD}.png": A, f"{ODD}.cls": "0"}, [(1, "0")]),
        (
            {"a.png": A, "a.txt": "a caption\nof two lines", "a.json": "{", "a.npy": "x"},
            [(1, None)],
        ),
    ],
    ids=[
        "plain",
        "multi-part suffixes",
        "plain image first",
        "dot in the key",
        "pairs under one key",
        "pairs, class first",
        "plain and numbered pair",
        "upper case",
        "other image types",
        "folders",
        "long names",
        "no UTF-8",
        "other members",
    ],
)
def test_samples_are_found_alike(write, members, expected):
    """Stream, index, count and check find the same images and classes."""
    assert read_alike(write({"a.tar": members})) == expected


def test_gnu_long_names_are_read(write):
    """A name of 300 characters in GNU's format is one name."""
    members = {"d/" * 99 + "a" * 99 + ".png": A, "d/" * 99 + "a" * 99 + ".cls": "0"}
    assert read_alike(write({"a.tar": tar(members, tarfile.GNU_FORMAT)})) == [(1, "0")]


SEVERAL = {"a.input.png": A, "a.seg.png": C, "a.cls": "0", "b.input.png": B, "b.seg.png": C}
LINK = tarfile.TarInfo("c.png")
LINK.type, LINK.linkname = tarfile.LNKTYPE, "a.png"
SPARSE = tarfile.TarInfo("c.png")
SPARSE.pax_headers = {"GNU.sparse.size": "600", "GNU.sparse.map": "0,0"}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (SEVERAL, r"^sample 'a' of .*one image .*found \.input\.png, \.seg\.png;"),
        (SEVERAL, r"data\.image_suffix=input\.png.*data\.dotted_keys=true$"),
        ({"p.1.png": A, "p.2.png": B}, r"sample 'p' .*found \.1\.png, \.2\.png; choose one"),
        ({"p.1.png": A, "p.1.cls": "0", "p.2.png": B}, r"found \.1\.png, \.2\.png; choose"),
        ({"a.png": A, "a.jpg": B}, r"sample 'a' .*found \.png, \.jpg; choose one"),
        ({"a.png": A, "b.png": B, "a.cls": "0"}, r"sample 'a' .*found \.cls; .*must be adjacent"),
        ({"p.png": A, "p.1.png": B, "p.1.cls": "0"}, r"\.png and another, \.1\.png, with its own"),
        (
            {"p.png": A, "p.cls": "0", "p.1.png": B, "p.2.png": C, "p.2.cls": "1"},
            r"\.png and another, \.2\.png, with its own class; choose one",
        ),
        ({"a.png": A, "a.PNG": B}, r"sample 'a' of shard .* has \.png twice"),
        (
            {"a.png": A, "a.x.cls": "0", "a.y.cls": "0"},
            r"several classes: \.x\.cls, \.y\.cls; choose",
        ),
        ({"a.png": A, "c.png": LINK}, r"'c\.png' of shard .* is a link to 'a\.png'; write"),
        ({"a.png": A, "c.png": SPARSE}, r"'c\.png' of shard .* is a sparse file; write"),
    ],
)
def test_ambiguous_samples_are_refused_alike(write, members, message):
    """All readers name the sample, what it holds and the setting that chooses."""
    refused_alike(write({"a.tar": members}), message)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"image_suffix": "input.png"}, [(1, "0"), (2, None)]),
        ({"image_suffix": ".SEG.png"}, [(3, "0"), (3, None)]),
        ({"image_suffix": "input.png", "label_suffix": "seg.cls"}, [(1, None), (2, None)]),
    ],
)
def test_an_image_is_chosen_by_its_suffix(write, settings, expected):
    """The setting decides among several images, and is part of a stream's fingerprint."""
    root = write({"a.tar": SEVERAL})
    assert read_alike(root, **settings) == expected
    streams = [
        open_images(configure(root, **choice), "pretrain")
        for choice in ({"image_suffix": "input.png"}, {"image_suffix": "seg.png"})
    ]
    assert streams[0].sizes == streams[1].sizes
    assert streams[0].fingerprint() != streams[1].fingerprint()


def test_a_choice_keeps_a_key_together(write):
    """Under a chosen image, pairs of one key are one sample; its class is chosen as well."""
    members = {"a.x.png": A, "a.x.cls": "0", "a.y.png": B, "a.y.cls": "1"}
    root = write({"a.tar": members})
    refused_alike(root, r"several classes: \.x\.cls, \.y\.cls", image_suffix="x.png")
    assert read_alike(root, image_suffix="x.png", label_suffix="y.cls") == [(1, "1")]


def test_images_of_one_key_are_told_apart_in_errors(write):
    """A broken image is named by the whole of its name."""
    members = {"p.1.png": A, "p.1.cls": "0", "p.2.png": b"broken", "p.2.cls": "1"}
    check = check_split(configure(write({"a.tar": members})), "pretrain")
    assert re.match(r"cannot decode 'p\.2' of shard '.*a\.tar'", check.broken[0])


def test_a_missing_choice_is_refused(write):
    """A sample without the chosen image is named with what it holds."""
    root = write({"a.tar": PAIRS})
    refused_alike(
        root,
        r"'a' .*KEY\.in\.png \(data\.image_suffix\), found \.png, \.cls",
        image_suffix="in.png",
    )


def test_dotted_keys_make_each_image_a_sample(write):
    """With the key up to the last dot, images under one first part are read one by one."""
    members = {"p.1.png": A, "p.1.cls": "4", "p.2.png": B, "p.png": C}
    expected = [(1, "4"), (2, None), (3, None)]
    assert read_alike(write({"a.tar": members}), dotted_keys=True) == expected


def test_settings_of_samples_are_for_shards():
    """An image folder has no suffixes to choose from; an empty suffix is none."""
    for setting in ({"image_suffix": "png"}, {"label_key": "a"}, {"dotted_keys": True}):
        with pytest.raises(
            ValueError, match=rf"data\.{next(iter(setting))} belongs to 'webdataset'"
        ):
            configure(".", name="imagefolder", **setting)
    with pytest.raises(ValueError, match=r"label_suffix=json needs data\.label_key"):
        configure(".", label_suffix="json")
    with pytest.raises(ValueError, match="should match pattern"):
        configure(".", image_suffix="a/b.png")


# What is not a sample


SYSTEM = [
    ".DS_Store",
    "._a.png",
    "x/._a.png",
    "./.hidden.png",
    "__MACOSX/a.png",
    "__MACOSX/._a.png",
    ".ipynb_checkpoints/a.png",
    "x/@eaDir/a.png",
    "PaxHeaders.123/a.png",
    "Thumbs.db",
    "x/desktop.ini",
]


@pytest.mark.parametrize("dotted_keys", [False, True])
@pytest.mark.parametrize("name", SYSTEM)
def test_system_members_are_left_out_and_named(write, name, dotted_keys):
    """They may come between the members of a sample without splitting it; the check counts them."""
    members = {"a.png": A, name: b"no image", "a.cls": "0", "b.png": B, "b.cls": "1"}
    root = write({"a.tar": members})
    assert read_alike(root, dotted_keys=dotted_keys) == BOTH
    lines = list(describe(check_split(configure(root), "pretrain")))
    assert f"  note: left out: 1 system and hidden files, such as '{name}'" in lines


def test_what_else_is_left_out_is_named(write):
    """Files without a suffix and further images are counted."""
    members = {"photo": A, "LICENSE": "x", "__info__/x.png": B, "a.png": A, "a.mask.png": C}
    root = write({"a.tar": members})
    assert read_alike(root) == [(1, None)]
    notes = check_split(configure(root), "pretrain").notes
    assert "left out: 2 files without a suffix, such as 'photo'" in notes
    assert "left out: 1 further images of samples, such as 'a.mask.png'" in notes


# Classes


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("7", "7"),
        ("007\r\n", "7"),
        ("\ufeff7\n", "7"),
        (" tabby cat\n", "tabby cat"),
        ("n01440764", "n01440764"),
        ("straße", "straße"),
    ],
)
def test_classes_are_numbers_or_names(write, content, name):
    """Space, line ends and byte order marks are no part of either."""
    assert read_alike(write({"a.tar": {"a.png": A, "a.cls": content}})) == [(1, name)]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "found ''"),
        ("-1", "found '-1'"),
        ("3.5", r"found '3\.5'"),
        ("1e5", "found '1e5'"),
        ("0 0 1", "found '0 0 1'"),
        ("9999999", "found '9999999'"),
        ("one\ntwo", "found 'one two'|found 'one\ntwo'"),
        ("x" * 101, "found 'xxxxxxxxxxxxxxxxxxxx'"),
        (b"\xff\xfe7\x00", "found non-text bytes"),
    ],
)
def test_malformed_classes_are_refused_alike(write, content, found):
    """A label that is neither an index nor a name is reported by its member."""
    root = write({"a.tar": {"a.png": A, "a.cls": content}})
    refused_alike(root, rf"^'a\.cls' of shard .* should contain a class index .*({found})$")


def test_names_are_numbered_by_training_for_both_splits(write):
    """Sorted by name, over all training shards; a split with fewer classes keeps the numbers."""
    root = write(
        {"a.tar": NAMED, "b.tar": {"c.png": C, "c.cls": "ant"}},
        {"a.tar": {"a.png": A, "a.cls": "dog"}},
    )
    assert read_alike(root) == [(1, "dog"), (2, "cat"), (3, "ant")]
    test = open_images(configure(root), "test")
    assert (test.labels, test.class_names) == ([2], ["ant", "cat", "dog"])
    assert check_split(configure(root), "test").class_sizes == {"ant": 0, "cat": 0, "dog": 1}


def test_numbers_are_counted_by_training_for_both_splits(write):
    """Training has classes 0 to 2; a test split without the last one has three classes as well."""
    train = PAIRS | {"c.png": C, "c.cls": "2"}
    root = write({"a.tar": train}, {"a.tar": PAIRS})
    splits = [open_images(configure(root), split) for split in ("train", "test")]
    assert splits[0].class_names == splits[1].class_names == ["0", "1", "2"]
    assert splits[1].labels == [0, 1]


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        (NAMED, {"a.png": A, "a.cls": "emu"}, r"lack: 'emu' \(training has 'cat' to 'dog'\)"),
        (PAIRS, {"a.png": A, "a.cls": "7"}, r"lack: '7' \(training has '0' to '1'\)"),
        (NAMED, PAIRS, r"lack: '0', '1' \(training has 'cat' to 'dog'\)"),
        (PAIRS, NAMED, r"lack: 'cat', 'dog' \(training has '0' to '1'\)"),
        (NAMED | {"c.png": C, "c.cls": "3"}, NAMED, r"train shards .*'cat' in .*number \(3 in '"),
        (NAMED, NAMED | {"c.png": C, "c.cls": "3"}, r"test shards .*'cat' in .*number \(3 in '"),
    ],
)
def test_classes_that_do_not_agree_are_refused(write, train, val, message):
    """The evaluation and the check name the classes, never an index of the toolkit's."""
    config = configure(write({"a.tar": train}, {"a.tar": val}))
    with pytest.raises(UserError, match=message) as error:
        open_images(config, "test")
    assert check_split(config, "test").problems[0] == str(error.value)


def test_test_shards_alone_number_themselves(write):
    """Where training is remote or absent, no other numbering is there to disagree with."""
    root = write({}, {"a.tar": NAMED})
    for settings in ({}, {"shards": "https://example.org/{0..1}.tar"}):
        images = open_images(configure(root, **settings), "test")
        assert (images.labels, images.class_names) == ([1, 0], ["cat", "dog"])


def test_a_stream_takes_names_without_reading_other_shards(write):
    """Pretraining needs no numbering: sizes that are stated are believed, names pass."""
    root = write({"a.tar": NAMED, "b.tar": b"never read"})
    (root / "train" / "sizes.json").write_text('{"a.tar": 2, "b.tar": 5}')
    assert open_images(configure(root), "pretrain").sizes == (2, 5)
    assert [image.label for image in read_shard(str(root / "train" / "a.tar"))] == ["dog", "cat"]


def test_an_index_is_renewed_when_a_shard_changes(write):
    """Indexes are kept while a file has the same time and size."""
    root = write({"a.tar": NAMED})
    assert open_images(configure(root), "train").class_names == ["cat", "dog"]
    path = write({"a.tar": PAIRS}) / "train" / "a.tar"
    os.utime(path, ns=(1, 1))
    assert open_images(configure(root), "train").class_names == ["0", "1"]


# JSON and other members


def json_members(*classes):
    """Images with JSON members like those of img2dataset."""
    members = {}
    for number, value in enumerate(classes):
        members[f"{number}.png"] = grey(number)
        members[f"{number}.json"] = json.dumps({"caption": "a photo", "label": value})
    return members


@pytest.mark.parametrize(
    ("values", "names"),
    [((0, 1), ["0", "1"]), ((1.0, "0"), ["1", "0"]), (("dog", " cat "), ["dog", "cat"])],
)
def test_json_classes_are_read_by_their_key(write, values, names):
    """The value under data.label_key is the class: a number, an integral float, or a name."""
    found = read_alike(write({"a.tar": json_members(*values)}), label_key="label")
    assert found == [(0, names[0]), (1, names[1])]


@pytest.mark.parametrize(
    ("value", "key", "message"),
    [
        (0, "cls", r"'0\.json' of .* has no key 'cls' .*its keys are: 'caption', 'label'$"),
        (None, "label", r"'0\.json' of .*under 'label', found null"),
        (True, "label", r"under 'label', found true"),
        ([3], "label", r"under 'label', found \[3\]"),
        (0.5, "label", r"under 'label', found 0\.5"),
        (-1, "label", r"found '-1'"),
    ],
)
def test_malformed_json_classes_are_refused_alike(write, value, key, message):
    """The existing keys are listed, a value that is not a class is shown."""
    refused_alike(write({"a.tar": json_members(value)}), message, label_key=key)


@pytest.mark.parametrize("content", ["[1]", "{", "7", b"\xff"])
def test_json_that_is_no_object_is_refused_alike(write, content):
    """Neither a list nor half an object has keys."""
    root = write({"a.tar": {"a.png": A, "a.json": content}})
    refused_alike(root, r"'a\.json' of .* should be a JSON object with the key 'x'", label_key="x")


def test_classes_in_text_members_are_read_when_named(write):
    """data.label_suffix=txt takes what is a caption otherwise."""
    root = write({"a.tar": {"a.png": A, "a.txt": "dog", "b.png": B, "b.txt": "cat"}})
    assert read_alike(root) == [(1, None), (2, None)]
    assert read_alike(root, label_suffix=".txt") == [(1, "dog"), (2, "cat")]


@pytest.mark.parametrize(
    ("members", "advice"),
    [
        (
            json_members(0, 1),
            r"'0' of .*no \.cls .*with the keys caption, label.*data\.label_key=KEY",
        ),
        ({"a.png": A, "a.txt": "dog"}, r"it has \.txt; .*data\.label_suffix=txt"),
        ({"a.png": A}, r"'a' of shard '.*' has no \.cls member"),
        ({"a.png": A, "a.cls": "0", "b.png": B}, r"'b' of shard '.*' has no \.cls member"),
    ],
)
def test_what_an_evaluation_refuses_the_check_tells(write, members, advice):
    """Unlabelled test shards are a problem, training shards a note: pretraining takes them."""
    config = configure(write({"a.tar": members}, {"a.tar": members}))
    for split in ("train", "test"):
        with pytest.raises(UserError, match=rf"webdataset images have no classes: .*{advice}"):
            open_images(config, split).require_labels()
    train, test = (check_split(config, split) for split in ("pretrain", "test"))
    assert re.search(advice, test.problems[-1])
    assert re.search(advice, train.notes[-1])
    assert not train.problems


# Tar files


def test_compressed_shards_are_streamed_and_refused_by_evaluations(write):
    """Found by every name, by their content under .tar, and as two archives in one file."""
    first, second = (gzip.compress(tar(members)) for members in (PAIRS, {"c.png": C, "c.cls": "0"}))
    shards = {"a.tar.gz": first, "b.tgz": second, "c.tar": first, "d.tar.gz": first + second}
    root = write(shards, {"a.tar.gz": first})
    config = configure(root)
    assert open_images(config, "pretrain").sizes == (2, 1, 2, 3)
    assert [label for _, label in streamed(root)] == [0, 1, 0, 0, 1, 0, 1, 0]
    for split, name in (("train", "a"), ("test", "a")):
        with pytest.raises(
            UserError, match=rf"'.*{name}\.tar\.gz' is compressed with gzip.*gzip -dc"
        ):
            open_images(config, split)
    train, test = (check_split(config, split) for split in ("pretrain", "test"))
    refusal = (
        r"evaluation cannot read {} shards in any order: '.*a\.tar\.gz' is compressed with gzip"
    )
    assert re.search(refusal.format("4 of 4"), train.notes[-1])
    assert not train.problems
    assert re.search(refusal.format("1 of 1"), test.problems[-1])


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar"])
def test_sizes_of_compressed_shards_are_read_under_either_name(write, name):
    """sizes.json may call a.tar.gz so, or a.tar as data-check does."""
    root = write({"a.tar.gz": gzip.compress(tar(PAIRS))})
    (root / "train" / "sizes.json").write_text(json.dumps({name: 2}))
    assert open_images(configure(root), "pretrain").sizes == (2,)
    assert not check_split(configure(root), "pretrain").problems


def test_an_unpacked_shard_is_read_in_place_of_its_compressed_one(write, caplog):
    """Both are the same images; a warning names the one that is read."""
    root = write({"a.tar": PAIRS, "a.tar.gz": gzip.compress(tar(PAIRS))})
    assert open_images(configure(root), "pretrain").sizes == (2,)
    assert "a.tar, a.tar.gz, of which a.tar is read" in caplog.text


def test_a_folder_without_shards_says_what_it_holds(write):
    """The error names the files that are not shards."""
    root = write({"a.zip": b"", "b.tar.lz4": b""})
    with pytest.raises(
        UserError, match=r"^no \*\.tar in '.*train' \(it contains a\.zip, b\.tar\.lz4\)"
    ):
        open_images(configure(root), "pretrain")


@pytest.mark.parametrize("open_compressed", [bz2.open, lzma.open])
def test_other_compressions_are_read(write, open_compressed):
    """bzip2 and xz are streamed; a plain tar whose first file is called like one is no such."""
    root = write({"a.tar": tar({"BZh9.png": C} | PAIRS), "b.tar.xz": b""})
    with open_compressed(root / "train" / "b.tar.xz", "wb") as file:
        file.write(tar(PAIRS))
    assert streamed(root) == [(3, UNLABELLED), (1, 0), (2, 1), (1, 0), (2, 1)]


def test_zstandard_is_read_through_its_command(write):
    """Python cannot unpack it; the error shows the pipe that can."""
    root = write({"a.tar.zst": b"\x28\xb5\x2f\xfd" + bytes(100)})
    with pytest.raises(UserError, match=r'compressed with zstd; .*"pipe:zstd -dc FILE"'):
        open_images(configure(root), "pretrain")


WHOLE = tar(PAIRS)
SECOND = WHOLE.index(b"a.cls")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (WHOLE[:700], "unexpected end of data"),
        (WHOLE[: SECOND + 300], "damaged: truncated header"),
        (WHOLE[:SECOND] + b"?" + WHOLE[SECOND + 1 :], "damaged: bad checksum"),
        (b"", "empty file"),
        (b"PK\x03\x04" + bytes(600), "damaged: bad checksum"),
        (WHOLE.rstrip(b"\0") + b"\0" * 2048 + b"?" * 512, "damaged: invalid header"),
    ],
    ids=["cut in a file", "cut in a header", "damaged header", "empty", "zip", "junk at the end"],
)
def test_damaged_shards_are_refused_alike(write, content, message):
    """A damaged header does not end the shard in silence."""
    root = write({"a.tar": content})
    refused_alike(root, rf"^cannot read shard '.*a\.tar' \({message}\); check data\.shards")


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_cut_compressed_shard_is_refused(write, compress):
    """A stream that ends early is not a shard, wherever it ends."""
    root = write({"a.tar": compress(WHOLE)[:-9] if compress is gzip.compress else WHOLE[:700]})
    with pytest.raises(UserError, match=r"^cannot read shard '.*a\.tar' \("):
        streamed(root)


def test_concatenated_archives_are_read_to_the_end(write):
    """Members after an end mark are not lost, and a cut end mark is not damage."""
    more = tar({"c.png": C, "c.cls": "0"})
    assert read_alike(write({"a.tar": WHOLE + more[:-1000]})) == [*BOTH, (3, "0")]


def test_a_shard_without_samples_is_empty(write):
    """It adds nothing; a split of such shards is refused by evaluation and check."""
    root = write({"a.tar": PAIRS, "b.tar": tar({})}, {"a.tar": tar({})})
    assert read_alike(root) == BOTH
    assert open_images(configure(root), "pretrain").sizes == (2, 0)
    with pytest.raises(UserError, match="no image in the 1 shards of the test split"):
        open_images(configure(root), "test")
    assert (
        "no image in the 1 shards of the test split"
        in check_split(configure(root), "test").problems
    )


def test_a_failing_command_is_noticed_after_a_whole_tar(write):
    """A stream whose command fails may lack images though its tar has an end."""
    path = write({"a.tar": PAIRS}) / "train" / "a.tar"
    with pytest.raises(UserError, match=r"its command failed with exit status 3"):
        list(read_shard(f"pipe:cat {path}; exit 3"))
    images = read_shard(f"pipe:cat {path}")
    assert next(images).label == 0
    images.close()


def test_remote_test_shards_are_a_problem(write):
    """No evaluation reads a stream; pretraining does."""
    path = write({"a.tar": PAIRS}) / "train" / "a.tar"
    piped = f"pipe:cat {path}"
    sizes = path.parent / "sizes.json"
    sizes.write_text('{"a.tar": 2}')
    config = configure(path.parent, shards=piped, test_shards=piped, shard_sizes=sizes)
    train, test = (check_split(config, split) for split in ("pretrain", "test"))
    assert not train.problems
    assert re.search("cannot read 1 of 1 .*can only be streamed", train.notes[-1])
    assert re.search("cannot read 1 of 1 .*can only be streamed", test.problems[-1])


def test_names_that_are_no_utf8_can_be_printed(write):
    """A broken image of such a name is one printable line."""
    root = write({"a.tar": {f"{ODD}.png": b"broken"}})
    check = check_split(configure(root), "pretrain")
    assert r"'caf\xe9'" in check.broken[0].encode().decode()


# What stays


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("pretrain", "f69371d8444e77b08dde17144b2fe9eb45afb83f436090139904dc1e09851d87"),
        ("train", "61dc714e319f52ba711def338444b5631c700c3cf560e7ad19e1a1e9b8ba021b"),
    ],
)
def test_fingerprints_are_those_of_earlier_versions(write, split, expected):
    """Plain shards whose images are not turned keep their fingerprints."""
    members = {"a.png": "x" * 600, "a.cls": "1", "b/c.jpg": "y", "b/c.seg.png": "z"}
    root = write({"a.tar": members, "b.tar": {"d.png": "x", "d.cls": "0"}})
    config = configure(root, exif_orientation=False)
    assert open_images(config, split).fingerprint() == expected
