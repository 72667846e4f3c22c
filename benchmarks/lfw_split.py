"""Part LFW, to learn faces from it alone: ``python -m benchmarks.lfw_split LFW_DIR OUT``.

LFW is ten sets of people, and nobody is in two. `OUT` gets the people of sets 4 to 10 to train on (``train``,
a link each), the pairs of set 3 to choose settings by (``choose.txt``), and those of set 2 for the one test
(``test.txt``). Set 1 is left alone: it is for whoever wants to judge what came of all that.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from dataclasses import dataclass

import numpy as np

from facenet_fast.data.identities import IdentityDataset, scan_identities, shorten
from facenet_fast.data.pairs import Pairs, read_pairs, write_pairs
from facenet_fast.errors import UserError
from facenet_fast.evaluation.verify_images import find_pairs_file
from facenet_fast.files import check_output_folder, folder_written_aside

__all__ = ["CHOOSE_SET", "TEST_SET", "TRAIN_SETS", "Split", "read_sets", "read_split", "split_lfw"]

TRAIN_SETS = range(4, 11)
CHOOSE_SET, TEST_SET = 3, 2

SETS_FILE = "sets.txt"
TRAIN_DIR, CHOOSE_FILE, TEST_FILE = "train", "choose.txt", "test.txt"

# As `--lfw-folds` has it by default, and the folds of LFW's own list.
N_FOLDS = 10


@dataclass(frozen=True, eq=False)
class Split:
    """LFW in parts that share nobody.

    Attributes
    ----------
    train : IdentityDataset
        To learn from.
    choose, test : Pairs
        To choose settings and a threshold by, and to be judged by.
    """

    train: IdentityDataset
    choose: Pairs
    test: Pairs


def split_lfw(lfw_dir: str, out_dir: str) -> Split:
    """Write the parts of LFW into a folder, an earlier split being replaced, and read them back.

    Parameters
    ----------
    lfw_dir : str
        A folder of ``images/NAME/NAME_0001.jpg``, ``pairs.txt`` and ``sets.txt`` (see `read_sets`). People of
        `sets.txt` without images are passed over.
    out_dir : str
        The folder to write: links to `lfw_dir`, and two lists of pairs dealt out to ten folds.

    Returns
    -------
    Split

    Raises
    ------
    UserError
        If a file, a person or an image is missing, a pair is of two sets, a set has no pairs of either kind,
        or the folder cannot be written.
    """
    pairs_path, images_dir = find_pairs_file(lfw_dir)
    sets = read_sets(os.path.join(lfw_dir, SETS_FILE))
    check_output_folder(out_dir, _is_split, "an earlier split of LFW")
    pairs = read_pairs(pairs_path, images_dir, n_folds=2, strict=True)
    set_of_pair = _sets_of(pairs, sets, pairs_path)
    names = sorted(
        name
        for name, number in sets.items()
        if number in TRAIN_SETS and os.path.isdir(os.path.join(images_dir, name))
    )
    # Of the folder's place, not of the place aside where it is written first.
    train_dir = os.path.join(os.path.realpath(out_dir), TRAIN_DIR)
    to_images = os.path.relpath(os.path.realpath(images_dir), train_dir)
    with folder_written_aside(out_dir, _is_split) as aside:
        os.makedirs(os.path.join(aside, TRAIN_DIR))
        for name in names:
            os.symlink(os.path.join(to_images, name), os.path.join(aside, TRAIN_DIR, name))
        for number, file in ((CHOOSE_SET, CHOOSE_FILE), (TEST_SET, TEST_FILE)):
            dealt = _dealt(pairs.subset(set_of_pair == number), number)
            write_pairs(dealt, os.path.join(aside, file), images_dir)
    return read_split(lfw_dir, out_dir)


def read_split(lfw_dir: str, out_dir: str) -> Split:
    """Read what `split_lfw` wrote, and see that nobody is in two parts.

    Raises
    ------
    UserError
        If a part is missing, or its images are, or somebody is in two.
    """
    _, images_dir = find_pairs_file(lfw_dir)
    if not _is_split(out_dir):
        raise UserError(
            f"the split must be a folder with {TRAIN_DIR}, {CHOOSE_FILE} and {TEST_FILE}, as "
            f"`python -m benchmarks.lfw_split` writes it; got {out_dir!r}"
        )
    split = Split(
        scan_identities(os.path.join(out_dir, TRAIN_DIR), min_identities=2),
        *(
            read_pairs(os.path.join(out_dir, file), images_dir, n_folds=N_FOLDS, strict=True)
            for file in (CHOOSE_FILE, TEST_FILE)
        ),
    )
    people = {
        TRAIN_DIR: set(split.train.names),
        CHOOSE_FILE: _people(split.choose),
        TEST_FILE: _people(split.test),
    }
    for one, other in ((TRAIN_DIR, CHOOSE_FILE), (TRAIN_DIR, TEST_FILE), (CHOOSE_FILE, TEST_FILE)):
        if shared := sorted(people[one] & people[other]):
            raise UserError(
                f"nobody may be in both {one} and {other} of {out_dir!r}; got {shorten(shared, 3)}"
            )
    return split


def read_sets(path: str) -> dict[str, int]:
    """Read who is in which set of LFW: lines ``PERSON``, TAB, number of the set, 1 to 10.

    Raises
    ------
    UserError
        If the file cannot be read, a line is otherwise, or somebody is in two sets.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise UserError(
            f"LFW's sets must be in a readable file of lines PERSON, TAB, SET; {path!r}: {error.strerror}"
        ) from error
    sets: dict[str, int] = {}
    for n, line in enumerate(lines, start=1):
        name, _, number = line.partition("\t")
        if not name or not number.isdecimal() or not 1 <= int(number) <= 10:
            raise UserError(
                f"{path!r}, line {n}: a line must be PERSON, TAB, SET, with SET from 1 to 10; got {line!r}"
            )
        if sets.setdefault(name, int(number)) != int(number):
            raise UserError(
                f"{path!r}, line {n}: nobody may be in two sets; {name} is in {sets[name]} and {number}"
            )
    return sets


