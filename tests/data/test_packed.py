"""Packed verification sets: every way they are written, and files that try to do something."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import struct

import numpy as np
import pytest
from PIL import Image

from facenet_fast.data.packed import PackedImages, read_packed
from facenet_fast.errors import UserError
from facenet_fast.evaluation.embed import Embedder
from facenet_fast.evaluation.verify_images import verify_images

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


@pytest.fixture
def bin_path(tmp_path):
    return tmp_path / "faces.bin"


def encoded_faces(n, size=8, kind="PNG"):
    """Return n different squares and their files' bytes."""
    pixels = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    files = []
    for image in pixels:
        file = io.BytesIO()
        Image.fromarray(image).save(file, kind)
        files.append(file.getvalue())
    return pixels, files


def as_arrays(files):
    return [np.frombuffer(file, dtype=np.uint8) for file in files]


FLAGS = [True, False, False, True, True]
IMAGES = encoded_faces(10)[1]

# What such files are made of, by name.
CONTENTS = {
    "bytes": (IMAGES, FLAGS),
    "a list of both": [IMAGES, FLAGS],
    "tuples": (tuple(IMAGES), tuple(FLAGS)),
    "arrays of bytes": (as_arrays(IMAGES), FLAGS),
    "writable arrays": ([array.copy() for array in as_arrays(IMAGES)], FLAGS),
    "an array of flags": (IMAGES, np.array(FLAGS)),
    "an array of 0 and 1": (IMAGES, np.array(FLAGS, dtype=np.uint8)),
    "NumPy flags": (IMAGES, [np.bool_(flag) for flag in FLAGS]),
    "0 and 1": (IMAGES, [int(flag) for flag in FLAGS]),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_every_protocol_is_read(bin_path, content, protocol):
    bin_path.write_bytes(pickle.dumps(content, protocol))
    packed = read_packed(bin_path, n_folds=5)
    assert list(packed.images) == IMAGES
    assert packed.pairs.is_same.tolist() == FLAGS
    assert (packed.path, packed.pairs.left[3], packed.pairs.right[3]) == (
        str(bin_path),
        f"{bin_path}#6",
        f"{bin_path}#7",
    )


@pytest.mark.parametrize("protocol", [0, 1, 2])
@pytest.mark.parametrize("content", ["writable arrays", "an array of flags", "NumPy flags"])
def test_modules_of_older_numpy_are_known(bin_path, content, protocol):
    data = pickle.dumps(CONTENTS[content], protocol)
    assert b"numpy._core.multiarray" in data
    bin_path.write_bytes(data.replace(b"numpy._core.", b"numpy.core."))
    assert list(read_packed(bin_path, n_folds=5).images) == IMAGES


def python2_string(data):
    return b"T" + struct.pack("<i", len(data)) + data  # BINSTRING


def python2_array(code, data):
    """Write a NumPy array as Python 2 does under protocol 2: all its strings are byte strings."""
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K" + bytes([len(data)]) + b"\x85cnumpy\ndtype\nU\x02" + code + b"K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + python2_string(data) + b"tb"
    )


def test_python2_files_are_read(bin_path):
    strings = b"\x80\x02](" + b"".join(map(python2_string, IMAGES)) + b"e](\x88\x89\x89\x88\x88e\x86."
    pickletools.dis(strings, io.StringIO())
    bin_path.write_bytes(strings)
    packed = read_packed(bin_path, n_folds=5)
    assert (list(packed.images), packed.pairs.is_same.tolist()) == (IMAGES, FLAGS)

    text = b"(lp0\nS'\\xff\\x00a'\nap1\nS'b'\na(lp2\nI01\na\x86."  # protocol 0, but for its last tuple
    bin_path.write_bytes(text.replace(b"\x86.", b"t.").replace(b"(lp0", b"((lp0", 1))
    with pytest.raises(UserError, match=r"as many pairs as there are folds, 2; .* holds 1"):
        read_packed(bin_path, n_folds=2)


