from __future__ import annotations

import functools
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from facenet_fast.errors import UserError
from facenet_fast.models.graphs import METADATA_ATTRIBUTE, inference_graph, read_frozen_graph
from facenet_fast.models.metadata import Metadata
from facenet_fast.models.tf1_checkpoints import is_tf1_checkpoint, read_tf1_checkpoint
from tests.tf1_models import EMBEDDING_SIZE, IMAGE_SIZE, control_flow_of_tf1, write_tf1_model

tf1 = tf.compat.v1

VARIANTS = {
    "references": {},
    "resources": {"resource": True},
    "queue": {"feed": "queue"},
    "queue_of_4": {"feed": "queue", "batch_size": 4, "resource": True, "phase": "default"},
    "queue_without_input": {"feed": "queue", "with_input": False, "phase": "default"},
    "image_batch_alone": {"with_input": False, "phase": "absent"},
    "batches_of_4": {"batch_size": 4, "resource": True, "phase": "absent"},
    "reshape_to_4": {"feed": "queue", "reshape_to": 4},
}
TAKES_4 = {name for name, settings in VARIANTS.items() if {"batch_size", "reshape_to"} & settings.keys()}


@pytest.fixture(scope="module")
def model_of(tmp_path_factory):
    models = {}

    def model_of(variant):
        if variant not in models:
            folder = tmp_path_factory.mktemp("tf1") / "20170512-110547"
            models[variant] = write_tf1_model(folder, **VARIANTS[variant])
        return models[variant]

    return model_of


@pytest.fixture(scope="module")
def model(model_of):
    return model_of("references")


@pytest.fixture
def copied(model, tmp_path):
    return shutil.copytree(model.folder, tmp_path / model.folder.name)


def batch_of(n_images):
    shape = (n_images, IMAGE_SIZE, IMAGE_SIZE, 3)
    return np.random.default_rng(n_images).normal(size=shape).astype(np.float32)


def stem_of(model):
    return f"model-{model.folder.name}"


def metagraph_of(model):
    metagraph = tf1.MetaGraphDef()
    metagraph.ParseFromString((model.folder / f"{stem_of(model)}.meta").read_bytes())
    return metagraph


@functools.cache
def read(model, kind):
    if kind == "frozen":
        return read_frozen_graph(str(model.frozen_path))
    return read_tf1_checkpoint(str(model.folder))


