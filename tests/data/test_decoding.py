from __future__ import annotations

import os
import threading

import numpy as np
import pytest
from PIL import Image, ImageOps

from facenet_fast.data.decoding import UnreadableImage, check_images, decode_image, decode_square
from facenet_fast.data.identities import IMAGE_EXTENSIONS
from facenet_fast.errors import UserError


def grey_of(pixels):
    return np.asarray(Image.fromarray(pixels).convert("L"))


@pytest.mark.parametrize("extension", IMAGE_EXTENSIONS)
def test_every_promised_format_is_read(tmp_path, pixels, encoded, extension):
    path = tmp_path / f"x.{extension.upper()}"
    path.write_bytes(encoded(extension))
    image = decode_image(str(path))
    assert (image.shape, image.dtype) == ((24, 40, 3), np.uint8)
    expected = np.repeat(grey_of(pixels)[..., None], 3, axis=2) if extension == "pgm" else pixels
    tolerance = {"png": 0, "bmp": 0, "pgm": 0, "gif": 30}.get(extension, 8)
    assert np.abs(image.astype(int) - expected).max() <= tolerance


def test_contents_decide_not_the_ending(tmp_path, pixels, encoded):
    path = tmp_path / "x.jpg"
    path.write_bytes(encoded("png"))
    np.testing.assert_array_equal(decode_image(str(path)), pixels)


@pytest.mark.parametrize("header", ["P2\n3 2\n255\n", "P2 # made by hand\n3 2 255\n"])
def test_plain_pgm(tmp_path, header):
    path = tmp_path / "x.pgm"
    path.write_text(header + "0 10 20\n30 40 255\n")
    np.testing.assert_array_equal(decode_image(str(path))[..., 1], [[0, 10, 20], [30, 40, 255]])


