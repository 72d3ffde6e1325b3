import io
import random
import struct
import zlib

import pytest
from PIL import Image, ImageOps

from core.data.images import read_image
from core.generator import open_image


def _png(width: int, height: int) -> bytes:
    """A picture whose header says how large it is, and of whose pixels only the beginning is there."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
        + chunk(b"IDAT", b"x")
    )


def _damaged_chunk() -> bytes:
    """A PNG of which a chunk's name is overwritten: Pillow raises a SyntaxError while it decodes."""
    buffer = io.BytesIO()
    Image.effect_noise((400, 400), 90).save(buffer, "PNG")  # more than one chunk of pixels
    data = bytearray(buffer.getvalue())
    second = data.index(b"IDAT", data.index(b"IDAT") + 4)
    data[second : second + 4] = b"\x00\xff\x00\xff"
    return bytes(data)


DAMAGED = {
    "empty.png": b"",
    "text.png": b"no picture",
    "chunk.png": _damaged_chunk(),
    "cut.png": _png(4, 4),
    "size.ppm": b"P6\nwide 4\n255\n",
    "pixels.ppm": b"P3\n2 2\n255\n1 2 3 red",
    "short.qoi": b"qoif" + struct.pack(">IIBB", 4, 4, 3, 0) + b"\xc0",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_a_valueerror_that_names_it(tmp_path, name):
    (tmp_path / name).write_bytes(DAMAGED[name])
    with pytest.raises(ValueError, match=rf"{name}: not an image that can be read"):
        open_image(tmp_path / name)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_whatever_bytes_are_changed_nothing_else_is_raised(tmp_path, format):
    buffer, rng, path = io.BytesIO(), random.Random(format), tmp_path / "changed"
    Image.effect_noise((24, 24), 90).convert("RGB").save(buffer, format)
    for _ in range(200):
        data = bytearray(buffer.getvalue())
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(min(len(data), rng.choice([60, 10_000])))] = rng.choice([0, 32, 127, 255])
        path.write_bytes(data)
        try:
            assert read_image(path, max_pixels=10**6).mode == "RGB"
        except ValueError as error:
            assert str(path) in str(error)


def test_a_picture_with_too_many_pixels_is_refused_by_its_header(tmp_path):
    path = tmp_path / "huge.png"
    path.write_bytes(_png(13_000, 13_000))  # without pixels it could not be decoded
    with pytest.raises(ValueError, match=r"huge\.png: 13000 x 13000 pixels, 169 megapixels; allowed: up to 25 mega"):
        read_image(path, max_pixels=25_000_000)
    path.write_bytes(_png(20_000, 20_000))  # beyond what Pillow opens
    with pytest.raises(ValueError, match=r"huge\.png: over 178\.96 megapixels; allowed: up to 25 megapixels"):
        read_image(path, max_pixels=25_000_000)
    with pytest.raises(ValueError, match=r"huge\.png: over 178\.96 megapixels"):
        open_image(path)
    Image.new("1", (50, 40)).save(path)
    assert read_image(path, max_pixels=2000).size == (50, 40)
    with pytest.raises(ValueError, match="50 x 40 pixels"):
        read_image(path, max_pixels=1999)


def test_only_the_formats_asked_for_are_tried(tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.ico")
    assert read_image(tmp_path / "a.ico").mode == "RGB"
    with pytest.raises(ValueError, match=r"a\.ico: not an image"):
        read_image(tmp_path / "a.ico", formats=("PNG", "JPEG"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_pictures_of_phones_are_upright(tmp_path, format, orientation):
    image = Image.new("RGB", (48, 32), "white")
    image.paste((255, 0, 0), (0, 0, 24, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a", format, exif=exif)
    with Image.open(tmp_path / "a") as stored:
        expected = ImageOps.exif_transpose(stored).convert("RGB")  # Pillow's own
    read = read_image(tmp_path / "a")
    assert read.size == ((48, 32) if orientation < 5 else (32, 48)) and read.tobytes() == expected.tobytes()


def test_a_damaged_orientation_is_none(tmp_path):
    for exif in (b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0no", b""):
        Image.new("RGB", (16, 8)).save(tmp_path / "a.jpg", exif=exif)
        assert read_image(tmp_path / "a.jpg").size == (16, 8)


def test_a_large_photograph_is_decoded_no_larger_than_it_is_needed(tmp_path):
    gradient = Image.merge("RGB", [Image.linear_gradient("L").rotate(90 * i).resize((1600, 1200)) for i in range(3)])
    gradient.save(tmp_path / "a.jpg", quality=95)
    gradient.save(tmp_path / "a.png")
    sizes = {None: (1600, 1200), 1201: (1600, 1200), 700: (1600, 1200), 600: (800, 600), 200: (400, 300), 1: (200, 150)}
    for enough, size in sizes.items():
        read = read_image(tmp_path / "a.jpg", enough=enough)
        assert read.size == size
        pixels, whole = read.resize((8, 6)).tobytes(), gradient.resize((8, 6)).tobytes()
        assert max(abs(a - b) for a, b in zip(pixels, whole, strict=True)) <= 3
    assert read_image(tmp_path / "a.png", enough=200).size == (1600, 1200)
