from __future__ import annotations

import itertools
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf

from facenet_fast.data import BalancedBatches, balanced_batches
from facenet_fast.data.balanced import FEW
from facenet_fast.data.sampling import IdentitySampler
from facenet_fast.errors import UserError

COUNTS = [7, 3, 9, 2, 4, 11, 5, 6, 1, 8]


def labels_of(counts=COUNTS, seed=0):
    """Labels in a random order; identity i is 10 * i + 3, has counts[i] images."""
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)) * 10 + 3, counts))


def make(labels=None, **options):
    """Batches whose x is the row itself, so that a test sees which rows came."""
    labels = labels_of() if labels is None else labels
    options = {"identities": 4, "images": 3, "seed": 5, **options}
    return balanced_batches(np.arange(len(labels)), labels, **options)


def rows_of(batches, n_epochs=1):
    """Rows of x, batch by batch."""
    return [x.tolist() for _ in range(n_epochs) for x, _ in batches]


def network():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


class Watching(BalancedBatches):
    """Notes which batches of the stream are asked for."""

    def __init__(self, *args, **options):
        self.positions = []
        super().__init__(*args, **options)

    def __getitem__(self, index):
        self.positions.append(self.position + index)
        return super().__getitem__(index)


class Noting(keras.Sequential):
    """Notes the rows of each step."""

    def train_step(self, data):
        x, _ = data
        self.steps.append(x.numpy()[:, 0].astype(int).tolist())
        return super().train_step(data)


def trained_on(batches, **options):
    """Fit and return the rows of each step, as the model saw them."""
    model = Noting([keras.Input((1,)), keras.layers.Dense(1)])
    model.steps = []
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(batches, shuffle=False, verbose=0, **options)
    return list(model.steps)


def as_columns(rows):
    return np.asarray(rows, np.float32)[:, None]


@pytest.mark.parametrize("identities", [2, 5, 9])
@pytest.mark.parametrize("images", [2, 3, 4])
@pytest.mark.parametrize("few", FEW)
def test_everything_is_visited_before_anything_is_visited_again(identities, images, few):
    labels = labels_of()
    counts = dict(zip(*np.unique(labels, return_counts=True), strict=True))
    drawn = {label: n for label, n in counts.items() if few != "drop" or n >= images}
    identities = min(identities, len(drawn))
    batches = make(identities=identities, images=images, few=few)
    of_row, of_identity = np.zeros(len(labels), int), dict.fromkeys(drawn, 0)
    for x, y in itertools.chain.from_iterable([batches] * 6):
        np.testing.assert_array_equal(y, labels[x])
        names, sizes = np.unique(y, return_counts=True)
        assert len(names) == identities
        assert np.count_nonzero(np.diff(y)) == identities - 1  # those of an identity side by side
        for name, size in zip(names, sizes, strict=True):
            assert size == (min(images, counts[name]) if few == "fewer" else images)
            assert len(set(x[y == name])) == min(images, counts[name])
            of_identity[name] += 1
        np.add.at(of_row, np.unique(x), 1)
        assert np.ptp(list(of_identity.values())) <= 1
        for name in drawn:
            assert np.ptp(of_row[labels == name]) <= 1
    assert np.array_equal(of_row > 0, np.isin(labels, list(drawn)))


def test_an_epoch_visits_every_image_once_where_numbers_allow():
    batches = make(labels_of([6] * 12), identities=6, images=3)
    assert len(batches) == 4
    for _ in range(3):
        assert sorted(itertools.chain(*rows_of(batches))) == list(range(72))


@pytest.mark.parametrize("few", FEW)
def test_an_epoch_makes_about_as_many_draws_as_there_are_images(few):
    labels = labels_of([2, 3, 40, 17, 8, 5] * 5)
    batches = make(labels, few=few)
    n_images = sum(n for n in np.unique(labels, return_counts=True)[1] if few != "drop" or n >= 3)
    different = np.mean([len(set(rows)) for rows in rows_of(batches, 3)])
    assert len(batches) * different == pytest.approx(n_images, rel=0.05)


