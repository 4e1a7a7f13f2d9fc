"""Small image files of every kind, with the RGB pixels that each should be read as."""

import io
import struct
import zlib
from typing import NamedTuple

import numpy as np
import PIL
from PIL import Image


class StoredFile(NamedTuple):
    """An image file.

    Attributes:
        content: The file.
        name: What its mode is called.
        pixels: What is read, (H, W, 3).
        tolerance: Levels by which conversions may differ.
    """

    content: bytes
    name: str
    pixels: np.ndarray
    tolerance: int = 0


def saved(image, form, **options):
    """Return an image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png(width, height, depth, colour_type, rows, *chunks):
    """Write a PNG by hand: Pillow writes no colours of 16 bits.

    Args:
        width: In pixels; of the header alone, whatever the rows hold.
        height: The same.
        depth: Bits a channel.
        colour_type: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA.
        rows: Bytes of each.
        chunks: Further chunks before the pixels, name and content.
    """
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    all_chunks = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, *zip(*all_chunks, strict=True)))


def _chunk(name, content):
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


def exif_bytes(orientation):
    """Return EXIF data that state an orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def tiff(width, height, bits, sample_format, meaning, content, order="<"):
    """Write an uncompressed TIFF of one channel by hand.

    Args:
        width: In pixels.
        height: In pixels.
        bits: Of a level.
        sample_format: 1 whole numbers, 2 with a sign, 3 floats.
        meaning: 0 white is zero, 1 black is.
        content: The pixels.
        order: Of bytes, as struct names it.
    """
    tags = [
        (256, width),
        (257, height),
        (258, bits),
        (259, 1),
        (262, meaning),
        (273, 8),
        (277, 1),
        (278, height),
        (279, len(content)),
        (339, sample_format),
    ]
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entries = [struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags]
    directory = struct.pack(f"{order}H", len(tags)) + b"".join(entries) + bytes(4)
    return mark + struct.pack(f"{order}I", 8 + len(content)) + content + directory


def _grey(*levels):
    return np.repeat(np.array([levels], np.uint8)[..., None], 3, axis=2)


def _colours(*colours):
    return np.array([colours], np.uint8)


def _flat(colour, side=8):
    return np.broadcast_to(np.array(colour, np.uint8), (side, side, 3))


def _words(levels, order=">"):
    return np.array(levels, f"{order}u2").tobytes()


_RED, _BLUE = (255, 0, 0), (0, 0, 255)
_PAIR = _colours((10, 20, 30), (200, 100, 50))
_LEVELS = [0, 200, 30000, 65535]
_SCALED = _grey(0, 1, 117, 255)
_PALETTE = (b"PLTE", bytes([10, 20, 30, 200, 100, 50]))
_INK = (0, 100, 200, 55)  # cyan, magenta, yellow, black
_PRINTED = _flat((200, 122, 43))  # (255 - ink) * (255 - black) / 255
_FRAMES = [Image.new("RGB", (4, 3), colour) for colour in (_RED, _BLUE)]
_FIRST = np.broadcast_to(np.array(_RED, np.uint8), (3, 4, 3))


def _cases():
    pair = Image.fromarray(_PAIR)
    opaque, clear = pair.convert("RGBA"), pair.convert("RGBA")
    clear.putalpha(0)
    yield "RGB PNG", StoredFile(saved(pair, "PNG"), "RGB", _PAIR)
    yield "RGB BMP", StoredFile(saved(pair, "BMP"), "RGB", _PAIR)
    yield "RGB WebP", StoredFile(saved(pair, "WEBP", lossless=True), "RGB", _PAIR)
    yield "opaque RGBA PNG", StoredFile(saved(opaque, "PNG"), "RGBA", _PAIR)
    yield "clear RGBA PNG", StoredFile(saved(clear, "PNG"), "RGBA", _PAIR)
    yield (
        "clear RGBA WebP",
        StoredFile(saved(clear, "WEBP", lossless=True, exact=True), "RGBA", _PAIR),
    )
    yield "L JPEG", StoredFile(saved(Image.new("L", (8, 8), 77), "JPEG"), "L", _flat([77] * 3))
    yield "grey of 2 bits", StoredFile(png(4, 1, 2, 0, [b"\x1b"]), "L", _grey(0, 85, 170, 255))
    yield "LA PNG", StoredFile(png(2, 1, 8, 4, [bytes([9, 0, 8, 99])]), "LA", _grey(9, 8))
    yield "1 PNG", StoredFile(png(4, 1, 1, 0, [b"\x50"]), "1", _grey(0, 255, 0, 255))
    yield "1 TIFF", StoredFile(saved(Image.new("1", (4, 1), 1), "TIFF"), "1", _grey(*[255] * 4))
    yield "P PNG", StoredFile(png(2, 1, 1, 3, [b"\x40"], _PALETTE), "P", _PAIR)
    yield (
        "P PNG with transparency",
        StoredFile(
            png(2, 1, 1, 3, [b"\x40"], _PALETTE, (b"tRNS", b"\0\x80")), "P + transparency", _PAIR
        ),
    )
    yield (
        "RGB PNG with a transparent colour",
        StoredFile(
            png(2, 1, 8, 2, [_PAIR.tobytes()], (b"tRNS", bytes([0, 10, 0, 20, 0, 30]))),
            "RGB + transparency",
            _PAIR,
        ),
    )
    yield "PA TIFF", StoredFile(saved(clear.convert("PA"), "TIFF"), "PA", _PAIR)
    print_image = Image.new("CMYK", (8, 8), _INK)
    adobe = saved(print_image, "JPEG", quality=100)
    assert b"Adobe" in adobe
    yield "Adobe's CMYK JPEG", StoredFile(adobe, "CMYK", _PRINTED, 2)
    yield "CMYK TIFF", StoredFile(saved(print_image, "TIFF"), "CMYK", _PRINTED, 1)
    if int(PIL.__version__.partition(".")[0]) >= 13:  # earlier releases call it truncated
        yield "YCbCr TIFF", StoredFile(saved(pair.convert("YCbCr"), "TIFF"), "YCbCr", _PAIR, 2)
    yield "LAB TIFF", StoredFile(saved(pair.convert("LAB"), "TIFF"), "LAB", _PAIR, 3)
    yield from _deep_cases()
    for form in ("GIF", "PNG", "WEBP", "TIFF", "MPO"):
        options = {"lossless": True} if form == "WEBP" else {"quality": 100}
        content = saved(_FRAMES[0], form, save_all=True, append_images=_FRAMES[1:], **options)
        name = f"{'P' if form == 'GIF' else 'RGB'} + several frames"
        yield f"{form} of two frames", StoredFile(content, name, _FIRST, 2 if form == "MPO" else 0)
    yield (
        "PNG turned by EXIF",
        StoredFile(
            saved(pair, "PNG", exif=exif_bytes(8)),
            "RGB + turned by EXIF",
            _PAIR[:, ::-1].transpose(1, 0, 2),
        ),
    )


