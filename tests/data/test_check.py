"""What `check_folder` finds: a file of each kind, and likeness against loops in float64."""

from __future__ import annotations

import itertools
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from facenet_fast.data import check, decoding
from facenet_fast.data.check import FINDINGS, NEAR, check_folder
from facenet_fast.data.identities import scan_identities
from facenet_fast.data.quarantine import read_quarantine, without_quarantined, write_quarantine
from facenet_fast.errors import UserError

FAULTS = ("empty", "truncated", "no_image", "unreadable")


def picture(seed, height=40, width=40):
    """A smooth coloured picture, unlike those of other seeds."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def people(tmp_path):
    """Three people with two pictures each, nothing wrong with any."""
    for seed, (name, n) in enumerate(itertools.product(("ann", "bob", "eve"), (1, 2))):
        save(tmp_path / "people" / name / f"{n}.png", picture(seed))
    return tmp_path / "people"


def found_in(folder, **settings):
    """Return what is found, without what is not."""
    findings = check_folder(str(folder), **settings).findings
    assert list(findings) == list(FINDINGS)
    return {name: some for name, some in findings.items() if some}


def images_of(findings):
    return [finding.images for finding in findings]


# --- A folder as a whole


def test_a_good_folder_is_counted_and_nothing_is_found(people):
    save(people / "bob" / "3.jpg", picture(10, 60, 50))
    save(people / "bob" / "4.bmp", picture(11)[..., 0])
    result = check_folder(str(people))
    assert not any(result.findings.values())
    assert result.quarantine == {}
    assert (result.n_people, result.n_images, result.n_readable, result.n_test_images) == (3, 8, 8, 0)
    assert result.images_per_person == {2: 2, 4: 1}
    assert list(result.sizes.items()) == [("40x40", 7), ("50x60", 1)]
    assert result.formats == {"PNG": 6, "JPEG": 1, "BMP": 1}
    assert result.modes == {"RGB": 7, "L": 1}
    assert result.n_turned == 0


def test_modes_and_turned_pictures_are_counted(people):
    Image.fromarray(picture(20)).convert("CMYK").save(people / "ann" / "3.jpg")
    Image.fromarray((picture(21)[..., 0].astype(np.uint16) << 8) + 7).save(people / "ann" / "4.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    save(people / "ann" / "5.jpg", picture(22), exif=turned)
    upright = Image.Exif()
    upright[0x0112] = 1
    save(people / "ann" / "6.jpg", picture(23), exif=upright)
    result = check_folder(str(people))
    assert result.modes == {"RGB": 8, "CMYK": 1, "I;16": 1}
    assert result.n_turned == 1
    assert not any(result.findings.values())


def test_a_folder_without_images_is_an_error(tmp_path):
    (tmp_path / "ann").mkdir()
    with pytest.raises(UserError, match="at least 1 identity with images must be in the folder"):
        check_folder(str(tmp_path))
    with pytest.raises(UserError, match="must be in a folder"):
        check_folder(str(tmp_path / "gone"))


def test_one_image_alone(tmp_path):
    save(tmp_path / "ann" / "1.png", picture(0))
    assert list(found_in(tmp_path)) == ["one_image"]


def test_threads_change_nothing(people):
    shutil.copy(people / "ann" / "1.png", people / "bob" / "3.png")
    (people / "eve" / "3.png").write_bytes(b"")
    assert check_folder(str(people), threads=1) == check_folder(str(people), threads=3)


def test_progress_is_told_for_each_pass(people):
    passes = []

    class Pass:
        def __init__(self, n_images):
            self.told = []
            passes.append((n_images, self.told))

        def __enter__(self):
            return self.told.append

        def __exit__(self, *_):
            self.told.append("left")

    check_folder(str(people), progress=Pass)
    assert passes == [(6, [6, "left"]), (6, [6, "left"])]


# --- Files that are no images


@pytest.mark.parametrize(
    ("data", "fault", "detail"),
    [
        (b"", "empty", ""),
        (b"<!DOCTYPE html><html>Not found</html>", "no_image", "no image of a known format"),
        (b"II*\0" + bytes(200), "no_image", "no image of a known format"),
        (b"\0" * 500, "no_image", "no image of a known format"),
        (b"\xff\xd8", "truncated", "begins as JPEG, and its header is not whole"),
        (b"\x89PNG\r\n\x1a\n\0\0", "truncated", "begins as PNG, and its header is not whole"),
        (b"GIF89a", "truncated", "begins as GIF, and its header is not whole"),
    ],
)
def test_files_without_an_image(people, data, fault, detail):
    (people / "bob" / "2.png").write_bytes(data)
    found = found_in(people)
    assert list(found) == [fault, "one_image"]
    (finding,) = found[fault]
    assert (finding.images, finding.people) == (("bob/2.png",), ("bob",))
    assert finding.detail == detail
    assert found["one_image"][0].people == ("bob",)
    assert found["one_image"][0].images == ("bob/1.png",)


@pytest.mark.parametrize("extension", ["jpg", "png", "bmp", "gif", "webp", "pgm"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_truncated_images(people, extension, part):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8))
    path = people / "bob" / f"2.{extension}"
    (image.convert("L") if extension == "pgm" else image).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: round(part * len(data))])
    found = found_in(people)
    assert images_of(found.pop("truncated")) == [("bob/2." + extension,)]
    assert not set(found) & set(FAULTS)


def test_damaged_images_are_unreadable_and_not_truncated(people):
    path = save(
        people / "bob" / "2.png", np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    )
    data = bytearray(path.read_bytes())
    data[5000:5050] = bytes(50)
    path.write_bytes(data)
    assert images_of(found_in(people)["unreadable"]) == [("bob/2.png",)]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_file_is_unreadable(people):
    (people / "bob" / "2.png").chmod(0)
    assert found_in(people)["unreadable"][0].detail == "Permission denied"


def test_a_file_that_goes_while_the_folder_is_read(people, monkeypatch):
    listed = check.list_images

    def list_and_remove(folder):
        answer = listed(folder)
        (people / "bob" / "2.png").unlink(missing_ok=True)
        return answer

    monkeypatch.setattr(check, "list_images", list_and_remove)
    assert found_in(people)["unreadable"][0].detail == "No such file or directory"


def test_formats_are_those_that_training_reads():
    assert tuple(check._ENDINGS) == decoding._FORMATS


# --- What is odd about an image or a person


def test_names_that_are_wrong_about_the_format(people):
    save(people / "bob" / "3.jpg", picture(30), format="PNG")
    save(people / "bob" / "4.JPEG", picture(31), format="JPEG")
    save(people / "bob" / "5.png", picture(32), format="BMP")
    found = found_in(people)
    assert list(found) == ["wrong_ending"]
    assert [(one.images, one.detail) for one in found["wrong_ending"]] == [
        (("bob/3.jpg",), "PNG"),
        (("bob/5.png",), "BMP"),
    ]


def test_a_phones_file_of_several_pictures_may_be_called_jpg(people):
    more = [Image.fromarray(picture(31))]
    save(people / "bob" / "3.jpg", picture(30), format="MPO", save_all=True, append_images=more)
    result = check_folder(str(people))
    assert result.formats == {"PNG": 6, "MPO": 1}
    assert {name for name, some in result.findings.items() if some} == {"several_frames"}


@pytest.mark.parametrize("extension", ["gif", "png", "webp"])
def test_animated_images(people, extension):
    more = [Image.fromarray(picture(31))]
    save(people / "bob" / f"3.{extension}", picture(30), save_all=True, append_images=more)
    found = found_in(people)
    assert images_of(found["several_frames"]) == [(f"bob/3.{extension}",)]


def test_tiny_images_by_their_smaller_side(people):
    save(people / "bob" / "3.png", picture(30, 31, 200))
    save(people / "bob" / "4.png", picture(31, 32, 33))
    assert [(one.images, one.detail) for one in found_in(people)["tiny"]] == [(("bob/3.png",), "200x31")]
    assert len(found_in(people, tiny_pixels=41)["tiny"]) == 8
    assert found_in(people, tiny_pixels=0) == {}


def test_people_without_images_and_other_files(people):
    (people / "dan").mkdir()
    (people / "fay").mkdir()
    (people / "fay" / "notes.txt").write_text("x")
    (people / "gil").mkdir()
    (people / "gil" / "1.png").write_bytes(b"")
    (people / "loose.png").write_bytes(b"x")
    (people / "ann" / "deeper").mkdir()
    (people / ".hidden").write_text("")
    result = check_folder(str(people))
    assert (result.n_people, result.n_images, result.n_readable) == (6, 7, 6)
    assert result.images_per_person == {0: 2, 1: 1, 2: 3}
    assert [one.people for one in result.findings["no_images"]] == [("dan",), ("fay",), ("gil",)]
    assert result.findings["no_images"][2].images == ("gil/1.png",)
    assert sorted(images_of(result.findings["strays"])) == [
        ("ann/deeper",),
        ("fay/notes.txt",),
        ("loose.png",),
    ]
    assert result.quarantine == {"gil/1.png": "zero-byte file"}


# --- The same picture


def test_copies_of_one_person(people):
    shutil.copy(people / "ann" / "1.png", people / "ann" / "3.png")
    save(people / "ann" / "4.bmp", picture(0))
    result = check_folder(str(people))
    (finding,) = result.findings["duplicates"]
    assert finding.images == ("ann/1.png", "ann/3.png", "ann/4.bmp")
    assert (finding.people, finding.detail) == (("ann",), "the same pixels")
    assert {name for name, some in result.findings.items() if some} == {"duplicates"}
    assert result.quarantine == dict.fromkeys(("ann/3.png", "ann/4.bmp"), "same picture as ann/1.png")


def test_copies_under_several_people(people):
    for name in ("bob", "eve"):
        shutil.copy(people / "ann" / "2.png", people / name / "9.png")
    result = check_folder(str(people))
    (finding,) = result.findings["duplicates_across"]
    assert finding.images == ("ann/2.png", "bob/9.png", "eve/9.png")
    assert (finding.people, finding.detail) == (("ann", "bob", "eve"), "the same file")
    assert {name for name, some in result.findings.items() if some} == {"duplicates_across"}
    assert result.quarantine == dict.fromkeys(finding.images, "same picture under ann, bob, eve")


def test_pixels_count_as_they_are_read(people):
    """A turned copy is the same picture; the same numbers in another shape are none."""
    exif = Image.Exif()
    exif[0x0112] = 3
    save(people / "ann" / "3.png", np.ascontiguousarray(picture(0)[::-1, ::-1]), exif=exif)
    save(people / "ann" / "4.png", picture(0).reshape(20, 80, 3))
    assert images_of(found_in(people)["duplicates"]) == [("ann/1.png", "ann/3.png")]


def test_unreadable_files_are_nobodys_copies(people):
    for name in ("ann", "bob"):
        for n in (3, 4):
            (people / name / f"{n}.png").write_bytes(b"no image")
    assert list(found_in(people)) == ["no_image"]


# --- Nearly the same picture


def correlation_of(path_a, path_b):
    """By numpy's own formula, of thumbnails that Pillow makes in one step."""
    a, b = (
        np.asarray(Image.open(path).convert("RGB").convert("L").resize((32, 32), Image.Resampling.BILINEAR))
        for path in (path_a, path_b)
    )
    return np.corrcoef(a.astype(np.float64).ravel(), b.astype(np.float64).ravel())[0, 1]