def test_rows_of_repeat_come_as_evenly_as_can_be():
    labels = np.repeat([0, 1, 2], [1, 3, 8])
    batches = make(labels, identities=3, images=8, few="repeat", batches=30)
    drawn = np.zeros(12, int)
    for x, y in batches:
        of_row = np.bincount(x, minlength=12)
        assert [np.ptp(of_row[labels == label]) for label in range(3)] == [0, 1, 0]
        assert len(y) == 24
        drawn += of_row
    assert drawn[1:4].min() >= 70
    assert drawn[1:4].sum() == 240


def test_repeat_takes_more_images_than_anyone_has():
    x, y = make(np.repeat([0, 1], 2), identities=2, images=5, few="repeat")[0]
    assert len(x) == 10
    assert sorted(np.bincount(x).tolist()) == [2, 2, 3, 3]
    assert np.bincount(y).tolist() == [5, 5]


def test_draws_are_those_of_the_sampler():
    labels = np.sort(labels_of())
    sampler = IdentitySampler(np.cumsum([0, *COUNTS]), 4, 3, seed=5)
    batches = make(labels)
    assert rows_of(batches, 2) == [sampler.next_pool()[0].tolist() for _ in range(2 * len(batches))]


def test_seed_decides():
    assert rows_of(make(seed=1), 2) == rows_of(make(seed=1), 2)
    assert rows_of(make(seed=1)) != rows_of(make(seed=2))


def test_epochs_differ():
    batches = make()
    assert rows_of(batches) != rows_of(batches)


def test_batches_an_epoch_may_be_chosen():
    batches = make(batches=2)
    assert len(batches) == batches.num_batches == 2
    assert rows_of(batches, 5) == rows_of(make(batches=5), 2)
    assert batches.position == 10


def test_order_of_asking_does_not_matter():
    in_order, backwards = make(), make()
    for _ in range(3):
        expected = [in_order[i][0].tolist() for i in range(len(in_order))]
        assert [backwards[i][0].tolist() for i in reversed(range(len(backwards)))] == expected[::-1]
        assert backwards[1][0].tolist() == backwards[1][0].tolist() == expected[1]
        in_order.on_epoch_end()
        backwards.on_epoch_end()


def test_threads_may_ask_at_the_same_time():
    batches, alone = make(batches=50), make(batches=50)
    with ThreadPoolExecutor(8) as executor:
        for _ in range(3):
            order = np.random.default_rng(0).permutation(50).tolist()
            came = dict(zip(order, executor.map(lambda i: batches[i][0].tolist(), order), strict=True))
            assert [came[i] for i in range(50)] == rows_of(alone)
            batches.on_epoch_end()


def test_a_batch_belongs_to_the_caller():
    batches = make()
    x, y = batches[0]
    expected = x.tolist(), y.tolist()
    x[:], y[:] = 0, 0
    again = batches[0]
    assert (again[0].tolist(), again[1].tolist()) == expected


@pytest.mark.parametrize("wrong", [-1, 5, 10**9])
def test_a_batch_must_exist(wrong):
    with pytest.raises(IndexError, match=rf"batch must be in 0 \.\. 4; got {wrong}"):
        make(batches=5)[wrong]


def test_an_epoch_ends_when_it_was_read_to_its_end():
    expected = rows_of(make(batches=4), 3)

    def epoch(n=4):
        return [batches[i][0].tolist() for i in range(n)]

    batches = make(batches=4)
    batches.on_epoch_end()  # nothing was read
    batches.on_epoch_begin()
    assert epoch(3) == expected[:3]
    batches.on_epoch_end()  # cut short
    assert batches.position == 0
    batches.on_epoch_begin()
    assert epoch() == expected[:4]
    batches.on_epoch_end()
    batches.on_epoch_end()  # once more, as Keras may
    assert batches.position == 4
    assert epoch() == expected[4:8]  # a loop that does not tell when it begins
    batches.on_epoch_end()
    assert epoch() == expected[8:]
    batches.workers = 2
    batches.on_epoch_end()
    assert batches.position == 8
    batches.on_epoch_begin()
    epoch()
    batches.on_epoch_end()
    assert batches.position == 12