def _deep_cases():
    grey = np.array([_LEVELS], np.uint16)
    yield (
        "16-bit grey PNG",
        StoredFile(saved(Image.fromarray(grey), "PNG"), "16-bit grey", _SCALED),
    )
    for order, name in (("<", "little"), (">", "big")):
        content = tiff(4, 1, 16, 1, 1, _words(_LEVELS, order), order)
        yield f"16-bit grey TIFF, {name} endian", StoredFile(content, "16-bit grey", _SCALED)
    inverted = tiff(4, 1, 16, 1, 0, _words(_LEVELS, "<"))
    yield "16-bit grey TIFF, white is zero", StoredFile(inverted, "16-bit grey", 255 - _SCALED)
    twelve = tiff(2, 1, 12, 1, 1, bytes([0x00, 0x0F, 0xFF]))
    yield "12-bit grey TIFF", StoredFile(twelve, "16-bit grey", _grey(0, 255))
    yield (
        "16-bit PGM",
        StoredFile(b"P5 4 1 65535\n" + _words(_LEVELS), "16-bit grey", _SCALED),
    )
    yield (
        "16-bit JPEG 2000",
        StoredFile(
            saved(Image.fromarray(grey.repeat(16, 0).repeat(4, 1)), "JPEG2000"),
            "16-bit grey",
            _SCALED.repeat(16, 0).repeat(4, 1),
        ),
    )
    colours = [0x0A01, 0x14FF, 0x1E00, 0xC800, 0x6464, 0x3232]
    yield (
        "16-bit RGB PNG",
        StoredFile(png(2, 1, 16, 2, [_words(colours)]), "RGB + 16-bit channels", _PAIR),
    )
    with_alpha = [*colours[:3], 0, *colours[3:], 9]
    yield (
        "16-bit RGBA PNG",
        StoredFile(png(2, 1, 16, 6, [_words(with_alpha)]), "RGBA + 16-bit channels", _PAIR),
    )
    yield (
        "16-bit LA PNG",
        StoredFile(
            png(2, 1, 16, 4, [_words([0x0A01, 0, 0xC8FF, 0])]),
            "LA + 16-bit channels",
            _grey(10, 200),
        ),
    )
    for order, name in (("<", "little"), (">", "big")):
        floats = np.array([0, 0.25, 0.5, 1], f"{order}f4").tobytes()
        content = tiff(4, 1, 32, 3, 1, floats, order)
        read = _grey(0, 64, 128, 255)
        yield f"float TIFF, {name} endian", StoredFile(content, "float grey", read)


def _integers(*levels):
    return saved(Image.fromarray(np.array([levels], np.int32)), "TIFF")


def _floats(*levels):
    return saved(Image.fromarray(np.array([levels], np.float32)), "TIFF")


STORED_FILES = dict(_cases())
"""By a description."""

_HUGE = png(14000, 13000, 8, 0, [b"\0"])

REFUSED_FILES = {
    "32-bit integers": (
        _integers(-5, 70000),
        "integers of 32 bits or with a sign, from -5 to 70000, expected 8 or 16 bits without sign",
    ),
    "16-bit integers with a sign": (
        tiff(2, 1, 16, 2, 1, np.array([-7, 9], "<i2").tobytes()),
        "integers of 32 bits or with a sign, from -7 to 9, expected 8 or 16 bits without sign",
    ),
    "floats to 255": (_floats(0, 255), "floats from 0 to 255, expected 0 to 1"),
    "floats below 0": (_floats(-0.5, 1), "floats from -0.5 to 1, expected 0 to 1"),
    "infinite floats": (_floats(0, np.inf), "floats from 0 to inf, expected 0 to 1"),
    "NaN": (_floats(0, np.nan), "floats of which some are NaN, expected 0 to 1"),
    "many channels": (
        tiff(1, 1, 8, 1, 9, b"\0"),
        "a TIFF layout that Pillow does not read, expected grey, or RGB of 8 or 16 bits",
    ),
    "text": (b"no image", "no image format is recognised"),
    "too large": (_HUGE, "182 megapixels, data.max_megapixels is 178"),
}
"""By a description: a file, and why it is refused."""
