"""Train on the ORL faces for some seconds, and run the network in every program it can be written for."""

from pathlib import Path

import keras
import numpy as np
import onnxruntime
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import facenet_fast.backbones.head  # noqa: F401 - has the layer that ends our networks, for Keras
from facenet_fast.config import FreezeConfig, TrainConfig
from facenet_fast.data.identities import fetch_orl_dir
from facenet_fast.data.images import decode_square, standardise
from facenet_fast.export import freeze
from facenet_fast.training.loop import train

run = train(TrainConfig(epochs=1, epoch_size=10, image_size=40, random_crop=False, baselines=False)).run_dir
for name in ("faces.pb", "faces", "faces.onnx", "faces.tflite", "faces.keras"):
    freeze(FreezeConfig(run, name))
face = decode_square(f"{fetch_orl_dir()}/s1/1.pgm", 40)
images = standardise(face[None], "per_image")  # float32 (1, 40, 40, 3)
found = {}

# A frozen graph, as scripts of the predecessor run it.
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString(Path("faces.pb").read_bytes())
    tf.import_graph_def(graph, name="")
    found["frozen graph"] = session.run("embeddings:0", {"input:0": images, "phase_train:0": False})

# A SavedModel: standardised images, or whole files.
model = tf.saved_model.load("faces")
serve = model.signatures["serving_default"]
found["SavedModel"] = serve(images=tf.constant(images))["embeddings"].numpy()
serve = model.signatures["serve_encoded"]
found["SavedModel, PNG"] = serve(image_bytes=tf.stack([tf.io.encode_png(face)]))["embeddings"].numpy()

# ONNX.
session = onnxruntime.InferenceSession("faces.onnx")
found["ONNX"] = session.run(["embeddings"], {"images": images})[0]

# TFLite.
runner = Interpreter("faces.tflite").get_signature_runner("serving_default")
found["TFLite"] = runner(images=images)["embeddings"]

# Keras.
found["Keras"] = keras.saving.load_model("faces.keras")(images, training=False).numpy()

for name, embeddings in found.items():
    difference = np.abs(embeddings - found["frozen graph"]).max()
    print(f"{name}: {embeddings.shape}, differs by {difference:.1e}")
    assert difference < 0.01