def test_a_pass_given_up_is_started_again():
    batches = make(batches=4)
    expected = rows_of(make(batches=4), 2)
    first = next(iter(batches))
    assert first[0].tolist() == expected[0]
    assert rows_of(batches, 2) == expected


def test_passes_side_by_side_are_the_same_epoch():
    batches = make(batches=4)
    for (one, _), (other, _) in zip(batches, batches, strict=True):
        np.testing.assert_array_equal(one, other)
    assert batches.position == 4


def test_a_pass_left_behind_says_so():
    batches = make(batches=2)
    old = iter(batches)
    next(old)
    rows_of(batches, 2)
    with pytest.raises(UserError, match="within the epoch after its own"):
        next(old)


# States


@pytest.mark.parametrize("few", FEW)
@pytest.mark.parametrize("used", [0, 1, 4, 7, 8, 9, 15, 16, 23])
def test_resumes_exactly_anywhere_through_json(few, used):
    expected = rows_of(make(few=few, batches=8), 6)
    batches = make(few=few, batches=8)
    for _ in itertools.islice(itertools.chain.from_iterable([batches] * 3), used):
        pass
    state = json.loads(json.dumps(batches.state(used)))
    assert state["position"] == used
    other = make(few=few, batches=5, seed=99)
    rows_of(other)
    other[3]
    other.restore(state)
    assert other.position == used
    assert other.state() == state
    assert rows_of(other, 3) == expected[used : used + 15]
    assert rows_of(batches, 2) == expected[batches.position - 16 : batches.position]


def test_state_is_of_the_epochs_start_unless_a_position_is_given():
    batches = make(batches=4)
    expected = rows_of(make(batches=4), 3)
    rows_of(batches)
    batches[2]
    assert batches.state()["position"] == 4
    other = make(batches=4)
    other.restore(batches.state())
    assert rows_of(other, 2) == expected[4:]


def test_resumed_batches_make_the_states_of_those_that_went_on():
    batches = make(batches=4)
    rows_of(batches)
    other = make(batches=3)
    other.restore(batches.state(6))
    for position in (6, 7, 8, 11, 12, 30):
        assert other.state(position) == batches.state(position)


def test_asking_for_states_changes_nothing():
    batches = make(batches=4)
    came = []
    for _ in range(3):
        for n, (x, _) in enumerate(batches):
            batches.state()
            batches.state(batches.position + n + 5)
            came.append(x.tolist())
    assert came == rows_of(make(batches=4), 3)


def test_states_of_long_ago_are_refused():
    batches = make(batches=4)
    rows_of(batches, 3)
    assert batches.state(8)["position"] == 8
    with pytest.raises(UserError, match="position must be at least 8, the previous epoch's; got 7"):
        batches.state(7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"identities": 5}, "identities must be as they were when the state was saved, 4; got 5"),
        ({"images": 2}, "images must be as they were .* 3; got 2"),
        ({"few": "drop"}, "few must be as they were .* 'fewer'; got 'drop'"),
        ({"labels": labels_of(seed=1)}, "labels must be as they were when the state was saved$"),
    ],
)
def test_states_of_others_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        make(**options).restore(make().state())


def test_what_is_no_state_is_refused():
    with pytest.raises(UserError, match="what state\\(\\) returned; got other keys: seed"):
        make().restore({"seed": 3})


# x


def test_x_may_be_a_tuple_or_a_dict():
    rows = np.arange(56)
    x = {"image": np.stack([rows, rows + 1], axis=1), "more": (rows * 2, [str(row) for row in rows])}
    batches = balanced_batches(x, labels_of(), identities=4, images=3, seed=5)
    expected = make()[0][0]
    came, _ = batches[0]
    np.testing.assert_array_equal(came["image"], np.stack([expected, expected + 1], axis=1))
    np.testing.assert_array_equal(came["more"][0], expected * 2)
    assert came["more"][1].tolist() == [str(row) for row in expected]
    (of_tf, _) = next(iter(batches.as_dataset()))
    np.testing.assert_array_equal(of_tf["image"], came["image"])
    assert of_tf["more"][1].numpy().tolist() == [str(row).encode() for row in expected]