def write_alike(folder, n_people=5, n_each=8, seed=0, noises=(8, 25, 60)):
    """Pictures of few motifs with more or less noise, dealt out to people: near, nearly near and not near."""
    rng = np.random.default_rng(seed)
    for person, n in itertools.product(range(n_people), range(n_each)):
        motif = picture(100 + rng.integers(6)).astype(float)
        noise = rng.normal(0, rng.choice(noises), motif.shape)
        save(folder / f"p{person}" / f"{n}.png", np.clip(motif + noise, 0, 255).astype(np.uint8))
    return folder


@pytest.fixture
def alike(tmp_path):
    return write_alike(tmp_path / "alike")


def near_by_loops(paths, others, near):
    """Return {(path, other): correlation} of all near pairs of different files."""
    return {
        (a, b): correlation
        for a in paths
        for b in others
        if a != b and (correlation := correlation_of(a, b)) >= near
    }


def groups_by_loops(paths, pairs):
    """Merge linked paths until nothing changes."""
    groups = [{path} for path in paths]
    for a, b in pairs:
        (first,) = (group for group in groups if a in group)
        (second,) = (group for group in groups if b in group)
        if first is not second:
            first |= second
            groups.remove(second)
    return {tuple(sorted(group)) for group in groups if len(group) > 1}