@pytest.mark.parametrize("kind", ["checkpoint", "frozen"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_embeddings_are_those_of_the_original(variant, kind, model_of):
    model = model_of(variant)
    network = read(model, kind)
    assert (network.embedder.image_size, network.embedder.embedding_size) == (IMAGE_SIZE, EMBEDDING_SIZE)
    assert network.metadata is None
    for n_images in (1, 3, 7):
        batch = batch_of(n_images)
        # An original for batches of 4 gets two of them.
        fed = np.concatenate([batch, batch_of(8 - n_images)]) if variant in TAKES_4 else batch
        rows = [model.embed(fed[start : start + 4]) for start in range(0, len(fed), 4)]
        np.testing.assert_allclose(
            network.embedder.embed(batch), np.concatenate(rows)[:n_images], rtol=0, atol=1e-6
        )


@pytest.mark.parametrize("kind", ["checkpoint", "frozen"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_inference_graph_holds_the_network_alone(variant, kind, model_of):
    graph = read(model_of(variant), kind).graph
    assert [node.name for node in graph.node if "Placeholder" in node.op] == ["image_batch"]
    (entry,) = [node for node in graph.node if "image_batch" in node.input]
    assert (entry.name, entry.op) == ("input", "Identity")
    assert graph.node[0].attr["dtype"].type == tf.float32.as_datatype_enum
    assert [one.size for one in graph.node[0].attr["shape"].shape.dim][1:] == [IMAGE_SIZE, IMAGE_SIZE, 3]
    known = {"Placeholder", "Identity", "Const", "Conv2D", "Sub", "Mul", "AddV2", "Rsqrt", "Relu", "Reshape"}
    known |= {"FusedBatchNormV3", "Mean", "MatMul", "Square", "Sum", "Maximum", "StridedSlice"}
    assert {node.op for node in graph.node} <= known
    for node in graph.node:
        assert not any(name.startswith("^") for name in node.input)
        assert not node.device
        assert not {"_class", "_output_shapes"} & set(node.attr)
    with tf.Graph().as_default():
        tf.graph_util.import_graph_def(graph, name="")


@pytest.mark.parametrize(("variant", "kind"), [("references", "frozen"), ("queue", "checkpoint")])
def test_onnx_takes_the_inference_graph(variant, kind, model_of):
    convert = pytest.importorskip("tf2onnx.convert", reason="tf2onnx is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    model = model_of(variant)
    onnx, _ = convert.from_graph_def(
        read(model, kind).graph, input_names=["input:0"], output_names=["embeddings:0"]
    )
    session = onnxruntime.InferenceSession(onnx.SerializeToString(), providers=["CPUExecutionProvider"])
    (rows,) = session.run(None, {"input:0": batch_of(3)})
    np.testing.assert_allclose(rows, model.embed(batch_of(3)), atol=1e-5)


@pytest.mark.parametrize(("variant", "kind"), [("references", "checkpoint"), ("queue", "frozen")])
def test_opencv_takes_the_inference_graph(variant, kind, model_of):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    model = model_of(variant)
    net = cv2.dnn.readNetFromTensorflow(np.frombuffer(read(model, kind).graph.SerializeToString(), np.uint8))
    net.setInput(batch_of(1).transpose(0, 3, 1, 2).copy())
    np.testing.assert_allclose(net.forward("embeddings"), model.embed(batch_of(1)), atol=1e-5)


# What stands for a checkpoint.


def test_folder_prefix_and_files_stand_for_a_checkpoint(model):
    expected = model.embed(batch_of(2))
    meta = model.folder / f"{stem_of(model)}.meta"
    for path in (model.folder, model.prefix, f"{model.prefix}.index", meta):
        assert is_tf1_checkpoint(str(path))
        embedder = read_tf1_checkpoint(str(path)).embedder
        assert embedder.description == f"the TensorFlow 1 checkpoint {model.prefix}"
        np.testing.assert_allclose(embedder.embed(batch_of(2)), expected, atol=1e-6)


def test_what_is_no_checkpoint_of_tensorflow_1(model, copied, tmp_path):
    (tmp_path / "empty").mkdir()
    assert not is_tf1_checkpoint(str(tmp_path / "empty"))
    assert not is_tf1_checkpoint(str(tmp_path / "empty" / "model.ckpt-3"))
    assert not is_tf1_checkpoint(str(tmp_path / "missing"))
    assert not is_tf1_checkpoint(str(model.frozen_path))
    (copied / "config.json").write_text("{}")
    assert not is_tf1_checkpoint(str(copied))
    assert not is_tf1_checkpoint(str(copied / f"{stem_of(model)}.ckpt-7"))


def test_newest_checkpoint_of_a_folder_is_read(model, copied):
    (copied / "checkpoint").unlink()
    files = list(copied.glob("*.ckpt-7.*"))
    for file in files:
        shutil.copy(file, copied / file.name.replace("-7.", "-12."))
    assert read_tf1_checkpoint(str(copied)).embedder.description.endswith(".ckpt-12")
    # A prefix chooses another; the folder's newest is not looked at.
    (copied / f"{stem_of(model)}.ckpt-12.index").write_bytes(b"noise")
    read_tf1_checkpoint(str(copied / f"{stem_of(model)}.ckpt-7"))


def test_a_prefix_chooses_among_metagraphs(model, copied):
    (copied / "model-other.meta").write_bytes(b"noise")
    with pytest.raises(
        UserError, match=r"one metagraph .* found model-20170512-110547.meta, model-other.meta"
    ):
        read_tf1_checkpoint(str(copied))
    prefix = copied / f"{stem_of(model)}.ckpt-7"
    meta = copied / f"{stem_of(model)}.meta"
    for path in (prefix, meta):
        assert read_tf1_checkpoint(str(path)).embedder.embedding_size == EMBEDDING_SIZE
    # TensorFlow itself writes a metagraph for each checkpoint.
    meta.rename(f"{prefix}.meta")
    for path in (prefix, f"{prefix}.meta"):
        assert read_tf1_checkpoint(str(path)).embedder.embedding_size == EMBEDDING_SIZE
    # That of another checkpoint is not taken for lack of a better one.
    (copied / f"{stem_of(model)}.ckpt-7.meta").rename(copied / "model-third.meta")
    for path in (prefix, copied / "model-third.meta"):
        with pytest.raises(UserError, match=r"found model-other.meta, model-third.meta"):
            read_tf1_checkpoint(str(path))


@pytest.mark.parametrize("part", ["folder", "prefix", "meta"])
def test_checkpoints_of_the_first_format_are_read(part, model, tmp_path):
    meta = shutil.copy(model.folder / f"{stem_of(model)}.meta", tmp_path)
    reader = tf.train.load_checkpoint(model.prefix)
    with tf.Graph().as_default(), tf1.Session() as session:
        for name in reader.get_variable_to_shape_map():
            tf1.get_variable(name, initializer=reader.get_tensor(name), use_resource=False)
        session.run(tf1.global_variables_initializer())
        saver = tf1.train.Saver(write_version=tf1.train.SaverDef.V1)
        prefix = saver.save(
            session, str(tmp_path / f"{stem_of(model)}.ckpt"), global_step=9, write_meta_graph=False
        )
    assert not list(tmp_path.glob("*.index"))
    (tmp_path / f"{stem_of(model)}.ckpt-8").write_bytes(b"an older one")
    path = {"folder": str(tmp_path), "prefix": prefix, "meta": meta}[part]
    assert is_tf1_checkpoint(path)
    np.testing.assert_allclose(
        read_tf1_checkpoint(path).embedder.embed(batch_of(2)), model.embed(batch_of(2)), atol=1e-6
    )


def test_operations_that_go_need_not_be_known(model_of, copied):
    model = model_of("queue")
    metagraph = metagraph_of(model)
    kept = {node.name for node in read(model, "checkpoint").graph.node} - {"input", "image_batch"}
    for node in metagraph.graph_def.node:
        if node.name not in kept | {"image_batch", "input", "phase_train"} and not re.search(
            "Switch|Merge|pred_id|switch_", node.name
        ):
            node.op = "FromContrib"
    (copied / f"{stem_of(model)}.meta").write_bytes(metagraph.SerializeToString())
    embedder = read_tf1_checkpoint(str(copied), image_size=IMAGE_SIZE).embedder
    np.testing.assert_allclose(embedder.embed(batch_of(3)), model.embed(batch_of(3)), atol=1e-6)


def test_plain_weights_are_taken_where_averages_were_saved_too(model, copied):
    reader = tf.train.load_checkpoint(model.prefix)
    with tf.Graph().as_default(), tf1.Session() as session:
        for name in reader.get_variable_to_shape_map():
            value = reader.get_tensor(name)
            tf1.get_variable(name, initializer=value, use_resource=False)
            tf1.get_variable(f"{name}/ExponentialMovingAverage", initializer=value * 0, use_resource=False)
        session.run(tf1.global_variables_initializer())
        path = str(copied / f"{stem_of(model)}.ckpt")
        tf1.train.Saver().save(session, path, global_step=8, write_meta_graph=False)
    embedder = read_tf1_checkpoint(str(copied)).embedder
    assert embedder.description.endswith("ckpt-8")
    np.testing.assert_allclose(embedder.embed(batch_of(3)), model.embed(batch_of(3)), atol=1e-6)


def write_metagraph(folder, change):
    (path,) = folder.glob("*.meta")
    metagraph = tf1.MetaGraphDef()
    metagraph.ParseFromString(path.read_bytes())
    change(metagraph.graph_def)
    path.write_bytes(metagraph.SerializeToString())


def rename(old, new):
    def change(graph):
        for node in graph.node:
            if node.name == old:
                node.name = new
            node.input[:] = [new if name == old else name for name in node.input]

    return lambda folder: write_metagraph(folder, change)


def reshape_bottleneck(folder):
    def change(graph):
        (node,) = [node for node in graph.node if node.name == "Net/bottleneck/weights"]
        node.attr["shape"].shape.dim[1].size = 9

    write_metagraph(folder, change)


def overwrite(pattern, data):
    def damage(folder):
        (path,) = folder.glob(pattern)
        path.write_bytes(data)

    return damage


def remove(pattern):
    def damage(folder):
        for path in folder.glob(pattern):
            path.unlink()

    return damage


def cut_short(folder):
    (path,) = folder.glob("*.meta")
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (overwrite("*.meta", bytes(range(255, 0, -1))), r"must be a metagraph; it is cut short or something"),
        (cut_short, r"must be a metagraph; it is cut short or something else"),
        (overwrite("*.meta", b""), r"'embeddings' to fetch; it has 0 operations$"),
        (remove("*.meta"), r"must hold one metagraph \(\*.meta\) .*; found none"),
        (remove("*.data-*"), r"the checkpoint '.*ckpt-7' cannot be read: "),
        (overwrite("*.data-*", b"short"), r"the checkpoint '.*ckpt-7' cannot be read: "),
        (overwrite("*.index", b"noise"), r"the checkpoint '.*ckpt-7' cannot be read: "),
        (remove("*.index"), r"must hold a checkpoint"),
        (
            rename("Net/conv2/weights", "Net/conv9/weights"),
            r"must hold the 9 variables of '.*meta'; it lacks 1: Net/conv9/weights$",
        ),
        (reshape_bottleneck, r"Net/bottleneck/weights must have the shape \(6, 9\), got \(6, 5\)"),
        (
            rename("embeddings", "rows"),
            r"it has \d+ operations, among them phase_train, image_batch, label_batch, learning_rate, ",
        ),
    ],
)
def test_damaged_checkpoints_are_refused_in_one_line(damage, message, copied):
    damage(copied)
    with pytest.raises(UserError, match=message) as caught:
        read_tf1_checkpoint(str(copied))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing", "model-x.ckpt-9", "model-x.meta"])
def test_checkpoints_that_are_not_there_are_refused(name, copied):
    with pytest.raises(UserError, match=name) as caught:
        read_tf1_checkpoint(str(copied / name))
    assert "\n" not in str(caught.value)


# What a graph may hold, case by case.


def graph_of(build, shape=(None, 4, 4, 3), dtype=tf.float32):
    """Let `build` make embeddings of images and a phase; return the graph and how the original runs."""
    with control_flow_of_tf1(), tf.Graph().as_default() as graph:
        images = tf.identity(tf1.placeholder(dtype, shape, name="image_batch"), name="input")
        phase = tf1.placeholder(tf.bool, (), name="phase_train")
        tf.identity(build(images, phase), name="embeddings")

    def run(images):
        with tf1.Session(graph=graph) as session:
            return session.run("embeddings:0", {"image_batch:0": images, "phase_train:0": False})

    return graph.as_graph_def(), run


def means(images):
    return tf.reduce_mean(images, (1, 2))


def nested(images, phase):
    def inner():
        return tf1.cond(tf.logical_not(phase), lambda: means(images) * 2.0, lambda: means(images) * 3.0)

    return tf1.cond(phase, lambda: means(images) * 5.0, inner)


def constants_in_branches(images, phase):
    # Only control inputs tell which of the two constants is alive.
    return means(images) * tf1.cond(phase, lambda: tf.constant(3.0), lambda: tf.constant(7.0))


def combined_predicate(images, phase):
    predicate = tf.logical_or(tf.equal(phase, True), tf.reduce_any(tf.stack([phase, phase])))
    return tf1.cond(predicate, lambda: means(images) * 2.0, lambda: means(images) * 4.0)


def phase_as_number(images, phase):
    return means(images) + 100.0 * tf.cast(phase, tf.float32)


def both_names(images, phase):
    n_images = tf.shape(tf1.get_default_graph().get_tensor_by_name("image_batch:0"))[0]
    return tf.reshape(means(images), (n_images, 3))


def branch_and_after(images, phase):
    # What follows a branch that is alive, and a branch that two use.
    x = tf1.cond(phase, lambda: images * 9.0, lambda: images + 1.0)
    y = tf1.cond(phase, lambda: x * 9.0, lambda: x + images)
    return means(x) + means(y)


def number_with_default(images, phase):
    return means(images) * tf1.placeholder_with_default(2.0, (), name="scale")


def check_beside(images, phase):
    # A check of the images that something waits for branches on them, and goes.
    with tf1.control_dependencies([tf1.Assert(tf.reduce_all(images < 1e9), [images])]):
        return tf.identity(means(images))


@pytest.mark.parametrize(
    "build",
    [
        nested,
        constants_in_branches,
        combined_predicate,
        phase_as_number,
        both_names,
        branch_and_after,
        number_with_default,
        check_beside,
    ],
)
def test_what_is_kept_computes_what_the_original_computes(build, tmp_path):
    graph, run = graph_of(build)
    (tmp_path / "graph.pb").write_bytes(graph.SerializeToString())
    network = read_frozen_graph(str(tmp_path / "graph.pb"))
    names = [node.name for node in network.graph.node]
    assert len(set(names)) == len(names)
    assert "phase_train" not in names
    assert [node.name for node in network.graph.node if "Placeholder" in node.op] == ["image_batch"]
    assert not {"Switch", "Merge", "Assert"} & {node.op for node in network.graph.node}
    batch = np.random.default_rng(0).normal(size=(3, 4, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(network.embedder.embed(batch), run(batch), atol=1e-6)


def test_devices_are_forgotten():
    graph, _ = graph_of(lambda images, phase: means(images))
    for node in graph.node:
        node.device = "/job:worker/device:GPU:3"
    assert not any(node.device for node in inference_graph(graph, "the graph").node)


def test_record_of_the_placeholder_is_kept(tmp_path):
    graph, _ = graph_of(lambda images, phase: means(images))
    record = Metadata(4, 4, "fixed", 3, "model.ckpt-1").to_json().encode()
    (placeholder,) = [node for node in graph.node if node.name == "image_batch"]
    placeholder.attr[METADATA_ATTRIBUTE].s = record
    (tmp_path / "graph.pb").write_bytes(graph.SerializeToString())
    network = read_frozen_graph(str(tmp_path / "graph.pb"))
    assert network.embedder.standardisation == "fixed"
    assert network.graph.node[0].attr[METADATA_ATTRIBUTE].s == record


def test_size_asked_for_becomes_that_of_a_placeholder_that_says_none(tmp_path):
    graph, _ = graph_of(lambda images, phase: means(images), shape=None)
    (tmp_path / "graph.pb").write_bytes(graph.SerializeToString())
    for asked, side in ((8, 8), (None, 160)):
        network = read_frozen_graph(str(tmp_path / "graph.pb"), asked)
        assert network.embedder.image_size == side
        dimensions = network.graph.node[0].attr["shape"].shape.dim
        assert [dimension.size for dimension in dimensions] == [-1, side, side, 3]


def branch_on_images(images, phase):
    return tf1.cond(tf.reduce_all(images > 0), lambda: means(images), lambda: -means(images))


def loop(images, phase):
    return tf1.while_loop(lambda x: tf.reduce_all(x < 1), lambda x: x + 1.0, [means(images)])


def another_placeholder(images, phase):
    return means(images) * tf1.placeholder(tf.float32, (), name="keep_probability")


def only_when_training(images, phase):
    kept, _ = tf.raw_ops.Switch(data=means(images), pred=tf.logical_not(phase))
    return kept


def of_no_image(images, phase):
    return tf.zeros((1, 3))


def for_two_images(images, phase):
    return means(images) + tf.gather(means(images), [1])  # no shape shows that there must be a second one


def of_a_map(images, phase):
    return means(images)[:, :, None]


def two_images_each(images, phase):
    inner = tf1.get_default_graph().get_tensor_by_name("image_batch:0")
    return means(inner) + means(images)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (branch_on_images, r"must branch on 'phase_train' alone; what cond/.* does depends on more"),
        (loop, r"must have no loops; it has one through 'while/"),
        (another_placeholder, r"compute embeddings from images alone; it needs keep_probability too"),
        (only_when_training, r"must compute embeddings when 'phase_train' is False; it does not"),
        (of_no_image, r"must compute embeddings from images; it uses none"),
        (for_two_images, r"cannot embed a 4 x 4 image: "),
        (of_a_map, r"must give embeddings \(n, D\); .* gives \(1, 3, 1\) for 1 image"),
    ],
)
def test_graphs_that_are_no_network_of_images_are_refused_in_one_line(build, message, tmp_path):
    graph, _ = graph_of(build)
    (tmp_path / "graph.pb").write_bytes(graph.SerializeToString())
    with pytest.raises(UserError, match=message) as caught:
        read_frozen_graph(str(tmp_path / "graph.pb"))
    assert "\n" not in str(caught.value)


def test_graph_of_bytes_is_refused(tmp_path):
    graph, _ = graph_of(lambda images, phase: means(tf.cast(images, tf.float32)), dtype=tf.uint8)
    (tmp_path / "graph.pb").write_bytes(graph.SerializeToString())
    with pytest.raises(UserError, match="must take float32 images; it takes uint8"):
        read_frozen_graph(str(tmp_path / "graph.pb"))


def test_input_and_image_batch_that_differ_cannot_both_be_fed():
    graph, _ = graph_of(two_images_each)
    inference_graph(graph, "the graph")
    (entry,) = [node for node in graph.node if node.name == "input"]
    entry.op = "Neg"
    with pytest.raises(UserError, match="from 'input' or 'image_batch'; it needs both"):
        inference_graph(graph, "the graph")


def test_graph_with_a_part_missing_is_refused():
    graph, _ = graph_of(lambda images, phase: means(images))
    index = next(n for n, node in enumerate(graph.node) if node.op == "Const")
    name = graph.node[index].name
    del graph.node[index]
    with pytest.raises(UserError, match=f"must be whole; it has no operation '{name}'"):
        inference_graph(graph, "the graph")