def test_x_may_lie_on_a_disk(tmp_path):
    h5py = pytest.importorskip("h5py")
    values = np.random.default_rng(0).normal(size=(56, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", values)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = values
        # Images that are repeated: HDF5 wants every row once, ascending.
        batches = balanced_batches(
            (file["x"], np.load(tmp_path / "x.npy", mmap_mode="r"), tf.constant(values)),
            labels_of(),
            identities=4,
            images=8,
            seed=5,
            few="repeat",
        )
        expected = values[make(images=8, few="repeat")[0][0]]
        for part in batches[0][0]:
            assert isinstance(part, np.ndarray)
            np.testing.assert_array_equal(part, expected)


def test_load_makes_x_of_rows():
    paths = [f"{n}.png" for n in range(56)]

    def load(wanted):
        numbers = np.array([int(path.removesuffix(".png")) for path in wanted])
        return {"pixels": tf.constant(np.stack([numbers, -numbers], axis=1), tf.int32)}

    batches = balanced_batches(paths, labels_of(), identities=4, images=3, seed=5, load=load)
    expected = make()[1][0]
    np.testing.assert_array_equal(batches[1][0]["pixels"][:, 1], -expected)
    dataset = batches.as_dataset()
    assert dataset.element_spec[0] == {"pixels": tf.TensorSpec((None, 2), tf.int32)}
    (_, (x, _)) = itertools.islice(dataset, 2)
    np.testing.assert_array_equal(x["pixels"][:, 0], expected)


def test_load_must_return_all_rows():
    with pytest.raises(UserError, match="as many rows as it is given, 6; got 5"):
        make(labels_of([3] * 4), identities=2, load=lambda x: x[1:])[0]


# Labels


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int64", "float16", "float64", "bool"])
def test_numbers_stay_what_they_are(dtype):
    labels = (labels_of([5, 5]) > 3).astype(dtype) * np.dtype(dtype).type(2)
    batches = make(labels, identities=2)
    x, y = batches[0]
    assert y.dtype == batches.classes_.dtype == labels.dtype
    np.testing.assert_array_equal(y, labels[x])
    _, of_tf = next(iter(batches.as_dataset()))
    np.testing.assert_array_equal(of_tf, y)
    assert of_tf.dtype == labels.dtype


@pytest.mark.parametrize("kind", ["U", "S", "O"])
def test_text_is_codes_to_keras_and_text_to_tensorflow(kind):
    names = np.array([f"né{n}" for n in labels_of()])
    labels = np.char.encode(names, "utf-8") if kind == "S" else names.astype(kind)
    batches = make(labels)
    x, y = batches[0]
    assert y.dtype == np.int32
    np.testing.assert_array_equal(batches.classes_[y], labels[x])
    dataset = batches.as_dataset()
    assert dataset.element_spec[1] == tf.TensorSpec((None,), tf.string)
    x, y = next(iter(dataset))
    assert [name.decode() for name in y.numpy()] == names[x].tolist()
    assert make(labels, codes=False)[0][1].tolist() == labels[x].tolist()


@pytest.mark.parametrize("labels", [labels_of(), np.array([f"n{n:03}" for n in labels_of()])])
def test_codes_may_be_asked_for(labels):
    batches = make(labels, codes=True, few="drop", images=5)
    assert batches.classes_.tolist() == np.unique(labels).tolist()  # those never drawn too
    for x, y in (batches[0], next(iter(batches.as_dataset()))):
        assert y.dtype == np.int32
        assert batches.classes_[y].tolist() == labels[np.asarray(x)].tolist()


@pytest.mark.parametrize(
    "labels",
    [
        labels_of().astype("datetime64[D]"),
        labels_of().astype(object),
        labels_of().astype(complex),
    ],
)
def test_what_fits_no_tensor_is_codes(labels):
    batches = make(labels)
    for x, y in (batches[0], next(iter(batches.as_dataset()))):
        assert batches.classes_[y].tolist() == labels[np.asarray(x)].tolist()


def test_labels_do_not_change_the_draw_but_by_their_order():
    numbers = labels_of()
    expected = rows_of(make(numbers))
    assert rows_of(make(numbers - 50.5)) == expected
    assert rows_of(make([f"n{n:03}" for n in numbers])) == expected


# tf.data


@pytest.mark.parametrize("few", FEW)
def test_dataset_has_the_same_batches(few):
    values = np.random.default_rng(0).normal(size=(56, 2, 3)).astype(np.float32)

    def batches():
        return balanced_batches(values, labels_of(), identities=4, images=4, seed=5, few=few)

    ours = batches()
    dataset = batches().as_dataset()
    assert dataset.cardinality() == len(dataset) == len(ours)
    size = None if few == "fewer" else 16
    assert dataset.element_spec == (
        tf.TensorSpec((size, 2, 3), tf.float32),
        tf.TensorSpec((size,), tf.int64),
    )
    for _ in range(3):
        for (x, y), (of_tf_x, of_tf_y) in zip(ours, dataset, strict=True):
            np.testing.assert_array_equal(of_tf_x, x)
            np.testing.assert_array_equal(of_tf_y, y)


def test_size_is_known_where_everyone_has_enough_images():
    assert make(labels_of([4, 3, 5, 9, 3])).as_dataset().element_spec[0].shape == (12,)


@pytest.mark.parametrize("n_prefetched", [0, 1, 5])
def test_dataset_and_object_share_the_epoch(n_prefetched):
    batches = make(batches=8)
    expected = rows_of(make(batches=8), 4)
    dataset = batches.as_dataset(n_prefetched=n_prefetched)
    next(iter(dataset))  # a look changes nothing
    came = [x.numpy().tolist() for x, _ in dataset]
    assert batches.position == 8
    came += rows_of(batches)
    came += [x.numpy().tolist() for x, _ in dataset.repeat(2)]
    assert came == expected


def test_dataset_resumes_within_an_epoch():
    batches = make(batches=8)
    expected = rows_of(make(batches=8), 3)
    for n, (x, _) in enumerate(batches.as_dataset(n_prefetched=3)):
        assert x.numpy().tolist() == expected[n]
        if n == 6:
            state = batches.state(n + 1)
    other = make(batches=8)
    dataset = other.as_dataset()
    other.restore(state)
    assert [x.numpy().tolist() for x, _ in dataset] == expected[7:15]


def test_a_dataset_is_gathered():
    values = np.random.default_rng(0).normal(size=(700, 2)).astype(np.float32)
    labels = labels_of([70] * 10)
    names = np.array([f"n{n}" for n in labels])
    of_arrays = balanced_batches(values, names, identities=4, images=3)
    expected = list(of_arrays)
    elements = tf.data.Dataset.from_tensor_slices((values, names))
    of_unknown_size = elements.filter(lambda x, y: True)
    for data in (elements, of_unknown_size):
        batches = balanced_batches(data, identities=4, images=3)
        assert [name.decode() for name in batches.classes_] == of_arrays.classes_.tolist()
        for (x, y), (expected_x, expected_y) in zip(batches, expected, strict=True):
            np.testing.assert_array_equal(x, expected_x)
            np.testing.assert_array_equal(y, expected_y)


def test_a_dataset_of_structures_is_gathered(caplog):
    caplog.set_level("INFO", "facenet_fast")
    rows = np.arange(56)
    data = tf.data.Dataset.from_tensor_slices(({"a": rows, "b": (rows * 2, rows * 3)}, labels_of()))
    x, y = balanced_batches(data, identities=4, images=3, seed=5)[0]
    expected, labels = make()[0]
    np.testing.assert_array_equal(x["a"], expected)
    np.testing.assert_array_equal(x["b"][1], expected * 3)
    np.testing.assert_array_equal(y, labels)
    assert "56 elements" in caplog.records[0].getMessage()


def ragged():
    yield from ((np.zeros(n), n % 2) for n in (2, 2, 3, 2))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tf.data.Dataset.range(8), "pairs"),
        (tf.data.Dataset.from_tensor_slices((np.ones(8), np.ones(8), np.ones(8))), "pairs"),
        (tf.data.Dataset.from_tensor_slices((np.ones(8), np.ones(8))).batch(4), r"unbatch\(\)"),
        (tf.data.Dataset.from_tensor_slices((np.ones(8), np.ones(8))).repeat(), "infinite"),
        (tf.data.Dataset.from_tensor_slices((np.ones(8), np.ones(8))).take(0), "must have elements"),
        (
            tf.data.Dataset.from_generator(
                ragged, output_signature=(tf.TensorSpec((None,)), tf.TensorSpec((), tf.int32))
            ),
            "equal shapes",
        ),
        (
            tf.data.Dataset.from_tensor_slices((tf.ragged.constant([[1], [2, 3]]), [0, 1])),
            "dense tensors",
        ),
    ],
)
def test_datasets_that_cannot_be_gathered_are_refused(data, message):
    with pytest.raises(UserError, match=message):
        balanced_batches(data, identities=2, images=2)


