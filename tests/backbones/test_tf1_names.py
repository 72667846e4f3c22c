"""The predecessor's Inception-ResNet-v1, read by its variables' names, gives the predecessor's embeddings."""

from __future__ import annotations

import functools
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import slim_inception_resnet_v1
import tensorflow as tf

from facenet_fast import backbones
from facenet_fast.backbones.tf1_names import weight_names, weights_by_name
from facenet_fast.cli import main
from facenet_fast.errors import UserError
from facenet_fast.models import tf1_weights
from facenet_fast.models.tf1_weights import is_tf1, load_tf1_model
from facenet_fast.training import loop
from tests.tiny_run import make_faces

tf1 = tf.compat.v1

# Float32 sums in another order differ by 3e-8; any two neighbouring weights of one shape exchanged, by 1e-3.
TOLERANCE = 1e-5


@functools.cache
def built(name, image_size, embedding_size):
    return backbones.build(name, image_size, embedding_size)


@pytest.fixture(autouse=True)
def few_builds(request, monkeypatch):
    """One network for all tests, as building takes seconds: each fills all of it."""

    class Backbones:
        build = staticmethod(built)

    if not request.node.get_closest_marker("large"):
        monkeypatch.setattr(tf1_weights, "backbones", Backbones)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tf1")
    yield slim_inception_resnet_v1.store(folder)
    shutil.rmtree(folder)  # 200 MB


@pytest.fixture(scope="module")
def network():
    """Ours, for the smallest images."""
    built("inception_resnet_v1", 160, 128)  # so that the layers' names have other numbers
    return built("inception_resnet_v1", 75, 128)


# The network


def test_every_weight_has_one_name(network):
    named = weights_by_name(network)
    assert list(named) == weight_names()
    assert len(set(weight_names())) == len(network.weights) == 490
    assert {id(weight) for weight in named.values()} == {id(weight) for weight in network.weights}


@pytest.mark.parametrize(("source", "not_used"), [("folder", ["centers"]), ("graph", [])])
def test_embeddings_are_the_predecessors(stored, network, source, not_used):
    model, other = load_tf1_model(str(getattr(stored, source)))
    assert other == not_used
    for weight in network.weights:
        weight.assign(tf.zeros(weight.shape))
    network.set_weights(model.get_weights())
    assert np.abs(stored.embeddings[0] - stored.embeddings[1]).max() > 0.01
    np.testing.assert_allclose(network(stored.images), stored.embeddings, atol=TOLERANCE)


def test_embeddings_tell_two_names_that_are_exchanged(stored, network):
    network.set_weights(load_tf1_model(str(stored.graph))[0].get_weights())
    named = weights_by_name(network)
    for one, other in (
        ("Conv2d_1a_3x3/BatchNorm/beta", "Conv2d_1a_3x3/BatchNorm/moving_mean"),
        (
            "Repeat/block35_1/Branch_1/Conv2d_0b_3x3/weights",
            "Repeat/block35_1/Branch_2/Conv2d_0b_3x3/weights",
        ),
        ("Repeat/block35_2/Conv2d_1x1/biases", "Repeat/block35_3/Conv2d_1x1/biases"),
        ("Mixed_7a/Branch_0/Conv2d_0a_1x1/weights", "Mixed_7a/Branch_1/Conv2d_0a_1x1/weights"),
        ("Repeat_2/block8_5/Branch_1/Conv2d_0c_3x1/weights", "Block8/Branch_1/Conv2d_0c_3x1/weights"),
    ):
        weights = [named[f"InceptionResnetV1/{name}"] for name in (one, other)]
        values = [weight.numpy() for weight in weights]
        weights[0].assign(values[1])
        weights[1].assign(values[0])
        assert np.abs(np.asarray(network(stored.images)) - stored.embeddings).max() > 10 * TOLERANCE, one
        weights[0].assign(values[0])
        weights[1].assign(values[1])


# What is found, and what is refused


def write_graph(path, changes=()):
    """Write a frozen graph of zeros with all names and shapes, some of them changed, None of them gone."""
    named = weights_by_name(built("inception_resnet_v1", 160, 128))
    shapes = {name: tuple(weight.shape) for name, weight in named.items()} | dict(changes)
    graph = tf1.GraphDef()
    for name, shape in shapes.items():
        if shape is not None:
            node = graph.node.add(name=name, op="Const")
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(0.5, tf.float32, shape))
    path.write_bytes(graph.SerializeToString())
    return str(path)


def write_checkpoint(prefix, *names, version):
    with tf.Graph().as_default(), tf1.Session() as session:
        for name in names:
            tf1.get_variable(name, [2], use_resource=False)
        session.run(tf1.global_variables_initializer())
        saver = tf1.train.Saver(write_version=version)
        saver.save(session, str(prefix), write_meta_graph=False)


HEAD = "InceptionResnetV1/Bottleneck"


def test_a_bottleneck_outside_of_the_networks_scope_and_of_another_size(tmp_path):
    head = [name for name in weight_names() if name.startswith(HEAD)]
    outside = {"Bottleneck/weights": (1792, 1)}
    outside |= {f"Bottleneck/BatchNorm/{name}": (1,) for name in ("beta", "moving_mean", "moving_variance")}
    path = write_graph(tmp_path / "old.pb", dict.fromkeys(head) | outside)
    model, not_used = load_tf1_model(path)
    assert (model.output_shape, not_used) == ((None, 1), [])
    assert float(model.get_layer("bottleneck").kernel[5, 0]) == 0.5


