"""What a model file says of itself: how to feed it, what it was made of, which distance means one person."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from facenet_fast.data.pixels import STANDARDISATIONS
from facenet_fast.errors import UserError

__all__ = ["METADATA_FILE", "METADATA_KEY", "Metadata"]

METADATA_KEY = "facenet_fast"
"""Name of the record where a format has named records."""
METADATA_FILE = "facenet_fast.json"
"""Name of the record where a format has files in it."""


@dataclass(frozen=True)
class Metadata:
    """A record that travels in a model file.

    Attributes
    ----------
    image_size : int
        Side of the square images in pixels.
    store_size : int
        Side to which whole pictures are resized before `image_size` pixels are cut from their middle.
    standardisation : {"per_image", "fixed"}
        How pixels are standardised (`facenet_fast.data.pixels.standardise`).
    embedding_size : int
        Length of the embeddings.
    source : str
        Name of the checkpoint or file that the model was made from.
    backbone : str
        Name of the network; empty if that is not known.
    n_images, n_identities : int or None
        Size of the training set; None if that is not known.
    thresholds : dict or None
        As `facenet_fast.thresholds.to_record` gives them.
    versions : dict of str
        Of what made the file.

    Examples
    --------
    >>> record = Metadata(112, 112, "fixed", 128, "model-20240101-120000.ckpt-7")
    >>> Metadata.from_json(record.to_json(), "model.pb") == record
    True
    """

    image_size: int
    store_size: int
    standardisation: str
    embedding_size: int
    source: str
    backbone: str = ""
    n_images: int | None = None
    n_identities: int | None = None
    thresholds: dict[str, Any] | None = None
    versions: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the record as a text for people and programs."""
        return json.dumps(asdict(self), indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes, path: str) -> Metadata:
        """Read what `to_json` wrote; names that later versions add are passed over.

        Parameters
        ----------
        text : str or bytes
            The record.
        path : str
            The model's file, for messages.

        Raises
        ------
        UserError
            If it is no such record.
        """
        try:
            record = json.loads(text)
            known = {one.name for one in fields(cls)}
            metadata = cls(**{name: value for name, value in record.items() if name in known})
            sizes = (metadata.image_size, metadata.store_size, metadata.embedding_size)
            if not all(isinstance(size, int) and size >= 1 for size in sizes):
                raise ValueError(f"sizes {sizes}")
            if metadata.standardisation not in STANDARDISATIONS:
                raise ValueError(f"standardisation {metadata.standardisation!r}")
            if not isinstance(metadata.thresholds, dict | None):
                raise ValueError(f"thresholds {metadata.thresholds!r}")
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path!r} holds a description of the model that facenet-fast did not write: {error}"
            ) from error
        return metadata