@pytest.fixture(params=["whole", "in pieces"])
def pieces(request, monkeypatch):
    """Small blocks and one neighbor at first, so that every loop goes round."""
    if request.param == "in pieces":
        monkeypatch.setattr(check, "_ROWS", 4)
        monkeypatch.setattr(check, "_QUERIES_AT_A_TIME", 7)
        monkeypatch.setattr(check, "_FIRST_NEIGHBORS", 1)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("near", [0.9, 0.95, NEAR])
def test_near_images_are_those_that_loops_find(alike, near):
    result = check_folder(str(alike), near=near)
    paths = scan_identities(str(alike)).paths
    pairs = {
        (os.path.relpath(a, alike), os.path.relpath(b, alike)): correlation
        for (a, b), correlation in near_by_loops(paths, paths, near).items()
    }
    person = os.path.dirname
    across = {pair: c for pair, c in pairs.items() if person(pair[0]) < person(pair[1])}
    within = {pair: c for pair, c in pairs.items() if person(pair[0]) == person(pair[1])}
    assert len(across) > 3
    assert len(within) > 2

    found = {one.images: one.correlation for one in result.findings["near_across"]}
    assert found == pytest.approx(across, abs=6e-5)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert all(one.people == tuple(map(person, one.images)) for one in result.findings["near_across"])
    groups = {one.images: one.correlation for one in result.findings["near"]}
    assert set(groups) == groups_by_loops([os.path.relpath(path, alike) for path in paths], within)
    for group, correlation in groups.items():
        links = [c for (a, b), c in within.items() if a in group and b in group]
        assert correlation == pytest.approx(min(links), abs=6e-5)
    assert set(result.quarantine) == {image for pair in across for image in pair}


