"""Draw the picture of docs/augmentation.md, of a test card: python docs/augmentation_pictures.py."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from facenet_fast.config import AUGMENTATIONS
from facenet_fast.data.augmentation import Augmentation, augment

IMAGES = Path(__file__).parent / "images"
SIDE = 112
N_DRAWS = 8
QUALITY = 88  # of the file: above what is shown
SEED = (3, 1)

# What belongs together is shown in one row, at the strengths of `strong`.
ROWS: dict[str, tuple[str, ...]] = {
    "random_flip": ("random_flip",),
    "rotation_degrees": ("rotation_degrees",),
    "scale, shift": ("scale", "shift"),
    "brightness, contrast": ("brightness", "contrast"),
    "saturation, hue": ("saturation", "hue"),
    "grey": ("grey",),
    "blur": ("blur",),
    "downscale": ("downscale",),
    "jpeg": ("jpeg",),
    "cutout": ("cutout",),
}


def test_card() -> np.ndarray:
    """Return a picture with edges, gradients, colours, skin's among them, and a left and a right."""
    scale = 4
    side = SIDE * scale
    card = Image.fromarray(np.linspace((70, 90, 130), (200, 205, 190), side).astype(np.uint8)[:, None])
    card = card.resize((side, side))
    draw = ImageDraw.Draw(card)
    draw.ellipse([0.22 * side, 0.08 * side, 0.78 * side, 0.92 * side], fill=(224, 172, 138))
    for number in range(12):
        left = (0.27 + 0.039 * number) * side
        draw.rectangle([left, 0.3 * side, left + 0.02 * side, 0.42 * side], fill=(60, 40, 35))
    colours = [(200, 40, 40), (230, 180, 40), (60, 150, 60), (40, 150, 170), (50, 70, 180), (150, 50, 140)]
    for number, colour in enumerate(colours):
        left = (0.3 + 0.067 * number) * side
        draw.rectangle([left, 0.66 * side, left + 0.067 * side, 0.74 * side], fill=colour)
    nose = [(0.5 * side, 0.45 * side), (0.6 * side, 0.6 * side), (0.5 * side, 0.6 * side)]
    draw.polygon(nose, fill="white")
    draw.rectangle([0.04 * side, 0.04 * side, 0.14 * side, 0.14 * side], fill="black")
    return np.asarray(card.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def rows() -> dict[str, Augmentation]:
    """Return what is shown, by name."""
    strong: dict[str, Any] = AUGMENTATIONS["strong"]
    singly = {label: Augmentation(**{name: strong[name] for name in names}) for label, names in ROWS.items()}
    return singly | {f"--augment {name}": Augmentation(**one) for name, one in AUGMENTATIONS.items()}


def main(folder: Path = IMAGES) -> None:
    """Draw the picture."""
    cards = np.repeat(test_card()[None], N_DRAWS, axis=0)
    shown = {label: np.asarray(augment(cards, strengths, SEED)) for label, strengths in rows().items()}
    figure = Figure(figsize=(9.2, 0.92 * len(shown)), dpi=100)
    FigureCanvasAgg(figure)
    for number, (label, images) in enumerate(shown.items()):
        axes = figure.add_axes((0.18, 1 - (number + 1) / len(shown), 0.82, 0.96 / len(shown)))
        framed = np.pad(images, [(0, 0), (0, 0), (2, 2), (0, 0)], constant_values=255) / 255
        axes.imshow(np.concatenate(list(framed), axis=1))
        axes.set_axis_off()
        axes.text(-0.01, 0.5, label, transform=axes.transAxes, ha="right", va="center", fontsize=9)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    Image.open(drawn).convert("RGB").save(folder / "augmentation.jpg", quality=QUALITY)


if __name__ == "__main__":
    main()
