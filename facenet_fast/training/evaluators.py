"""What training is judged on: pairs of people it never sees, held out or from LFW."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from facenet_fast.config import TrainConfig
from facenet_fast.data.decoding import check_images
from facenet_fast.data.identities import IdentityDataset, shorten
from facenet_fast.data.images import ImageStore
from facenet_fast.data.pairs import Pairs, draw_pairs, read_pairs, write_pairs
from facenet_fast.errors import UserError
from facenet_fast.evaluation.embed import Embedder
from facenet_fast.evaluation.verification import Verification
from facenet_fast.evaluation.verify_images import find_pairs_file, verify_images

__all__ = ["Evaluator", "held_out_evaluator", "image_store", "lfw_evaluator"]

_logger = logging.getLogger("facenet_fast")


@dataclass(frozen=True, eq=False)
class Evaluator:
    """Verification on a set of pairs; knows no network until it is run.

    Attributes
    ----------
    name : str
        Group of its measures: ``held_out`` or ``lfw``.
    title : str
        For people.
    pairs : Pairs
        The pairs.
    store : ImageStore
        Reads the images of the pairs.
    """

    name: str
    title: str
    pairs: Pairs
    store: ImageStore

    def run(self, embedder: Embedder) -> Verification:
        """Embed every image and verify; pairs with an unreadable image are left out.

        Raises
        ------
        UserError
            If no pairs of one kind are left, or the network gives NaN.
        """
        return verify_images(embedder, self.pairs, self.store)


def held_out_evaluator(config: TrainConfig, held_out: IdentityDataset, pairs_path: str) -> Evaluator:
    """Make the evaluator of held-out identities, and write its pairs so that `validate` can read them.

    Parameters
    ----------
    config : TrainConfig
        Read: `seed`, `folds`, `max_pairs` and how images are read.
    held_out : IdentityDataset
        The identities; files that cannot be read are left out with a warning.
    pairs_path : str
        Where to write the pairs.

    Raises
    ------
    UserError
        If there are too few images for pairs of both kinds.
    """
    bad = check_images(held_out.paths, threads=config.threads or None)
    if bad:
        _logger.warning(
            "left out %d unreadable held-out images: %s",
            len(bad),
            shorten([f"{path} ({reason})" for path, reason in bad.items()]),
        )
        held_out = held_out.without(bad)
    pairs = draw_pairs(held_out, config.seed, config.folds, config.max_pairs)
    try:
        write_pairs(pairs, pairs_path, config.data_dir)
    except UserError as error:
        _logger.warning("the held-out pairs are not written: %s", error)
    n_same = int(np.count_nonzero(pairs.is_same))
    title = (
        f"{held_out.n_identities} people never trained on "
        f"({n_same} pairs of one person, {len(pairs) - n_same} of two)"
    )
    return _evaluator("held_out", title, pairs, config)


def lfw_evaluator(config: TrainConfig) -> Evaluator:
    """Make the evaluator of `lfw_dir`.

    Raises
    ------
    UserError
        If the pairs file or the images are missing, or a line of it is wrong.
    """
    pairs_path, images_dir = find_pairs_file(config.lfw_dir, config.lfw_pairs)
    pairs = read_pairs(pairs_path, images_dir, n_folds=config.lfw_folds)
    return _evaluator("lfw", f"LFW ({len(pairs)} pairs of {pairs_path})", pairs, config)


def image_store(config: TrainConfig, paths: tuple[str, ...]) -> ImageStore:
    """Make the store that a configuration asks for."""
    return ImageStore(
        paths,
        config.store_size,
        cache_bytes=config.cache_megabytes << 20,
        cache_dir=config.cache_dir or None,
        threads=config.threads or None,
    )


def _evaluator(name: str, title: str, pairs: Pairs, config: TrainConfig) -> Evaluator:
    return Evaluator(name, title, pairs, image_store(config, pairs.images()[0]))
