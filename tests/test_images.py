import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from core.backbones import load_backbone
from core.data.images import as_shown, read_image
from core.demo.files import read_pictures
from core.generator import open_image
from tests.conftest import ROOT
from tests.fuzz import pictures


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


# -- as a viewer shows them ---------------------------------------------------------------------------------------

RAMP = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, format):
    Image.fromarray(RAMP).save(tmp_path / "a", format)
    assert np.abs(np.asarray(read_image(tmp_path / "a"))[..., 1] - RAMP / 257).max() <= 1


@pytest.mark.parametrize("tag, value, top", [(262, 0, 65535), (258, 12, 4095)])
def test_tags_of_tiff_are_heard(tag, value, top):
    """White is 0; numbers of 12 bits."""
    image = Image.fromarray(np.minimum(RAMP, top))
    image.tag_v2 = {tag: value if tag == 262 else (value,)}
    expected = np.minimum(RAMP, top) / top * 255
    read = np.asarray(as_shown(image))[..., 0]
    assert np.abs(read - (255 - expected if value == 0 else expected)).max() <= 0.51


def test_numbers_of_no_known_range_are_refused_by_name(tmp_path):
    shares = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    Image.fromarray(shares).save(tmp_path / "a.tif")
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.tif"))[..., 2].ravel(), np.arange(256))
    for pixels, what in ((shares * 2, "floating"), (shares - 1, "floating"), (shares + np.nan, "floating")):
        Image.fromarray(pixels).save(tmp_path / "a.tif")
        with pytest.raises(ValueError, match=rf"a\.tif: its pixels are {what}.* save it with 8 or 16 bits"):
            read_image(tmp_path / "a.tif")
    Image.fromarray(RAMP.astype(np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif: its pixels are whole numbers of 32 bits"):
        read_image(tmp_path / "a.tif")


def _see_through() -> dict[str, Image.Image]:
    """A black square of 2 x 2 pixels, transparent around it, in every way to say so."""
    alpha = Image.new("L", (4, 4), 0)
    alpha.paste(255, (1, 1, 3, 3))
    result = {mode: Image.new(mode, (4, 4)) for mode in ("RGBA", "LA")}
    for image in result.values():
        image.putalpha(alpha)
    palette = Image.new("P", (4, 4), 1)  # two blacks, one of them see-through
    palette.putpalette([0] * 768)
    palette.paste(0, (1, 1, 3, 3))
    keyed = {
        "L": Image.eval(alpha, lambda value: 0 if value else 7),
        "RGB": Image.merge("RGB", [Image.eval(alpha, lambda value: 0 if value else 7)] * 3),
        "I;16": Image.fromarray(np.where(np.asarray(alpha), 0, 7).astype(np.uint16)),
    }
    keys = {"P": 1, "L": 7, "RGB": (7, 7, 7), "I;16": 7}
    for mode, image in ({"P": palette} | keyed).items():
        image.info["transparency"] = keys[mode]
        result[mode] = image
    return result


@pytest.mark.parametrize("mode, image", _see_through().items())
def test_what_is_transparent_lies_on_white(tmp_path, mode, image):
    image.save(tmp_path / "a.png", **image.info)
    expected = np.full((4, 4, 3), 255)
    expected[1:3, 1:3] = 0
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png")), expected)
    assert np.array_equal(np.asarray(open_image(image)), expected)


def test_inks_and_animations(tmp_path):
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    red.convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(np.asarray(read_image(tmp_path / "a.jpg")).astype(int) - (255, 0, 0)).max() < 8
    red.save(tmp_path / "a.gif", save_all=True, append_images=[blue])
    assert read_image(tmp_path / "a.gif").getpixel((4, 4)) == (255, 0, 0)
    # viewers leave out the picture that is for programs that know no animations
    blue.save(tmp_path / "a.png", save_all=True, append_images=[red, blue], default_image=True)
    assert read_image(tmp_path / "a.png").getpixel((4, 4)) == (255, 0, 0)


@pytest.mark.parametrize(
    "start, message",
    [
        (b"\0\0\0\x18ftypheic", "a HEIC picture, as phones take them; save it as JPEG"),
        (b"\0\0\0\x18ftypmif1", "a HEIC picture"),
        (b"\0\0\0\x18ftypisom", "a video"),
        (b"\xff\x0a", "a JPEG XL picture"),
        (b"<svg xmlns=", "an SVG drawing; save it as PNG"),
        (b"%PDF-1.7", "a PDF document"),
    ],
)
def test_what_is_not_read_is_named(tmp_path, start, message):
    (tmp_path / "IMG_1.jpg").write_bytes(start + bytes(40))
    for read in (read_image, open_image, lambda path: read_pictures([path])):
        with pytest.raises(ValueError, match=rf"IMG_1\.jpg: not an image that can be read: it is {message}"):
            read(tmp_path / "IMG_1.jpg")


def test_folders_are_no_pictures(tmp_path):
    with pytest.raises(ValueError, match=r"not an image that can be read \(Is a directory\)"):
        read_image(tmp_path)


def test_a_picture_in_memory_is_shown_as_one_in_a_file_and_stays_so(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.effect_noise((80, 60), 90).save(tmp_path / "a.png", exif=exif)
    upright = read_image(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as opened:
        assert opened.size == (80, 60) and upright.size == (60, 80)
        assert as_shown(opened).tobytes() == as_shown(upright).tobytes() == upright.tobytes()
        backbone = load_backbone(str(ROOT / "weights" / "emoji" / "backbone"))
        turned, stored = backbone.encode_images([opened, upright])
    assert np.allclose(turned, stored)


def test_random_files_are_read_or_refused():
    outcomes = [pictures.check(case) for case in pictures.cases(seed=1, count=150)]
    assert min(outcomes.count(outcome) for outcome in ("result", "refused")) > 30