@pytest.mark.parametrize("axis", [0, 1, None])
def test_differences_that_are_all_coarse(tmp_path, axis):
    """One motif passes over into another: near ones lie at the very edge of what the sieve lets through."""
    ends = [picture(seed).astype(float) for seed in (6, 7)]
    if axis is not None:
        ends = [np.broadcast_to(end.mean(axis, keepdims=True), end.shape) for end in ends]
    for n, part in enumerate(np.linspace(0, 1, 30)):
        blend = (1 - part) * ends[0] + part * ends[1]
        save(tmp_path / f"p{n:02}" / "1.png", blend.astype(np.uint8))
    paths = scan_identities(str(tmp_path)).paths
    pairs = {
        tuple(os.path.relpath(path, tmp_path) for path in pair)
        for pair in near_by_loops(paths, paths, 0.95)
        if pair[0] < pair[1]
    }
    assert 50 < len(pairs) < 400
    assert {one.images for one in found_in(tmp_path, near=0.95)["near_across"]} == pairs


@pytest.mark.usefixtures("pieces")
def test_near_images_of_the_test_set_are_those_that_loops_find(alike, tmp_path):
    test = write_alike(tmp_path / "test", n_people=2, seed=1)
    for person in test.iterdir():
        person.rename(test / f"other_{person.name}")
    result = check_folder(str(alike), near=0.95, against=str(test))
    paths, test_paths = (scan_identities(str(folder)).paths for folder in (alike, test))
    pairs = near_by_loops(paths, test_paths, 0.95)
    best = {}
    for (a, b), correlation in sorted(pairs.items(), key=lambda item: item[1]):
        best[(os.path.relpath(a, alike),)] = b, correlation
    assert 3 < len(best) < len(paths)
    found = {one.images: (one.also, one.correlation) for one in result.findings["test_near"]}
    assert {image: also for image, (also, _) in found.items()} == {
        image: also for image, (also, _) in best.items()
    }
    for image, (_, correlation) in found.items():
        assert correlation == pytest.approx(best[image][1], abs=6e-5)
        assert result.quarantine[image[0]] == f"nearly the test set's {best[image][0]}"


