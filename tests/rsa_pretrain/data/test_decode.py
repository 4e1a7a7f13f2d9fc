import hashlib
import io
import struct
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from rsa_pretrain.data import decode
from rsa_pretrain.data.decode import EncodedImage
from rsa_pretrain.data.image_folder import ImageFiles
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.orientation import orientation_in
from rsa_pretrain.data.read_settings import DEFAULT_RULES, ReadRules
from rsa_pretrain.data.shards.stream import ShardSet
from rsa_pretrain.plumbing.errors import UserError

AS_STORED = ReadRules(exif_orientation=False)


def photo(mode="RGB", size=(61, 47)):
    """A smooth picture with noise, width x height."""
    across = np.linspace(0, 200, size[0])[None, :, None]
    noise = np.random.default_rng(0).integers(0, 50, (size[1], size[0], 3))
    return Image.fromarray((across + noise).astype(np.uint8)).convert(mode)


def encoded(image, form="JPEG", **options):
    """An image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return EncodedImage(buffer.getvalue(), "'a.jpg'", "remove it")


@pytest.mark.parametrize(
    ("image", "form", "options"),
    [
        (photo(), "JPEG", {"quality": 75}),
        (photo(), "JPEG", {"quality": 95, "subsampling": 0, "progressive": True}),
        (photo("L"), "JPEG", {}),
        (photo("CMYK"), "JPEG", {}),
        (photo(), "PNG", {}),
        (photo("RGBA"), "PNG", {}),
        (photo("P"), "PNG", {}),
        (photo(), "WEBP", {}),
    ],
)
def test_tensors_hold_pillows_pixels(image, form, options):
    """Bitwise, of every mode and format."""
    file = encoded(image, form, **options)
    pixels = file.pixels()
    expected = np.asarray(file.read()[0])
    assert pixels.dtype == torch.uint8
    assert file.size() == (47, 61) == pixels.shape[1:]
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_usual_jpegs_are_decoded_by_torchvision(mode, monkeypatch):
    """Pillow reads no more than the header of a colour or grayscale JPEG."""
    monkeypatch.setattr(decode, "pil_to_tensor", None)
    assert encoded(photo(mode)).pixels().shape == (3, 47, 61)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no image format is recognised"),
        (b"not a jpeg", "no image format is recognised"),
        (encoded(photo()).content[:900], "truncated"),
        (encoded(photo(), "PNG").content[:900], "truncated"),
    ],
)
def test_damage_is_named_alike(content, reason):
    """A tensor is refused for the reason, and in the words, that an image is refused in."""
    file = EncodedImage(content, "'a.jpg'", "remove it")
    with pytest.raises(UserError, match=rf"^cannot decode 'a\.jpg' \(.*{reason}.*\); remove it$"):
        file.read()
    with pytest.raises(UserError, match=rf"^cannot decode 'a\.jpg' \(.*{reason}.*\); remove it$"):
        file.pixels()


# Orientation


def exif(orientation):
    """EXIF data that state an orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_images_are_read_upright(form, orientation):
    """As Pillow's own function turns them, size and tensor too; as stored if so wished."""
    file = encoded(photo(), form, exif=exif(orientation))
    with Image.open(io.BytesIO(file.content)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    read, mode = file.read()
    assert np.array_equal(np.asarray(read), expected)
    assert np.array_equal(file.pixels().permute(1, 2, 0).numpy(), expected)
    assert file.size() == expected.shape[:2]
    assert mode.endswith("turned by EXIF") is (orientation != 1 and form != "TIFF")
    as_stored = file._replace(rules=AS_STORED)
    if form != "TIFF":  # whose orientation is part of the format
        assert as_stored.size() == as_stored.pixels().shape[1:] == (47, 61)
        assert as_stored.read()[0].size == (61, 47)


def test_orientation_after_the_pixels_of_a_png_counts():
    """Viewers find the mark wherever the format allows it."""
    plain, marked = (encoded(photo(), "PNG", **words).content for words in ({}, {"exif": exif(6)}))
    start = marked.index(b"eXIf") - 4
    mark = marked[start : start + 12 + int.from_bytes(marked[start : start + 4], "big")]
    file = EncodedImage(plain[:-12] + mark + plain[-12:], "'a'", "remove it")
    assert file.size() == file.pixels().shape[1:] == (61, 47)
    assert file.read()[0].size == (47, 61)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda block: block, 6),
        (lambda block: block[:9], 1),
        (lambda block: block[:14], 1),
        (lambda block: block[:8], 1),
        (lambda block: b"", 1),
        (lambda block: b"XX" + block[2:], 1),
        (lambda block: block[:4] + b"\xff" * 4 + block[8:], 1),
        (lambda block: block.replace(b"\x12\x01\x03\0", b"\x12\x01\x07\0"), 1),
        (lambda block: block[:18] + b"\x09\0" + block[20:], 1),
        (lambda block: block[:18] + b"\0\0" + block[20:], 1),
        (lambda block: block[:8] + b"\xff\xff" + block[10:], 6),
    ],
)
@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_damaged_exif_is_no_orientation(form, damage, expected):
    """Cut, of another byte order, type or value: the image is read, and not turned."""
    block = struct.pack("<4sIHHHIIxxxx", b"II*\0", 8, 1, 0x0112, 3, 1, 6)
    file = encoded(photo(), form, exif=b"Exif\0\0" + damage(block))
    upright = (47, 61) if expected == 1 else (61, 47)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of the rest of the damaged block
        assert file.size() == file.pixels().shape[1:] == upright
        assert file.read()[0].size == upright[::-1]
    assert orientation_in(damage(block)) == expected