def test_what_is_restored_new_and_not_used_is_said(tmp_path):
    gammas = {f"InceptionResnetV1/{n}/BatchNorm/gamma": (3,) for n in range(7)}
    others = {"Logits/weights": (128, 10), "InceptionResnetV1/Block8/mul/x": (2,)}  # the latter no variable
    path = write_graph(tmp_path / "model.pb", gammas | others)
    model = built("inception_resnet_v1", 160, 1)
    assert loop._start_from(path, model) == (
        f"Restored 486 of 490 weights of {path}; new: bottleneck/kernel, bottleneck_batch_norm/beta, "
        "bottleneck_batch_norm/moving_mean, bottleneck_batch_norm/moving_variance; 7 not used: "
        + "".join(f"{name}, " for name in list(gammas)[:5])
        + "..."
    )
    assert {float(weight.numpy().max()) for weight in model.weights[:-4]} == {0.5}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"InceptionResnetV1/Block8/Conv2d_1x1/biases": None},
            r"of its 490 variables it has 489, not \S+biases;",
        ),
        (
            {"InceptionResnetV1/Mixed_6a/Branch_1/Conv2d_0b_3x3/weights": (3, 3, 192, 200)},
            r"Branch_1/Conv2d_0b_3x3/weights must have the shape \(3, 3, 192, 192\), got \(3, 3, 192, 200\)",
        ),
        ({f"{HEAD}/weights": ()}, r"Bottleneck/weights must have the shape \(1792, 1\), got \(\)"),
        ({f"{HEAD}/BatchNorm/beta": (64,)}, r"beta must have the shape \(128,\), got \(64,\)"),
    ],
)
def test_a_network_that_differs(tmp_path, changes, message):
    path = write_graph(tmp_path / "model.pb", changes)
    with pytest.raises(UserError, match=f"^'{re.escape(path)}' must hold the predecessor's Inc.*{message}"):
        load_tf1_model(path)


def test_a_damaged_graph(tmp_path):
    path = tmp_path / "model.pb"
    with pytest.raises(UserError, match=r"model\.pb' cannot be read: No such file"):
        load_tf1_model(str(path))
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"of its 490 variables it has 0, .*; it holds no variables$"):
        load_tf1_model(str(path))
    path.write_bytes(b"no graph")
    with pytest.raises(UserError, match="must be a frozen graph; it is cut short or something else"):
        load_tf1_model(str(path))


def test_a_damaged_checkpoint(tmp_path, stored):
    with pytest.raises(UserError, match=r"must hold a checkpoint \(model-\*\.ckpt-STEP\.index\); found none"):
        load_tf1_model(str(tmp_path))
    with pytest.raises(UserError, match=r"the metagraph .*model-1\.meta' must exist; it does not"):
        load_tf1_model(str(tmp_path / "nowhere" / "model-1.meta"))
    prefix = tmp_path / stored.prefix.name
    (meta,) = stored.folder.glob("*.meta")
    shutil.copy(meta, tmp_path)
    index = Path(f"{stored.prefix}.index").read_bytes()
    Path(f"{prefix}.index").write_bytes(index)  # without its data
    with pytest.raises(UserError, match=f"{prefix.name}'? cannot be read: "):
        load_tf1_model(str(prefix))
    Path(f"{prefix}.index").write_bytes(index[: len(index) // 2])
    with pytest.raises(UserError, match=f"the checkpoint .*{prefix.name}' cannot be read: "):
        load_tf1_model(str(prefix))


@pytest.mark.parametrize("version", [tf1.train.SaverDef.V1, tf1.train.SaverDef.V2])
def test_a_checkpoint_of_another_network(tmp_path, version):
    first = "InceptionResnetV1/Conv2d_1a_3x3/weights"
    write_checkpoint(tmp_path / "model-a.ckpt-3", first, "other", version=version)
    (tmp_path / "model-a.meta").touch()
    with pytest.raises(
        UserError, match=rf"490 variables it has 1, not {weight_names()[1]}; it holds .*other$"
    ):
        load_tf1_model(str(tmp_path / "model-a.ckpt-3"))


def test_whose_weights_they_are(tmp_path):
    run, theirs = tmp_path / "run[1]", tmp_path / "theirs[1]"
    for folder in run, theirs:
        folder.mkdir()
        (folder / "model-1.ckpt-2.index").touch()
    assert not is_tf1(str(theirs))
    for folder in run, theirs:
        (folder / "model-1.meta").touch()
    (run / "config.json").touch()
    assert [is_tf1(str(one)) for one in (theirs, theirs / "model-1.ckpt-2", theirs / "model-1.meta")] == [
        True
    ] * 3
    assert [is_tf1(str(one)) for one in (run, run / "model-1.ckpt-2", tmp_path / "x")] == [False] * 3


# Training from them


@pytest.mark.large
def test_training_starts_from_them(stored, tmp_path, capsys):
    make_faces(tmp_path / "faces")
    words = f"--data-dir {tmp_path / 'faces'} --runs-dir {tmp_path / 'runs'} --n-held-out 2 --no-baselines"
    words += f" --pretrained-model {stored.folder} --backbone inception_resnet_v1 --embedding-size 64"
    words += " --image-size 80 --epochs 1 --epoch-size 1 --moving-average-decay 0"
    words += " --identities-per-batch 3 --images-per-identity 2 --margin 5"
    assert main(["train", *words.split()]) == 0
    assert (
        f"Restored 486 of 490 weights of {stored.folder}; new: bottleneck/kernel, "
        "bottleneck_batch_norm/beta, bottleneck_batch_norm/moving_mean, "
        "bottleneck_batch_norm/moving_variance; 1 not used: centers\n"
    ) in capsys.readouterr().out