def _sets_of(pairs: Pairs, sets: dict[str, int], pairs_path: str) -> np.ndarray:
    """Return the set of each pair, int64 (n_pairs,)."""
    left, right = ([_person(path) for path in paths] for paths in (pairs.left, pairs.right))
    unknown = sorted({*left, *right} - sets.keys())
    if unknown:
        raise UserError(f"everybody of {pairs_path!r} must be in a set of LFW; got {shorten(unknown, 3)}")
    for one, other in zip(left, right, strict=True):
        if sets[one] != sets[other]:
            raise UserError(
                f"each pair of {pairs_path!r} must be of one set of LFW; got {one} of set {sets[one]} and "
                f"{other} of set {sets[other]}"
            )
    return np.array([sets[name] for name in left], dtype=np.int64)


def _dealt(pairs: Pairs, number: int) -> Pairs:
    """Deal each kind of pairs out to the folds: in LFW's order half of the folds would have one kind only."""
    n_same = int(np.count_nonzero(pairs.is_same))
    if min(n_same, len(pairs) - n_same) == 0:
        raise UserError(
            f"set {number} of LFW must have pairs of one person and of two; "
            f"got {n_same} and {len(pairs) - n_same}"
        )
    rank = np.where(pairs.is_same, np.cumsum(pairs.is_same), np.cumsum(~pairs.is_same)) - 1
    return dataclasses.replace(pairs, fold=rank % N_FOLDS, n_folds=N_FOLDS)


def _people(pairs: Pairs) -> set[str]:
    return {_person(path) for path in (*pairs.left, *pairs.right)}


def _person(path: str) -> str:
    return os.path.basename(os.path.dirname(path))


def _is_split(path: str) -> bool:
    return os.path.isdir(path) and set(os.listdir(path)) == {TRAIN_DIR, CHOOSE_FILE, TEST_FILE}


def main(arguments: list[str] | None = None) -> None:
    """Write the parts and say what is in them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lfw_split", description=__doc__)
    parser.add_argument("lfw_dir", metavar="LFW_DIR", help="folder of images, pairs.txt and sets.txt")
    parser.add_argument("out_dir", metavar="OUT", help="folder to write")
    given = parser.parse_args(arguments)
    try:
        split = split_lfw(given.lfw_dir, given.out_dir)
    except UserError as error:
        parser.error(str(error))
    train = split.train
    n_several = np.count_nonzero(train.counts > 1)
    print(
        f"{os.path.join(given.out_dir, TRAIN_DIR)}: {train.n_images} images of {train.n_identities} people, "
        f"{n_several} of them with several"
    )
    for file, pairs in ((CHOOSE_FILE, split.choose), (TEST_FILE, split.test)):
        path = os.path.join(given.out_dir, file)
        print(f"{path}: {len(pairs)} pairs, {np.count_nonzero(pairs.is_same)} of one person")


if __name__ == "__main__":
    main()
