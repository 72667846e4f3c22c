"""`facenet-fast validate`: how well a trained network tells faces apart, by the LFW protocol."""

from __future__ import annotations

import os

from facenet_fast.config import ValidateConfig
from facenet_fast.data.pairs import read_pairs
from facenet_fast.errors import UserError
from facenet_fast.evaluation.embed import Embedder
from facenet_fast.evaluation.verification import Verification
from facenet_fast.evaluation.verify_images import find_pairs_file, verify_images

__all__ = ["validate"]

HELD_OUT_PAIRS_FILE = "held_out_pairs.txt"


def validate(config: ValidateConfig) -> Verification:
    """Verify the pairs of a pairs file with a trained network, and print the predecessor's lines.

    Parameters
    ----------
    config : ValidateConfig
        The images, the model, the pairs file and the protocol's options. Without `lfw_pairs` the pairs are
        those in ``IMAGES_DIR/pairs.txt`` or ``IMAGES_DIR/../pairs.txt``, and if there are none but the model
        is a run, those of the run's held-out identities.

    Returns
    -------
    Verification

    Raises
    ------
    UserError
        If pairs, images or model are missing or cannot be read; with `strict` also if any image cannot.
    """
    pairs_path, images_dir = _pairs_and_images(config)
    # Read before the model is: a mistake in the pairs file shows at once.
    pairs = read_pairs(pairs_path, images_dir, n_folds=config.lfw_folds, strict=config.strict)
    embedder = _load(config)
    print("Runnning forward pass on LFW images")  # spelled as the predecessor's, for scripts that look for it
    result = verify_images(
        embedder,
        pairs,
        batch_size=config.batch_size,
        flipped=config.use_flipped_images,
        metric=config.distance_metric,
        subtract_mean=config.subtract_mean,
        progress=_Dots(),
    )
    print()
    n_unreadable = len(pairs) - len(result.is_same)
    if n_unreadable and config.strict:
        raise UserError(
            f"strict: every image must be readable; {n_unreadable} of {len(pairs)} pairs hold one that is not"
        )
    n_skipped = n_unreadable + len(pairs.skipped)
    if n_skipped:
        print(f"Skipped {n_skipped} image pairs")
    print_verification(result)
    return result


def print_verification(result: Verification) -> None:
    """Print a verification in the predecessor's four lines."""
    print(f"Accuracy: {result.accuracy:2.5f}+-{result.accuracy_std:2.5f}")
    print(f"Validation rate: {result.val:2.5f}+-{result.val_std:2.5f} @ FAR={result.far:2.5f}")
    print(f"Area Under Curve (AUC): {result.auc:1.3f}")
    print(f"Equal Error Rate (EER): {result.eer:1.3f}")


def _pairs_and_images(config: ValidateConfig) -> tuple[str, str]:
    held_out = os.path.join(config.model, HELD_OUT_PAIRS_FILE)
    try:
        return find_pairs_file(config.images_dir, config.lfw_pairs)
    except UserError:
        if config.lfw_pairs or not os.path.isfile(held_out):
            raise
    return find_pairs_file(config.images_dir, held_out)


def _load(config: ValidateConfig) -> Embedder:
    # Only here, since both import TensorFlow.
    from facenet_fast.checkpoints import find_checkpoint
    from facenet_fast.models import load_embedder

    embedder = load_embedder(
        config.model,
        image_size=config.image_size,
        standardisation="fixed" if config.use_fixed_image_standardization else None,
    )
    if config.model.endswith((".pb", ".keras")):
        print(f"Model filename: {config.model}")
    else:
        checkpoint = find_checkpoint(config.model)
        print(f"Model directory: {os.path.dirname(checkpoint)}")
        print(f"Checkpoint file: {os.path.basename(checkpoint)}")
    return embedder


class _Dots:
    """Print a dot for every ten batches."""

    def __init__(self) -> None:
        self.n_batches = 0

    def __call__(self, n_done: int, n_images: int) -> None:
        self.n_batches += 1
        if self.n_batches % 10 == 0:
            print(".", end="", flush=True)