def test_sixteen_bits_keep_the_upper_eight(tmp_path):
    values = np.array([[0, 256, 511], [32768, 65000, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png")
    (tmp_path / "x.pgm").write_bytes(b"P5\n3 2\n65535\n" + values.astype(">u2").tobytes())
    for name in ("x.png", "x.pgm"):
        np.testing.assert_array_equal(decode_image(str(tmp_path / name))[..., 2], values >> 8)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_every_kind_of_png_becomes_rgb(tmp_path, pixels, mode):
    source = Image.fromarray(pixels).convert(mode)
    source.save(tmp_path / "x.png")
    np.testing.assert_array_equal(decode_image(str(tmp_path / "x.png")), np.asarray(source.convert("RGB")))


def test_palette_with_transparency(tmp_path, pixels):
    source = Image.fromarray(pixels).convert("P")
    source.save(tmp_path / "x.png", transparency=bytes(range(256)))
    np.testing.assert_array_equal(decode_image(str(tmp_path / "x.png")), np.asarray(source.convert("RGB")))


def test_cmyk_jpeg(tmp_path, pixels):
    Image.fromarray(pixels).convert("CMYK").save(tmp_path / "x.jpg", quality=100, subsampling=0)
    assert np.abs(decode_image(str(tmp_path / "x.jpg")).astype(int) - pixels).mean() < 3


def test_the_first_frame_of_an_animation(tmp_path, pixels):
    frames = [Image.fromarray(pixels), Image.fromarray(pixels[::-1])]
    frames[0].save(tmp_path / "x.webp", save_all=True, append_images=frames[1:], lossless=True)
    np.testing.assert_array_equal(decode_image(str(tmp_path / "x.webp")), pixels)


@pytest.mark.parametrize("orientation", range(10))
def test_a_turned_photograph_stands_upright(tmp_path, pixels, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    with Image.open(tmp_path / "x.png") as image:
        expected = ImageOps.exif_transpose(image)
    np.testing.assert_array_equal(decode_image(str(tmp_path / "x.png")), np.asarray(expected))


def test_a_quarter_turn_is_to_the_right_side(tmp_path, pixels):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(decode_image(str(tmp_path / "x.png")), np.rot90(pixels, -1))


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0nonsense", b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01\x12"])
def test_broken_notes_do_not_lose_the_picture(tmp_path, pixels, exif):
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(decode_image(str(tmp_path / "x.png")), pixels)


# --- decode_square


def test_a_square_of_the_right_size_is_unchanged(tmp_path, pixels):
    Image.fromarray(pixels[:, :24]).save(tmp_path / "x.png")
    np.testing.assert_array_equal(decode_square(str(tmp_path / "x.png"), 24), pixels[:, :24])


def test_the_whole_picture_is_kept(tmp_path):
    # Quarters of one colour each: whatever the shape of the picture, each fills a quarter of the square.
    quarters = np.array([[10, 90], [170, 250]], dtype=np.uint8)
    for height, width in ((12, 40), (40, 12)):
        picture = quarters.repeat(height // 2, axis=0).repeat(width // 2, axis=1)
        Image.fromarray(picture).save(tmp_path / "x.png")
        square = decode_square(str(tmp_path / "x.png"), 24)
        assert square.shape == (24, 24, 3)
        for row, column in np.ndindex(2, 2):
            quarter = square[12 * row + 3 : 12 * row + 9, 12 * column + 3 : 12 * column + 9]
            assert np.all(quarter == quarters[row, column])


def test_reducing_averages_instead_of_picking(tmp_path):
    stripes = np.zeros((64, 64), dtype=np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "x.png")
    square = decode_square(str(tmp_path / "x.png"), 16)
    assert square.shape == (16, 16, 3)
    assert np.abs(square.astype(int) - 127).max() <= 16


def test_a_large_jpeg_is_reduced_as_a_small_one_would_be(tmp_path, pixels):
    large = Image.fromarray(pixels).resize((1600, 960), Image.Resampling.BICUBIC)
    large.save(tmp_path / "x.jpg", quality=95)
    large.save(tmp_path / "x.png")
    difference = decode_square(str(tmp_path / "x.jpg"), 32) - decode_square(
        str(tmp_path / "x.png"), 32
    ).astype(int)
    assert np.abs(difference).max() <= 6


def test_enlarging_and_tiny_images(tmp_path):
    Image.fromarray(np.full((1, 3, 3), 77, dtype=np.uint8)).save(tmp_path / "x.png")
    assert np.all(decode_square(str(tmp_path / "x.png"), 20) == 77)


# --- bad files


def spoil(directory, encoded):
    """Write files of every bad kind; return their paths."""
    contents = {
        "zero.jpg": b"",
        "text.png": b"name,age\nann,3\n",
        "magic.jpg": b"\xff\xd8\xff",
        "no-pixels.png": encoded("png")[:40],
        "letters.pgm": b"P2\n2 2\n255\n1 2 x y\n",
        "short.pgm": b"P2\n2 2\n255\n1 2 3\n",
        "header.pgm": b"P5\n12 ",
        "flat.pgm": b"P5\n0 0\n255\n",
        "bomb.pgm": b"P5\n200000 200000\n255\n",
        "postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    }
    for extension in ("jpg", "png", "bmp", "gif", "webp", "pgm"):
        whole = encoded(extension)
        contents[f"half.{extension}"] = whole[: len(whole) // 2]
    flipped = bytearray(encoded("png"))
    flipped[len(flipped) // 2] ^= 0xFF
    contents["flipped.png"] = bytes(flipped)
    for name, content in contents.items():
        (directory / name).write_bytes(content)
    (directory / "folder.jpg").mkdir()
    return [str(directory / name) for name in (*contents, "folder.jpg", "missing.jpg")]


def test_each_kind_of_bad_file_is_one_clear_error(tmp_path, encoded):
    for path in spoil(tmp_path, encoded):
        for read in (decode_image, lambda path: decode_square(path, 16)):
            with pytest.raises(UnreadableImage) as error:
                read(path)
            assert isinstance(error.value, UserError)
            assert error.value.path == path
            assert error.value.reason
            assert path in str(error.value)
            assert "\n" not in str(error.value)


def test_reasons_say_what_is_wrong(tmp_path, encoded):
    spoil(tmp_path, encoded)
    expected = {
        "zero.jpg": "empty file",
        "text.png": "no image of a known format",
        "half.jpg": "[Tt]runcated",
        "missing.jpg": "No such file",
        "bomb.pgm": "decompression bomb",
    }
    for name, reason in expected.items():
        with pytest.raises(UnreadableImage, match=reason):
            decode_image(str(tmp_path / name))


# --- check_images


def test_check_finds_the_bad_ones_and_reports_progress(tmp_path, encoded):
    bad = spoil(tmp_path, encoded)
    good = []
    for n in range(40):
        good.append(str(tmp_path / f"good{n}.png"))
        (tmp_path / f"good{n}.png").write_bytes(encoded("png"))
    paths = [*good[:20], *bad, *good[20:]]
    calls = []
    found = check_images(paths, threads=2, progress=lambda done, total: calls.append((done, total)))
    assert list(found) == bad
    assert all(found.values())
    assert calls[-1] == (len(paths), len(paths))
    assert calls == sorted(calls)
    assert check_images(good) == {}
    assert check_images([]) == {}


def test_check_leaves_no_threads_and_stops_soon_when_interrupted(make_images):
    paths, _ = make_images(40)
    before = threading.active_count()
    n_reads = 0

    def interrupt(done, total):
        nonlocal n_reads
        n_reads += 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_images(paths * 1000, progress=interrupt)
    assert n_reads == 1
    assert threading.active_count() == before
    assert os.path.exists(paths[0])


def test_orl_and_its_pgm_files_are_all_well(orl_dir):
    paths = [str(path) for path in sorted(orl_dir.glob("s[12]/*.pgm"))]
    assert check_images(paths) == {}
    with open(paths[0], "rb") as file:
        raw = file.read()[-92 * 112 :]
    np.testing.assert_array_equal(
        decode_image(paths[0])[..., 0], np.frombuffer(raw, dtype=np.uint8).reshape(112, 92)
    )
