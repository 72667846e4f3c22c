"""`facenet-fast freeze`: a trained network in another format, compared with the network first."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from facenet_fast.config import FreezeConfig
from facenet_fast.data.identities import ORL, scan_identities
from facenet_fast.data.images import standardise
from facenet_fast.data.pairs import Pairs, read_pairs
from facenet_fast.errors import UserError
from facenet_fast.evaluation.verify_images import find_pairs_file
from facenet_fast.export.certificate import (
    Comparison,
    RealImages,
    compare,
    compare_encoded,
    digest,
    draw_images,
    verification_delta,
)
from facenet_fast.export.formats import FORMATS, Format, Source, format_of
from facenet_fast.extras import import_extra
from facenet_fast.files import (
    check_output,
    check_output_folder,
    folder_written_aside,
    write_text_aside,
    written_aside,
)
from facenet_fast.models import Metadata, Network, describe, load_network, name_of_model, read_graph
from facenet_fast.models.saved_models import encoded_embedder, is_saved_model
from facenet_fast.report.versions import versions
from facenet_fast.thresholds import load_thresholds, to_record

__all__ = ["certificate_path", "freeze"]

# A written model resizes pictures by TensorFlow, we by Pillow: pixels differ by a grey level here and there.
_ENCODED_TOLERANCE = 0.02


def freeze(config: FreezeConfig) -> dict[str, Any]:
    """Write a trained network as a file, or a SavedModel's folder, that other programs run.

    It is written aside, read back by the program that it is for, run on real images beside the network, and
    only then given the name that was asked for: what bears that name is whole and right, or what it was
    before, or is not there. What was found is kept beside it, in ``OUT.certificate.json``.

    Parameters
    ----------
    config : FreezeConfig
        The network, what to write, and what to compare on.

    Returns
    -------
    dict
        The certificate.

    Raises
    ------
    UserError
        If the network cannot be read or written in that format, a package is missing, there are no images to
        compare on, or an embedding differs by more than the tolerance.
    """
    name = format_of(config.output_path, config.format)
    form = FORMATS[name]
    output_path = os.path.abspath(config.output_path)
    _check(output_path, form)
    pairs = _lfw_pairs(config)
    network = load_network(
        config.model,
        image_size=config.image_size,
        standardisation="fixed" if config.use_fixed_image_standardization else None,
    )
    for line in describe(config.model):
        print(line)
    images, calibration = _real_images(config, network, form)
    standardised = standardise(calibration.pixels, network.embedder.standardisation) if calibration else ()
    metadata = _metadata(config, network, form)
    source = Source(network, metadata, [image[None] for image in standardised])
    tolerance = form.tolerance if config.tolerance is None else config.tolerance

    with _aside(output_path, form) as aside:
        form.write(source, aside)
        found = _compared(aside, source, images, tolerance, pairs)
        certificate = {
            "file": os.path.basename(output_path),
            "format": name,
            "sha256": digest(aside),
            "images": images.source,
            "calibration_images": len(calibration.paths) if calibration else 0,
            **found,
            "tolerance": tolerance,
            "model": asdict(metadata),
        }
        # One of an earlier file must not stand beside this one.
        with contextlib.suppress(FileNotFoundError):
            os.remove(certificate_path(output_path))
    text = json.dumps(certificate, indent=2, allow_nan=False)
    write_text_aside(certificate_path(output_path), text + "\n")
    _print(certificate, source, output_path)
    return certificate


def certificate_path(output_path: str) -> str:
    """Return where the certificate of a written model is.

    Examples
    --------
    >>> certificate_path("faces.onnx")
    'faces.onnx.certificate.json'
    """
    return output_path + ".certificate.json"


def _check(output_path: str, form: Format) -> None:
    """Refuse before any work what could not be written."""
    if form.ending:
        check_output(output_path, form.ending, form.what)
    else:
        check_output_folder(output_path, is_saved_model, form.what)
    for package in form.packages:
        import_extra(package, f"writing {form.what}")


@contextlib.contextmanager
def _aside(output_path: str, form: Format) -> Iterator[str]:
    if form.ending:
        with written_aside(output_path) as aside:
            yield aside
    else:
        with folder_written_aside(output_path, is_saved_model) as aside:
            yield aside


def _lfw_pairs(config: FreezeConfig) -> Pairs | None:
    if not config.lfw_dir:
        return None
    return read_pairs(*find_pairs_file(config.lfw_dir, config.lfw_pairs))


def _real_images(
    config: FreezeConfig, network: Network, form: Format
) -> tuple[RealImages, RealImages | None]:
    """Draw images to compare on and, where the format asks for some, others to calibrate with."""
    source, paths = _image_files(config, network)
    n_wanted = config.n_images * (2 if form.calibrated else 1)
    embedder = network.embedder
    drawn = draw_images(
        paths, n_wanted, source, image_size=embedder.image_size, store_size=embedder.store_size, seed=0
    )
    if not form.calibrated:
        return drawn, None
    half = len(drawn.paths) // 2
    if half == 0:
        raise UserError(f"calibrating and comparing need at least 2 images; {source} has 1")
    return (
        dataclasses.replace(drawn, paths=drawn.paths[:half], pixels=drawn.pixels[:half]),
        dataclasses.replace(drawn, paths=drawn.paths[half:], pixels=drawn.pixels[half:]),
    )


def _image_files(config: FreezeConfig, network: Network) -> tuple[str, tuple[str, ...]]:
    if config.images_dir:
        return config.images_dir, scan_identities(config.images_dir).paths
    # A run may have been moved to where its images are not.
    with contextlib.suppress(UserError):
        if network.images_dir:
            return network.images_dir, scan_identities(network.images_dir).paths
    return ORL, scan_identities(ORL).paths


def _metadata(config: FreezeConfig, network: Network, form: Format) -> Metadata:
    embedder = network.embedder
    metadata = network.metadata or Metadata(
        image_size=embedder.image_size,
        store_size=embedder.store_size,
        standardisation=embedder.standardisation,
        embedding_size=embedder.embedding_size,
        source=name_of_model(config.model),
    )
    thresholds = load_thresholds(config.model)
    if thresholds is not None:
        name = os.path.basename(os.path.abspath(config.output_path))
        thresholds = dataclasses.replace(thresholds, checkpoint=name)
    return dataclasses.replace(
        metadata,
        standardisation=embedder.standardisation,
        thresholds=None if thresholds is None else to_record(thresholds),
        versions=versions(*form.packages),
    )


def _compared(
    path: str, source: Source, images: RealImages, tolerance: float, pairs: Pairs | None
) -> dict[str, Any]:
    """Run what was written beside the network; what is not right raises."""
    trained = source.network.embedder
    written = load_network(path)
    if written.metadata != source.metadata:
        said = asdict(written.metadata) if written.metadata else {}
        other = [name for name, value in asdict(source.metadata).items() if said.get(name) != value]
        raise UserError(f"the written model must say of itself what it was given; {', '.join(other)} differ")
    found = {"embeddings": _within(compare(written.embedder, trained, images), tolerance, "embeddings")}
    embed_files = encoded_embedder(path) if os.path.isdir(path) else None
    if embed_files is not None:
        compared = compare_encoded(embed_files, trained, images)
        found["embeddings_of_files"] = _within(
            compared, max(tolerance, _ENCODED_TOLERANCE), "embeddings of image files"
        )
    if pairs is not None:
        found["lfw"] = verification_delta(written.embedder, trained, pairs)
    return found


def _within(compared: Comparison, tolerance: float, what: str) -> dict[str, Any]:
    if not compared.largest_difference <= tolerance:
        raise UserError(
            f"the written model's {what} must equal the network's to {tolerance:g}; they differ by "
            f"{compared.largest_difference:.2e} on {compared.n_images} images; nothing is written"
        )
    return asdict(compared)


def _print(certificate: dict[str, Any], source: Source, output_path: str) -> None:
    if certificate["format"] == "pb":
        print(f"{len(read_graph(output_path).node)} ops in the final graph: {output_path}")
    else:
        print(f"Written: {output_path}")
    print(f"Images are to be standardised: {source.metadata.standardisation}")
    compared = certificate["embeddings"]
    print(
        f"Largest difference to the network: {compared['largest_difference']:.2e} "
        f"on {compared['n_images']} images of {certificate['images']} (at most {certificate['tolerance']:g})"
    )
    if "embeddings_of_files" in certificate:
        difference = certificate["embeddings_of_files"]["largest_difference"]
        print(f"Largest difference where it prepares image files itself: {difference:.2e}")
    if "lfw" in certificate:
        lfw = certificate["lfw"]
        print(
            f"Accuracy on {lfw['n_pairs']} pairs: {lfw['written']['accuracy']:.5f}, "
            f"the network's {lfw['network']['accuracy']:.5f} ({lfw['delta']['accuracy']:+.5f})"
        )
    print(f"Certificate: {certificate_path(output_path)}")