def test_labels_besides_a_dataset_are_refused():
    data = tf.data.Dataset.from_tensor_slices((np.ones(8), np.ones(8)))
    with pytest.raises(UserError, match="labels must come with"):
        balanced_batches(data, np.ones(8), identities=2, images=2)


# Training


@pytest.mark.parametrize("n", [1, 2, 8])
@pytest.mark.parametrize("kind", ["object", "threads", "dataset"])
def test_fit_takes_one_epoch_after_the_other(kind, n):
    expected = rows_of(make(batches=n), 3)
    labels = labels_of()

    def batches():
        return balanced_batches(
            as_columns(range(56)),
            labels,
            identities=4,
            images=3,
            seed=5,
            batches=n,
            workers=3 if kind == "threads" else 1,
        )

    def data(ours):
        return ours.as_dataset() if kind == "dataset" else ours

    ours = batches()
    assert trained_on(data(ours), epochs=2) == expected[: 2 * n]
    assert ours.position == 2 * n
    resumed = batches()
    resumed.restore(json.loads(json.dumps(ours.state())))
    assert trained_on(data(resumed), epochs=1) == expected[2 * n :]


@pytest.mark.parametrize("n", [2, 5])
def test_fit_goes_on_after_a_loop_of_ones_own(n):
    ours = balanced_batches(as_columns(range(56)), labels_of(), identities=4, images=3, seed=5, batches=n)
    for i in range(n):
        ours[i]
    ours.on_epoch_end()
    assert trained_on(ours, epochs=2) == rows_of(make(batches=n), 3)[n:]


