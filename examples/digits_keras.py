"""Train an embedding of hand-written digits with `model.fit`, and compare it with pixels (seconds)."""

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from facenet_fast import nearest_neighbors
from facenet_fast.data import balanced_batches
from facenet_fast.losses import BatchAllTripletLoss
from facenet_fast.metrics import RecallAtK


def judge(embeddings: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Give recall@1, and the AUC over all pairs: how well one distance tells same from different."""
    nearest = nearest_neighbors(embeddings, k=1).indices[:, 0]
    left, right = np.triu_indices(len(labels), 1)
    distances = np.square(embeddings[left] - embeddings[right]).sum(axis=1)
    recall, auc = (labels[nearest] == labels).mean(), roc_auc_score(labels[left] == labels[right], -distances)
    return float(recall), float(auc)


def main(epochs: int = 15) -> tuple[float, float]:
    """Train, and judge pixels and the network on the digits held out."""
    keras.utils.set_random_seed(0)
    images, labels = load_digits(return_X_y=True)
    # The last third is held out; it is not shuffled, since neighbors in the file look alike.
    x, x_held = np.split(images.reshape(-1, 8, 8, 1) / 16, [1200])
    y, y_held = np.split(labels, [1200])

    batches = balanced_batches(x, y, identities=10, images=8)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.RandomTranslation(0.1, 0.1, fill_mode="constant"),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.Conv2D(64, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(32),
            keras.layers.UnitNormalization(),
        ]
    )
    adam = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, epochs * len(batches)))
    # On a GPU Keras compiles with XLA unless told not to, and RecallAtK does not go with it.
    model.compile(adam, BatchAllTripletLoss(margin=0.2), metrics=[RecallAtK(1)], jit_compile=False)
    model.fit(batches, epochs=epochs, shuffle=False, validation_data=(x_held, y_held), verbose=2)

    pixels, embeddings = x_held.reshape(len(x_held), -1), model.predict(x_held, verbose=0)
    for name, rows in {"pixels": pixels, "network": embeddings}.items():
        recall, auc = judge(rows, y_held)
        print(f"digits held out, {name}: recall@1 {recall:.3f}, AUC {auc:.3f}")
    return recall, auc


if __name__ == "__main__":
    recall, auc = main()
    assert recall > 0.97, recall
    assert auc > 0.99, auc
