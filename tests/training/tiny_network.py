"""A network of the user's own: what `--backbone tiny_network:features` imports."""

import keras


def features(images):
    x = keras.layers.Conv2D(4, 3, strides=2)(images)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    return keras.layers.AveragePooling2D(2)(x)