def test_fit_may_go_on_in_the_middle_of_an_epoch():
    ours = balanced_batches(
        as_columns(range(56)), labels_of(), identities=4, images=3, seed=5, batches=6, codes=True
    )
    states = {}

    class Saving(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            n_steps = int(self.model.optimizer.iterations)
            states[n_steps] = ours.state(n_steps)

    expected = rows_of(make(batches=6), 4)
    assert trained_on(ours, epochs=3, callbacks=[Saving()]) == expected[:18]
    for n_steps in (1, 6, 9, 17):
        ours.restore(states[n_steps])
        assert trained_on(ours, epochs=1) == expected[n_steps : n_steps + 6]


def test_fit_may_stop_at_a_divisor_of_the_epoch():
    ours = balanced_batches(as_columns(range(56)), labels_of(), identities=4, images=3, seed=5, batches=8)
    assert trained_on(ours, epochs=4, steps_per_epoch=4) == rows_of(make(batches=8), 2)


def test_fit_that_shuffles_takes_all_batches_of_each_epoch():
    ours = Watching(as_columns(range(56)), labels_of(), identities=4, images=3, batches=8)
    network().fit(ours, epochs=3, verbose=0)
    # The first two are looked at twice.
    assert sorted(ours.positions) == sorted([*range(24), 0, 1])


def test_fit_validates_on_them_too():
    ours = balanced_batches(as_columns(range(56)), labels_of(), identities=4, images=3)
    history = (
        network().fit(as_columns(range(56)), np.zeros(56), validation_data=ours, epochs=2, verbose=0).history
    )
    assert len(history["val_loss"]) == 2
    assert ours.position == 2 * len(ours)


def test_text_can_be_trained_on():
    names = np.array([f"n{n}" for n in labels_of()])
    ours = balanced_batches(as_columns(range(56)) / 56, names, identities=4, images=3)
    coded = balanced_batches(as_columns(range(56)) / 56, names, identities=4, images=3, codes=True)
    for data in (ours, coded.as_dataset()):
        history = network().fit(data, epochs=2, shuffle=False, verbose=0).history
        assert np.isfinite(history["loss"]).all()


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"identities": 1}, "identities must be at least 2; got 1"),
        ({"images": 1}, "images must be at least 2; got 1"),
        ({"identities": 2.0}, "identities must be a whole number; got 2.0"),
        ({"identities": 11}, "identities must be at most the number of identities, 10; got 11"),
        ({"images": 12}, 'largest identity, 11, unless few="repeat"; got 12'),
        ({"images": 12, "few": "drop"}, "largest identity, 11,"),
        ({"images": 7, "identities": 5, "few": "drop"}, "with at least 7 images, 4; got 5"),
        ({"seed": -1}, "seed must be at least 0; got -1"),
        ({"seed": None}, "seed must be a whole number; got None"),
        ({"batches": 0}, "batches must be at least 1; got 0"),
        ({"few": "none"}, "few must be one of fewer, repeat, drop; got 'none'"),
        ({"codes": "yes"}, "codes must be True, False or None; got 'yes'"),
        ({"load": 3}, "load must be callable; got 3"),
        ({"workers": 0}, "workers must be at least 1; got 0"),
    ],
)
def test_settings_are_checked(options, message):
    with pytest.raises(UserError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "labels must be given"),
        (np.ones(5), "labels must be as many as rows of x, 6; got 5"),
        (np.ones((6, 1)), r"labels must be a row, one label an image; got shape \(6, 1\)"),
        ([0, 0, 1, 1, np.nan, 1], "labels must not be NaN; got it at 4"),
        (np.array(["2020", "NaT", "2020", "2021", "2021", "2021"], "datetime64[Y]"), "NaN; got it at 1"),
        (np.array([0, 0, 1, 1, np.nan, 1], dtype=object), "NaN; got it at 4"),
        (np.array([0, 0, "a", "a", None, 1], dtype=object), "labels must be of one kind that sorts"),
        (np.arange(6), "two images .* each of the 6 identities has one"),
        (np.ones(6), "number of identities, 1; got 2"),
    ],
)
def test_labels_are_checked(labels, message):
    with pytest.raises(UserError, match=message):
        balanced_batches(np.zeros(6), labels, identities=2, images=2)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.float32(3), "one row an image"),
        ((), "one row an image"),
        ((np.zeros(6), np.zeros(5)), "equally many rows"),
        (np.zeros(0), "labels must be as many as rows of x, 0; got 6"),
    ],
)
def test_x_is_checked(x, message):
    with pytest.raises(UserError, match=message):
        balanced_batches(x, np.repeat([0, 1], 3), identities=2, images=2)


def test_no_images_are_refused():
    with pytest.raises(UserError, match="number of identities, 0; got 2"):
        balanced_batches(np.zeros(0), np.zeros(0), identities=2, images=2)


def test_prefetching_is_checked():
    with pytest.raises(UserError, match="n_prefetched must be at least 0; got -1"):
        make().as_dataset(n_prefetched=-1)


def test_processes_are_refused():
    batches = make()
    batches.use_multiprocessing = False
    with pytest.raises(UserError, match="use_multiprocessing must be False"):
        batches.use_multiprocessing = True


def test_the_package_does_not_import_tensorflow_before_it_is_needed():
    code = (
        "import sys, facenet_fast.data, facenet_fast.data.sampling, facenet_fast.data.pairs\n"
        "assert 'balanced_batches' in dir(facenet_fast.data)\n"
        "assert not hasattr(facenet_fast.data, 'nothing')\n"
        "assert not {'tensorflow', 'keras'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
