import io
import re
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stored_files import REFUSED_FILES, STORED_FILES, png

from rsa_pretrain.data.check import check_split, describe
from rsa_pretrain.data.decode import EncodedImage
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.data.shards.stream import read_shard
from rsa_pretrain.data.stored_modes import HOW_READ, to_rgb
from rsa_pretrain.plumbing.errors import UserError

PAGE = Path(__file__).parents[3] / "docs" / "images.md"


def check_pixels(stored, found):
    """The pixels found are those that should be read."""
    difference = np.asarray(found).astype(int) - stored.pixels
    assert np.abs(difference).max() <= stored.tolerance


def page_rows(heading):
    """The cells of the table below a heading of the page."""
    section = PAGE.read_text(encoding="utf-8").partition(f"## {heading}\n")[2]
    lines = section.partition("\n## ")[0].splitlines()
    return [line.strip("| ").split(" | ") for line in lines if line.startswith("|")][2:]


@pytest.fixture
def write_folder(tmp_path):
    """A function that writes files as an image folder of one class and returns its settings."""

    def write(contents, **settings):
        folder = tmp_path / "train" / "a"
        folder.mkdir(parents=True)
        for number, content in enumerate(contents):
            (folder / f"{number:02}.png").write_bytes(content)
        return DataConfig(name="imagefolder", root=tmp_path, image_size=8, **settings)

    return write


@pytest.fixture
def write_shard(tmp_path):
    """A function that writes files as a tar shard and returns the settings."""

    def write(contents, **settings):
        (tmp_path / "train").mkdir()
        with tarfile.open(tmp_path / "train" / "a.tar", "w") as tar:
            for number, content in enumerate(contents):
                info = tarfile.TarInfo(f"{number:02}.png")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return DataConfig(name="webdataset", root=tmp_path, image_size=8, **settings)

    return write


@pytest.mark.parametrize("kind", STORED_FILES)
def test_each_kind_is_read_by_its_rule(kind):
    """As an image and as a tensor, of the size known beforehand, and without a warning."""
    stored = STORED_FILES[kind]
    file = EncodedImage(stored.content, "'a'", "remove it")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)
        image, name = file.read()
        pixels = file.pixels()
    assert (image.mode, name) == ("RGB", stored.name)
    check_pixels(stored, image)
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), np.asarray(image))
    assert file.size() == stored.pixels.shape[:2]


def test_image_folders_read_every_kind(write_folder):
    """Images of a set follow the rules, and the check at the start finds none of them broken."""
    config = write_folder([stored.content for stored in STORED_FILES.values()])
    images = open_images(config, "train")
    for index, stored in enumerate(STORED_FILES.values()):
        check_pixels(stored, images[index])
        check_pixels(stored, images.encoded(index).pixels().permute(1, 2, 0).numpy())


def test_shards_read_every_kind(write_shard):
    """So do members of a tar, read in any order and as a stream."""
    config = write_shard([stored.content for stored in STORED_FILES.values()])
    images = open_images(config, "train")
    streamed = read_shard(str(config.root / "train" / "a.tar"))
    pairs = zip(STORED_FILES.values(), streamed, strict=True)
    for index, (stored, sample) in enumerate(pairs):
        check_pixels(stored, images[index])
        check_pixels(stored, sample.encoded.read()[0])


def test_the_page_says_what_is_read():
    """Each part of a name has its row, in the code's words, and a file that has it."""
    rows = page_rows("Stored modes")
    assert {name.strip("`"): how for name, _, how in rows} == HOW_READ
    parts = {part for stored in STORED_FILES.values() for part in stored.name.split(" + ")}
    assert parts | {"YCbCr"} == HOW_READ.keys()  # of which Pillow before 13 has no file


def test_the_page_says_what_is_refused():
    """Each message of the page is one that a file gets, or that of a mode no file has."""
    with pytest.raises(ValueError, match="stored as") as other:
        to_rgb(Image.new("HSV", (1, 1)))
    messages = [reason for _, reason in REFUSED_FILES.values()] + [str(other.value)]
    rows = page_rows("Refused files")
    assert rows
    for _, message in rows:
        assert [text for text in messages if text.startswith(message.strip("`"))], message


@pytest.mark.parametrize("kind", REFUSED_FILES)
def test_what_has_no_rule_is_refused(kind):
    """The reason says what was found and what was expected, and the file is named."""
    content, reason = REFUSED_FILES[kind]
    file = EncodedImage(content, "'a.tif'", "remove it")
    message = re.escape(f"cannot decode 'a.tif' ({reason}); remove it") + "$"
    for read in (file.read, file.pixels):
        with pytest.raises(UserError, match=message):
            read()


@pytest.mark.parametrize("kind", REFUSED_FILES)
def test_image_folders_say_why(write_folder, caplog, kind):
    """The check at the start gives the reason of each file, refusing it or leaving it out."""
    content, reason = REFUSED_FILES[kind]
    whole = STORED_FILES["RGB PNG"].content
    config = write_folder([whole, content])
    path = config.root / "train" / "a" / "01.png"
    with pytest.raises(UserError, match=re.escape(f"{path} ({reason})")):
        open_images(config, "train")
    skipping = config.model_copy(update={"on_broken": "skip"})
    assert len(open_images(skipping, "train")) == 1
    assert f"skipping 1 of 2 files below '{config.root}/train'" in caplog.text
    assert f"{path} ({reason})" in caplog.text


@pytest.mark.parametrize("write", ["write_folder", "write_shard"])
def test_data_check_counts_each_kind(request, write):
    """Names are counted, and explained where they are not plain RGB; broken files have a reason."""
    contents = [stored.content for stored in STORED_FILES.values()]
    contents += [content for content, _ in REFUSED_FILES.values()]
    check = check_split(request.getfixturevalue(write)(contents), "pretrain")
    names = [stored.name for stored in STORED_FILES.values()]
    assert dict(check.modes) == {name: names.count(name) for name in names}
    assert len(check.broken) == len(REFUSED_FILES)
    for text, (_, reason) in zip(check.broken, REFUSED_FILES.values(), strict=True):
        assert f"({reason})" in text
    lines = list(describe(check))
    assert [line for line in lines if "16-bit grey 7" in line]
    parts = {part for name in names for part in name.split(" + ")}
    for part in parts - {"RGB"}:
        assert f"    {part}: {HOW_READ[part]}" in lines
    assert not any(line.startswith("    RGB:") for line in lines)


def test_the_limit_of_pixels_is_the_users(write_folder):
    """Raised, larger files are decoded: Pillow's own limit is not in the way; lowered, it holds."""
    content, _ = REFUSED_FILES["too large"]
    config = write_folder([content])
    raised = config.model_copy(update={"max_megapixels": 182.0})
    with pytest.raises(UserError, match=r"00\.png \(.*truncated"):  # of its one row of pixels
        open_images(raised, "train")
    small = EncodedImage(png(20, 10, 8, 0, [bytes(20)] * 10), "'a'", "remove it", raised)
    assert small.size() == (10, 20)
    lowered = small._replace(rules=config.model_copy(update={"max_megapixels": 0.0001}))
    for read in (lowered.read, lowered.size, lowered.pixels):
        with pytest.raises(UserError, match=r"\(0\.1 megapixels, data\.max_megapixels is 0\.0001"):
            read()
