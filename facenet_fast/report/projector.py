"""Embeddings for TensorBoard's projector: vectors, names and thumbnails, as the plain files that it reads."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from facenet_fast.files import write_text_aside, written_aside

__all__ = ["CONFIG_FILE", "MAX_IMAGES", "write_projector"]

CONFIG_FILE = "projector_config.pbtxt"
#: More points than this the projector in a browser shows slowly.
MAX_IMAGES = 2000

_SIDE = 32


def write_projector(
    logs_dir: str,
    name: str,
    embeddings: NDArray[np.floating],
    labels: Sequence[str],
    images: NDArray[np.uint8],
) -> str:
    """Write embeddings where TensorBoard, opened on the folder, shows them in its projector.

    ``projector/`` gets ``NAME.tsv`` (a vector a line), ``NAME_labels.tsv`` (a label a line) and ``NAME.png``
    (thumbnails of 32 pixels in a square); ``projector_config.pbtxt`` names them. An earlier one is replaced.

    Parameters
    ----------
    logs_dir : str
        The folder of the run's events.
    name : str
        What is shown: letters, digits and ``_``.
    embeddings : array (n, D)
        The vectors, 1 to `MAX_IMAGES`.
    labels : sequence of str, length n
        Whom each shows; what would break a line is made a blank.
    images : uint8 (n, h, w, 3)
        The images.

    Returns
    -------
    str
        The path of ``projector_config.pbtxt``.

    Raises
    ------
    UserError
        If a file cannot be written.
    ValueError
        If the lengths differ or are out of range.
    """
    n = len(embeddings)
    if not 1 <= n <= MAX_IMAGES or len(labels) != n or len(images) != n:
        raise ValueError(
            f"embeddings, labels and images must be 1 to {MAX_IMAGES}, one of each; "
            f"got {n}, {len(labels)} and {len(images)}"
        )
    folder = os.path.join(logs_dir, "projector")
    os.makedirs(folder, exist_ok=True)
    with written_aside(os.path.join(folder, f"{name}.tsv")) as aside:
        np.savetxt(aside, embeddings, fmt="%.6g", delimiter="\t")
    # One column has no heading: a heading would be taken for the label of the first vector.
    lines = "".join(" ".join(label.split()) + "\n" for label in labels)
    write_text_aside(os.path.join(folder, f"{name}_labels.tsv"), lines)
    with written_aside(os.path.join(folder, f"{name}.png")) as aside:
        _sprite(images).save(aside)
    config = (
        "embeddings {\n"
        f'  tensor_name: "{name}"\n'
        f'  tensor_path: "projector/{name}.tsv"\n'
        f'  metadata_path: "projector/{name}_labels.tsv"\n'
        "  sprite {\n"
        f'    image_path: "projector/{name}.png"\n'
        f"    single_image_dim: {_SIDE}\n"
        f"    single_image_dim: {_SIDE}\n"
        "  }\n"
        "}\n"
    )
    return write_text_aside(os.path.join(logs_dir, CONFIG_FILE), config)


def _sprite(images: NDArray[np.uint8]) -> Image.Image:
    """Lay thumbnails out row by row in a square, as the projector counts them."""
    n_across = math.ceil(math.sqrt(len(images)))
    sprite = Image.new("RGB", (n_across * _SIDE, n_across * _SIDE), "white")
    for n, image in enumerate(images):
        row, column = divmod(n, n_across)
        sprite.paste(Image.fromarray(image).resize((_SIDE, _SIDE)), (column * _SIDE, row * _SIDE))
    return sprite