def test_python2_arrays_are_read(bin_path):
    images = [bytes([255, n, 0]) for n in range(4)]
    arrays = b"".join(python2_array(b"u1", image) for image in images)
    bin_path.write_bytes(b"\x80\x02](" + arrays + b"e" + python2_array(b"b1", b"\x01\x00") + b"\x86.")
    packed = read_packed(bin_path, n_folds=2)
    assert (list(packed.images), packed.pairs.is_same.tolist()) == (images, [True, False])


@pytest.mark.parametrize(
    ("n_pairs", "n_folds", "folds"), [(5, 5, [0, 1, 2, 3, 4]), (5, 2, [0, 0, 0, 1, 1]), (4, 2, [0, 0, 1, 1])]
)
def test_folds_are_consecutive(bin_path, n_pairs, n_folds, folds):
    bin_path.write_bytes(pickle.dumps((IMAGES[: 2 * n_pairs], FLAGS[:n_pairs])))
    pairs = read_packed(bin_path, n_folds=n_folds).pairs
    assert (pairs.fold.tolist(), pairs.n_folds) == (folds, n_folds)


# Files that try to do something


class Calls:
    """Pickled, it is a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile_contents(victim):
    """What would make the file `victim` if it was called."""
    make = f"__import__('os').mkdir({victim!r})"
    return {
        "posix.system": Calls(os.system, f"touch '{victim}'"),
        "posix.mkdir": Calls(os.mkdir, victim),
        "builtins.eval": Calls(eval, make),
        "builtins.exec": Calls(exec, make),
    }


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("name", hostile_contents(""))
def test_calls_are_refused_and_not_made(bin_path, tmp_path, name, nested, protocol):
    victim = tmp_path / "made"
    call = hostile_contents(str(victim))[name]
    data = pickle.dumps(([*IMAGES, [call]], FLAGS) if nested else call, protocol)
    bin_path.write_bytes(data)
    asked = name.replace("builtins", "__builtin__") if protocol < 3 else name
    with pytest.raises(UserError) as caught:
        read_packed(bin_path)
    assert str(caught.value) == (
        f"a packed set must hold only lists, bytes, bools and arrays; {str(bin_path)!r} asks for {asked}"
    )
    assert not victim.exists()
    pickle.loads(data)  # it would have been made
    assert victim.exists()


@pytest.mark.parametrize(
    ("call", "asked"),
    [
        (Calls(getattr, "text", "upper"), "builtins.getattr"),
        (Calls(open, "made", "w"), "io.open"),
        (Calls(np.fromfile, "made"), "numpy.fromfile"),
        (Calls(bytearray, b"x"), "builtins.bytearray"),
        (Calls(bytes, 5), "builtins.bytes"),
    ],
)
def test_other_names_are_refused(bin_path, call, asked):
    bin_path.write_bytes(pickle.dumps(([call], FLAGS)))
    with pytest.raises(UserError, match=f"asks for .*{asked}"):
        read_packed(bin_path)


def stack_global(module, name):
    return b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name)) + b"\x93"


ARRAY = b"cnumpy\nndarray\n"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
U1 = b"cnumpy\ndtype\nU\x02u1\x85R"
ENCODE = b"c_codecs\nencode\n"


@pytest.mark.parametrize(
    ("program", "asked"),
    [
        (stack_global("os", "system"), "os.system"),
        (stack_global("numpy", "core.multiarray._reconstruct"), "numpy.core.multiarray._reconstruct"),
        (stack_global("numpy.core.multiarray", "_reconstruct.__globals__"), "numpy.core.multiarray._recon"),
        (stack_global("numpy", "ndarray.tofile"), "numpy.ndarray.tofile"),
        (stack_global("numpy", "dtype.__init__.__self__"), "numpy.dtype.__init__"),
        (stack_global("facenet_fast.data.packed", "os.system"), "facenet_fast.data.packed.os.system"),
        (b"(S'touch made'\nios\nsystem\n", "os.system"),  # INST
        (b"(cos\nsystem\nS'touch made'\no", "os.system"),  # OBJ
        (b"cos\nsystem\n)\x81", "os.system"),  # NEWOBJ
        (b"cos\n\x1b[31msystem\nS'touch made'\n\x85R", r"os\.\\x1b\[31msystem"),
        (b"Pabc\n", "an object outside the file"),  # PERSID
        (b"Vabc\nQ", "an object outside the file"),  # BINPERSID
        # An array of objects, of another class, of a shape it has not, of other numbers than bytes.
        (
            RECONSTRUCT + ARRAY + b"K\x00\x85U\x01b\x87R(K\x01K\x01\x85cnumpy\ndtype\nU\x02O8\x85R\x89]Nbtb",
            "O8",
        ),
        (RECONSTRUCT + b"cnumpy\nmatrix\nK\x00\x85U\x01b\x87R", "numpy.matrix"),
        (RECONSTRUCT + ENCODE + b"K\x00\x85U\x01b\x87R", "an array of another class"),
        (RECONSTRUCT + U1 + b"K\x00\x85U\x01b\x87R", "an array of another class"),
        (ARRAY + b"K\x02\x85R", "a call of numpy.ndarray"),
        (b"cnumpy\ndtype\nU\x02i8\x85R", "an array of dtype i8"),
        (b"cnumpy\ndtype\nU\x06object\x85R", "an array of dtype object"),
        (b"cnumpy\ndtype\n]\x85R", "array of dtype"),
        (
            RECONSTRUCT + ARRAY + b"K\x00\x85U\x01b\x87R(K\x01K\x05\x85" + U1 + b"\x89U\x01xtb",
            "without its n",
        ),
        (
            RECONSTRUCT + ARRAY + b"K\x00\x85U\x01b\x87R(K\x01K\x01K\x01\x86" + U1 + b"\x89U\x01xtb",
            "2 dimensions",
        ),
        (RECONSTRUCT + ARRAY + b"K\x00\x85U\x01b\x87R(K\x01K\x01\x85K\x01\x89U\x01xtb", "of an unknown type"),
        # Text in a codec that does more than text, and builders that are to be changed.
        (ENCODE + b"Vabc\nU\x03rot\x86R", "text in another encoding"),
        (ENCODE + b"Vabc\nVzlib\n\x86R", "text in another encoding"),
        (ENCODE + b"}U\x06_buildNsb", "a change of what it may call"),
        (ARRAY + b"N}U\x06_buildNs\x86b", "a change of what it may call"),
    ],
)
def test_hand_made_programs_are_refused(bin_path, tmp_path, program, asked, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bin_path.write_bytes(b"\x80\x04" + program + b".")
    with pytest.raises(
        UserError, match=f"only lists, bytes, bools and arrays; .* asks for .*{asked}"
    ) as caught:
        read_packed(bin_path)
    assert str(caught.value).isprintable()
    assert sorted(os.listdir(tmp_path)) == ["faces.bin"]


@pytest.mark.parametrize(
    "program",
    [
        ENCODE + b")\x81",  # NEWOBJ of what is no class
        ENCODE + b")}\x92",  # NEWOBJ_EX
        b"]}U\x06appendNsb",  # state for a list
        U1 + b"]R",  # call of what is not callable
        U1 + b"K\x01a",  # append to what is no list
        ENCODE + b"\x85R" + b"R",
        b"\x82\x01",  # EXT1
        b"\x97",  # NEXT_BUFFER
        b"\x96" + struct.pack("<Q", 1 << 62),  # BYTEARRAY8 that is not there
        b"\x8e" + struct.pack("<Q", (1 << 63) - 1),  # BINBYTES8
    ],
)
def test_other_hand_made_programs_fail_in_one_line(bin_path, program):
    bin_path.write_bytes(b"\x80\x05" + program + b".")
    with pytest.raises(
        UserError, match=r"must be a whole pickle; .*faces\.bin' is cut short or something else"
    ):
        read_packed(bin_path)


def test_numpy_itself_never_sees_the_file(bin_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("called")

    data = pickle.dumps(CONTENTS["writable arrays"], 2)
    bin_path.write_bytes(data)
    import numpy._core.multiarray as multiarray

    monkeypatch.setattr(multiarray, "_reconstruct", never)
    assert list(read_packed(bin_path, n_folds=5).images) == IMAGES


# Files that are not such sets


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (([], []), "must hold images; .* holds none"),
        ((IMAGES[:3], [True]), r"two images a pair; .* holds 3$"),
        ((IMAGES, FLAGS[:4]), r"one flag a pair; .* holds 4 for 5 pairs"),
        ((IMAGES, [*FLAGS, True]), r"one flag a pair; .* holds 6 for 5 pairs"),
        ((IMAGES, FLAGS, 1), r"\(list of images, list of flags\); .* is something else"),
        ("text", "is something else"),
        (None, "is something else"),
        ((3, FLAGS), "is something else"),
        ((b"bytes", FLAGS), "is something else"),
        ((IMAGES, None), "flags of a packed set must be a list; .* has a NoneType"),
        ((IMAGES, b"\1\0\1\0\1"), "must be a list; .* has a bytes"),
        ((IMAGES, [*FLAGS[:4], 2]), "must be true or false; flag 4 of .* is 2"),
        ((IMAGES, np.array([0, 1, 7, 1, 1], np.uint8)), "must be true or false; flag 2 of .* is 7"),
        ((IMAGES, [*FLAGS[:4], 1.0]), "true or false; flag 4 of .* is a float"),
        ((IMAGES, [*FLAGS[:4], None]), "true or false; flag 4 of .* is a NoneType"),
        (([*IMAGES[:9], "text"], FLAGS), "images of a packed set must be bytes; image 9 of .* is a str"),
        (([*IMAGES[:9], [b"x"]], FLAGS), "must be bytes; image 9 of .* is a list"),
        (([*IMAGES[:9], np.ones(4, bool)], FLAGS), "must be bytes; image 9 of .* is an array of bool"),
        (([*IMAGES[:9], np.zeros((8, 8, 3), np.uint8)], FLAGS), "asks for an array of 3 dimensions"),
        ((np.array(IMAGES, dtype=object), FLAGS), "asks for an array of dtype O8"),
        ((IMAGES, np.array(FLAGS, dtype=np.int64)), "asks for an array of dtype i8"),
    ],
)
def test_other_contents_are_refused(bin_path, content, message):
    bin_path.write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=message) as caught:
        read_packed(bin_path, n_folds=5)
    assert str(bin_path) in str(caught.value)


def test_a_list_in_itself_is_refused(bin_path):
    images = list(IMAGES)
    images[0] = images
    bin_path.write_bytes(pickle.dumps((images, FLAGS)))
    with pytest.raises(UserError, match=r"image 0 of .* is a list"):
        read_packed(bin_path, n_folds=5)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_truncated_files_are_refused(bin_path, protocol):
    whole = pickle.dumps(CONTENTS["writable arrays"], protocol)
    for n_bytes in [*range(0, len(whole), 97), len(whole) - 1]:
        bin_path.write_bytes(whole[:n_bytes])
        with pytest.raises(UserError):
            read_packed(bin_path, n_folds=5)


def test_files_with_a_changed_byte_are_read_or_refused(bin_path):
    rng = np.random.default_rng(0)
    for protocol in PROTOCOLS:
        whole = bytearray(
            pickle.dumps(([b"\xffabc", np.arange(3, dtype=np.uint8)], np.array([True])), protocol)
        )
        for place in range(len(whole)):
            changed = bytearray(whole)
            changed[place] = rng.integers(0, 256)
            bin_path.write_bytes(changed)
            with pytest.raises(UserError):
                read_packed(bin_path, n_folds=2)  # at the latest for its one pair


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff\xe0 no pickle", b"<html>", b"."])
def test_what_is_no_pickle_is_refused(bin_path, data):
    bin_path.write_bytes(data)
    with pytest.raises(UserError, match="must be a whole pickle"):
        read_packed(bin_path)


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"must be readable; '.*none\.bin': No such file"):
        read_packed(tmp_path / "none.bin")
    with pytest.raises(UserError, match=r"must be readable; .*: Is a directory"):
        read_packed(tmp_path)


def test_folds_must_be_two_and_filled(bin_path):
    bin_path.write_bytes(pickle.dumps(CONTENTS["bytes"]))
    with pytest.raises(UserError, match="number of folds must be at least 2; got 1"):
        read_packed(bin_path, n_folds=1)
    with pytest.raises(UserError, match=r"as many pairs as there are folds, 10; .* holds 5"):
        read_packed(bin_path)


# Images


def test_images_are_decoded_in_the_order_of_the_pairs(bin_path):
    pixels, files = encoded_faces(10)
    bin_path.write_bytes(pickle.dumps((files, FLAGS)))
    packed = read_packed(bin_path, n_folds=5)
    store = PackedImages(packed, 8, threads=2)
    paths, left, right = packed.pairs.images()
    assert (store.paths, store.store_size) == (paths, 8)
    read, ok = store.read(np.concatenate([left, right]))
    assert ok.all()
    np.testing.assert_array_equal(read[:5], pixels[::2])
    np.testing.assert_array_equal(read[5:], pixels[1::2])
    assert store.n_cached == 0


def test_images_of_any_size_and_kind_become_squares(bin_path):
    files = [
        encoded_faces(1, size, kind)[1][0]
        for size, kind in ((112, "PNG"), (30, "JPEG"), (16, "BMP"), (9, "PNG"))
    ]
    bin_path.write_bytes(pickle.dumps((files, [True, False])))
    read, ok = PackedImages(read_packed(bin_path, n_folds=2), 16).read([0, 1, 2, 3])
    assert ok.all()
    for image, file in zip(read, (files[0], files[2], files[1], files[3]), strict=True):
        with Image.open(io.BytesIO(file)) as whole:
            if whole.format == "JPEG":
                continue
            wanted = whole.convert("RGB").resize((16, 16), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(image, np.asarray(wanted))


def test_bad_images_are_named(bin_path, caplog):
    pixels, files = encoded_faces(4)
    files[0], files[3] = b"", files[3][:40]
    bin_path.write_bytes(pickle.dumps((files, [True, False])))
    read, ok = PackedImages(read_packed(bin_path, n_folds=2), 8).read([0, 1, 2, 3])  # images 0, 2, 1, 3
    assert ok.tolist() == [False, True, True, False]
    np.testing.assert_array_equal(read[1:3], pixels[[2, 1]])
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert messages[0] == f"left out unreadable image {bin_path}#0: empty file"
    assert messages[1].startswith(f"left out unreadable image {bin_path}#3: ")


def test_a_packed_set_is_verified_like_any_pairs(bin_path):
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    is_same = np.arange(12) % 2 == 0
    files = []
    for n in range(12):
        for face in (faces[n], faces[n] if is_same[n] else faces[n - 1]):
            file = io.BytesIO()
            Image.fromarray(face).save(file, "PNG")
            files.append(file.getvalue())
    bin_path.write_bytes(pickle.dumps((files, is_same)))
    packed = read_packed(bin_path, n_folds=3)
    embedder = Embedder(lambda batch: batch.mean(axis=(1, 2)), 8, "fixed", 3, "the mean colour")
    result = verify_images(embedder, packed.pairs, PackedImages(packed, embedder.store_size), batch_size=5)
    assert result.accuracy == 1.0
    colours = (faces.astype(float).mean(axis=(1, 2)) - 127.5) / 128
    wanted = np.where(is_same, 0.0, np.square(colours - np.roll(colours, 1, axis=0)).sum(axis=1))
    np.testing.assert_allclose(result.distances, wanted, atol=1e-6)