def test_many_near_images_are_all_found_below_the_limit(tmp_path, monkeypatch):
    """One motif under 12 people: each image has 11 near ones, asked for 1, 4, 11 at a time."""
    write_alike(tmp_path / "alike", n_people=12, n_each=1, noises=(2,))
    for path in (tmp_path / "alike").glob("*/*.png"):
        noise = np.random.default_rng(int(path.parent.name[1:])).integers(0, 9, (40, 40, 3))
        save(path, (picture(0) // 2 + noise).astype(np.uint8))
    monkeypatch.setattr(check, "_FIRST_NEIGHBORS", 1)
    assert len(found_in(tmp_path / "alike")["near_across"]) == 66
    monkeypatch.setattr(check, "_MOST_NEIGHBORS", 2)
    few = found_in(tmp_path / "alike")["near_across"]
    assert 12 <= len(few) <= 24
    assert {image for one in few for image in one.images} == {f"p{n}/0.png" for n in range(12)}


def test_recompressed_and_shrunk_copies_are_near(people):
    image = Image.open(people / "ann" / "1.png")
    image.save(people / "ann" / "3.jpg", quality=30)
    image.resize((32, 32)).save(people / "bob" / "3.png")
    found = found_in(people)
    assert images_of(found["near"]) == [("ann/1.png", "ann/3.jpg")]
    assert {one.images for one in found["near_across"]} == {
        ("ann/1.png", "bob/3.png"),
        ("ann/3.jpg", "bob/3.png"),
    }


def test_near_images_of_a_copy_count_for_its_own_person(people):
    shutil.copy(people / "ann" / "1.png", people / "bob" / "3.png")
    Image.open(people / "ann" / "1.png").save(people / "bob" / "4.jpg", quality=30)
    found = found_in(people)
    assert images_of(found["near"]) == [("bob/3.png", "bob/4.jpg")]
    assert images_of(found["near_across"]) == [("ann/1.png", "bob/4.jpg")]


def test_copies_are_not_reported_as_near_too(people):
    shutil.copy(people / "ann" / "1.png", people / "ann" / "3.png")
    shutil.copy(people / "ann" / "1.png", people / "bob" / "3.png")
    assert list(found_in(people)) == ["duplicates_across"]


def test_pictures_without_contrast_are_like_nothing(people):
    for n, grey in enumerate((10, 10, 200)):
        save(people / "bob" / f"flat_{n}.png", np.full((40, 40, 3), grey, dtype=np.uint8))
    speck = np.full((40, 40, 3), 90, dtype=np.uint8)
    speck[20, 20] = 99
    save(people / "eve" / "speck_1.png", speck)
    save(people / "eve" / "speck_2.png", speck + 1)
    assert images_of(found_in(people)["duplicates"]) == [("bob/flat_0.png", "bob/flat_1.png")]
    assert list(found_in(people)) == ["duplicates"]


def test_real_photographs_twice_and_two_photographs(tmp_path, lfw_dir):
    """Pairs that are one photograph by eye, and the most alike that are two."""
    for name in ("Ari_Fleischer", "Mariana_Pollack", "Salma_Hayek", "Serena_Williams", "Nicolas_Cage"):
        (tmp_path / name).symlink_to(lfw_dir / "images" / name)
    (tmp_path / "Robin_Tunney").symlink_to(lfw_dir / "images" / "Robin_Tunney")
    result = check_folder(str(tmp_path))
    twice = {
        tuple(os.path.basename(image).removesuffix(".jpg") for image in one.images)
        for one in result.findings["near"]
    }
    assert twice == {
        ("Ari_Fleischer_0006", "Ari_Fleischer_0011"),
        ("Mariana_Pollack_0001", "Mariana_Pollack_0002"),
        ("Serena_Williams_0002", "Serena_Williams_0016"),
        ("Serena_Williams_0029", "Serena_Williams_0031"),
    }
    assert not result.findings["near_across"]
    assert not result.quarantine


# --- The test set


def test_people_and_pictures_of_a_test_folder(people, tmp_path):
    test = tmp_path / "test"
    save(test / "bob" / "77.png", picture(50))
    shutil.copytree(people / "eve", test / "stranger")
    result = check_folder(str(people), against=str(test))
    assert result.n_test_images == 3
    assert [(one.people, one.images) for one in result.findings["test_people"]] == [
        (("bob",), ("bob/1.png", "bob/2.png"))
    ]
    assert [(one.images, one.also) for one in result.findings["test_duplicates"]] == [
        ((f"eve/{n}.png",), str(test / "stranger" / f"{n}.png")) for n in (1, 2)
    ]
    assert result.quarantine == {
        "bob/1.png": "the test set has this person",
        "bob/2.png": "the test set has this person",
        "eve/1.png": f"the test set's {test / 'stranger' / '1.png'}",
        "eve/2.png": f"the test set's {test / 'stranger' / '2.png'}",
    }


def test_unreadable_images_of_the_test_set_are_its_own_matter(people, tmp_path):
    test = tmp_path / "test"
    save(test / "zoe" / "1.png", picture(50))
    (test / "zoe" / "2.png").write_bytes(b"")
    (people / "ann" / "3.png").write_bytes(b"")
    result = check_folder(str(people), against=str(test))
    assert result.n_test_images == 1
    assert {name for name, some in result.findings.items() if some} == {"empty"}


@pytest.fixture
def lfw_like(tmp_path):
    """`test/pairs.txt` of two people, `test/images` with one more."""
    test = tmp_path / "test"
    for seed, (name, n) in enumerate(itertools.product(("bob", "tom", "una"), (1, 2)), start=60):
        save(test / "images" / name / f"{name}_{n:04d}.png", picture(seed))
    (test / "pairs.txt").write_text("1 1\nbob 1 2\ntom 1 2\nbob 1 tom 1\n")
    return test


def test_a_pairs_file_names_people_and_images(people, lfw_like):
    shutil.copy(lfw_like / "images" / "tom" / "tom_0002.png", people / "ann" / "3.png")
    shutil.copy(lfw_like / "images" / "una" / "una_0001.png", people / "ann" / "4.png")
    result = check_folder(str(people), against=str(lfw_like / "pairs.txt"))
    assert result.n_test_images == 4
    assert [one.people for one in result.findings["test_people"]] == [("bob",)]
    assert images_of(result.findings["test_duplicates"]) == [("ann/3.png",)]


def test_where_the_images_of_a_pairs_file_are(people, lfw_like, tmp_path):
    elsewhere = tmp_path / "pairs.txt"
    shutil.copy(lfw_like / "pairs.txt", elsewhere)
    with pytest.raises(UserError, match="at least as many pairs with images"):
        check_folder(str(people), against=str(elsewhere))
    images_dir = str(lfw_like / "images")
    assert check_folder(str(people), against=str(elsewhere), against_dir=images_dir).n_test_images == 4
    shutil.copy(lfw_like / "pairs.txt", lfw_like / "images" / "pairs.txt")
    assert check_folder(str(people), against=str(lfw_like / "images" / "pairs.txt")).n_test_images == 4


def test_against_what_is_not_there(people, tmp_path):
    with pytest.raises(UserError, match="gone"):
        check_folder(str(people), against=str(tmp_path / "gone"))
    with pytest.raises(UserError, match="against must be a pairs file, if against_dir is given"):
        check_folder(str(people), against=str(people), against_dir=str(people))


# --- The quarantine


def test_the_first_kind_gives_the_reason_and_the_scan_the_order(people, tmp_path):
    shutil.copy(people / "eve" / "1.png", people / "bob" / "0.png")
    shutil.copy(people / "eve" / "1.png", people / "ann" / "10.png")
    (people / "eve" / "3.png").write_bytes(b"")
    save(tmp_path / "test" / "eve" / "1.png", picture(50))
    result = check_folder(str(people), against=str(tmp_path / "test"))
    assert list(result.quarantine.items()) == [
        ("ann/10.png", "same picture under ann, bob, eve"),
        ("bob/0.png", "same picture under ann, bob, eve"),
        ("eve/1.png", "the test set has this person"),
        ("eve/2.png", "the test set has this person"),
        ("eve/3.png", "zero-byte file"),
    ]


def test_what_is_only_reported_stays(people):
    save(people / "ann" / "3.jpg", picture(30, 8, 8), format="GIF")
    Image.open(people / "ann" / "1.png").save(people / "ann" / "4.jpg", quality=80)
    result = check_folder(str(people))
    assert {name for name, some in result.findings.items() if some} == {"near", "tiny", "wrong_ending"}
    assert result.quarantine == {}


NASTY = ["ann/1.png", "#b/#1.png", " c /a\tb.png", "d/\udcff.png", "e/é.png"]


def test_names_come_back_as_they_were(tmp_path):
    path = tmp_path / "quarantine.txt"
    write_quarantine(dict.fromkeys(NASTY, "a\treason\nof two lines"), str(path), "my\nfaces")
    listed = read_quarantine(str(path))
    assert [os.path.normpath(one) for one in listed] == NASTY
    lines = path.read_bytes().decode("utf-8", "surrogateescape").splitlines()
    assert lines[0].startswith("# Images of my faces ")
    assert lines[2] == "ann/1.png\ta reason of two lines"
    assert len(lines) == 2 + len(NASTY)


def test_what_people_write(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes(b"\xef\xbb\xbfann/1.png\r\n\r\n# bob/2.png\r\neve/1.png\tblurred\r\n   \r\n")
    assert read_quarantine(str(path)) == ["ann/1.png", "eve/1.png"]


def test_names_with_line_breaks_are_told(tmp_path, caplog):
    path = tmp_path / "quarantine.txt"
    write_quarantine({"a/1\n.png": "x", "b/1.png": "y"}, str(path), "faces")
    assert read_quarantine(str(path)) == ["b/1.png"]
    assert r"a/1\n.png" in caplog.text


def test_quarantined_images_are_left_out_and_unknown_ones_named_once(people, tmp_path, caplog):
    path = tmp_path / "quarantine.txt"
    path.write_text("ann/1.png\nbob/1.png\nbob/2.png\ngone/1.png\nann/7.png\n./eve/1.png\n")
    kept = without_quarantined(scan_identities(str(people)), str(people), str(path))
    assert [os.path.relpath(one, people) for one in kept.paths] == ["ann/2.png", "eve/2.png"]
    assert kept.names == ("ann", "eve")
    (record,) = caplog.records
    assert record.getMessage() == f"paths in {path} that are no images of {people}: gone/1.png, ann/7.png"


def test_what_is_found_in_several_folders_is_left_out_of_them(people, tmp_path, monkeypatch, caplog):
    more = tmp_path / "more"
    save(more / "ann" / "1.png", picture(70))
    shutil.copy(people / "bob" / "1.png", more / "ann" / "2.png")
    monkeypatch.chdir(tmp_path)
    both = f"people{os.pathsep}{more}"
    result = check_folder(both)
    assert result.findings["duplicates_across"][0].images == (f"{more}/ann/2.png", "people/bob/1.png")
    write_quarantine(result.quarantine, "quarantine.txt", both)
    kept = without_quarantined(scan_identities(both), both, "quarantine.txt")
    assert len(kept.paths) == 8 - 2
    assert not {"people/bob/1.png", f"{more}/ann/2.png"} & set(kept.paths)
    assert not caplog.records


def test_a_quarantine_file_that_cannot_be_read_or_written(people, tmp_path):
    with pytest.raises(UserError, match=r"the quarantine file must be readable; '.*gone\.txt': No such file"):
        read_quarantine(str(tmp_path / "gone.txt"))
    with pytest.raises(UserError, match="cannot write"):
        write_quarantine({}, str(tmp_path / "gone" / "q.txt"), str(people))


def test_what_is_quarantined_makes_a_clean_folder(people, tmp_path):
    """Leave out what the check says, check again: only what is not left out by rule is found."""
    shutil.copy(people / "ann" / "1.png", people / "ann" / "3.png")
    shutil.copy(people / "ann" / "2.png", people / "bob" / "3.png")
    Image.open(people / "eve" / "1.png").save(people / "bob" / "4.jpg", quality=80)
    (people / "eve" / "3.png").write_bytes(b"")
    path = str(tmp_path / "quarantine.txt")
    result = check_folder(str(people))
    write_quarantine(result.quarantine, path, str(people))
    kept = without_quarantined(scan_identities(str(people)), str(people), path)
    for image in set(scan_identities(str(people)).paths) - set(kept.paths):
        os.remove(image)
    after = check_folder(str(people))
    assert after.quarantine == {}
    assert after.n_images == result.n_images - len(result.quarantine) == 10 - 6