@pytest.mark.parametrize("kind", ["B", "H", "I"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_is_any_whole_number(order, kind):
    """Of one, two or four bytes, in both byte orders, with or without the name before it."""
    mark, number = {"<": b"II*\0", ">": b"MM\0*"}[order], {"B": 1, "H": 3, "I": 4}[kind]
    head = struct.pack(f"{order}4sIHHHI", mark, 8, 1, 0x0112, number, 1)
    block = head + struct.pack(f"{order}{kind}", 8).ljust(8, b"\0")
    assert orientation_in(block) == orientation_in(b"Exif\0\0" + block) == 8


def test_warnings_name_the_file(tmp_path, python):
    """A warning of Pillow is one log line with the file, also in threads."""
    form = encoded(photo(), "TIFF", compression="raw").content
    broken = form.replace(struct.pack("<HHI", 258, 3, 3), struct.pack("<HHI", 258, 3, 2**24))
    assert broken != form
    (tmp_path / "a.tif").write_bytes(broken)
    program = (
        "import sys; from concurrent.futures import ThreadPoolExecutor; "
        "from rsa_pretrain.data.decode import fault_of; "
        "from rsa_pretrain.data.read_settings import DEFAULT_RULES; "
        "ThreadPoolExecutor(1).submit(fault_of, sys.argv[1], DEFAULT_RULES).result()"
    )
    done = python.run("-c", program, tmp_path / "a.tif")
    assert done.returncode == 0
    assert done.stderr
    for line in done.stderr.splitlines():
        assert line.startswith(f"'{tmp_path}/a.tif' is read although Pillow warns: ")


# Fingerprints


def test_fingerprints_tell_how_files_are_read(tmp_path):
    """Turned images are others than stored ones; those have the hash from before the choice."""
    photo().save(tmp_path / "a.png")
    size = (tmp_path / "a.png").stat().st_size
    turned, stored, large = (
        ImageSet("x", ImageFiles(tmp_path, ["a.png"], rules), [0], ["a"]).fingerprint()
        for rules in (DEFAULT_RULES, AS_STORED, ReadRules(max_megapixels=1e3))
    )
    before = hashlib.sha256(f"x 1 [0]{tmp_path.name}/a.png {size}\n".encode()).hexdigest()
    assert stored == before
    assert turned == large != stored


def test_fingerprints_of_shards_tell_how_they_are_read():
    """The same of a stream."""
    turned, stored = (
        ShardSet(["a.tar"], ["a.tar"], [3], 4, rules).fingerprint()
        for rules in (DEFAULT_RULES, AS_STORED)
    )
    assert stored == hashlib.sha256(b"webdataset\na.tar 3\n").hexdigest()
    assert turned != stored
