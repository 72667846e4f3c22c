"""`facenet-fast classify`: names as scikit-learn gives them, strangers told, and files that run nothing."""

from __future__ import annotations

import logging
import os
import pickle
import re
import zlib

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.svm import LinearSVC

import facenet_fast.models
from facenet_fast import classify as module
from facenet_fast.classify import classify, fit_classifier, load_classifier, save_classifier
from facenet_fast.config import ClassifyConfig
from facenet_fast.errors import UserError
from facenet_fast.evaluation.embed import Embedder
from tests.tiny_run import EMBEDDING_SIZE, make_faces, make_run

KINDS = ("logistic", "linear_svm", "nearest")
FITTED = {
    "logistic": lambda: LogisticRegression(C=100.0, max_iter=1000),
    "linear_svm": lambda: LinearSVC(random_state=0, max_iter=10000),
    "nearest": NearestCentroid,
}


def clusters(n_identities=5, n_images=8, size=6, spread=0.5, seed=0):
    """Embeddings of unit length around centres, as float32, and names, in no order."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n_identities, size))
    labels = rng.permutation(np.repeat(np.arange(n_identities), n_images))
    rows = centres[labels] + spread * rng.normal(size=(len(labels), size))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), np.array([f"name_{label}" for label in labels])


# The rule


@pytest.mark.parametrize("n_identities", [2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_names_are_those_of_scikit_learn(kind, n_identities):
    rows, names = clusters(n_identities, spread=0.8)
    new = clusters(n_identities, n_images=60, spread=0.8, seed=0)[0]
    classifier = fit_classifier(rows, names, kind=kind)
    fitted = FITTED[kind]().fit(rows.astype(np.float64), names)
    naming = classifier.name(new)
    given = classifier.names[naming.identities]
    assert given.tolist() == fitted.predict(new.astype(np.float64)).tolist()
    assert len(set(given)) == n_identities
    if kind == "logistic":
        wanted = fitted.predict_proba(new.astype(np.float64)).max(axis=1)
        np.testing.assert_allclose(naming.scores, wanted, rtol=1e-9)


@pytest.mark.parametrize("kind", ["linear_svm", "nearest"])
def test_scores_without_probabilities_are_shares_of_strangers_farther_away(kind):
    rows, names = clusters()
    new = clusters(n_images=20, seed=0, spread=1.0)[0]
    classifier = fit_classifier(rows, names, kind=kind)
    naming = classifier.name(new)
    strangers = stranger_distances(rows, names)
    wanted = [np.mean([stranger > distance for stranger in strangers]) for distance in naming.distances]
    np.testing.assert_allclose(naming.scores, wanted)
    assert 0 <= naming.scores.min() < 0.9 < naming.scores.max() == 1


def test_a_stranger_as_far_is_not_farther():
    classifier = fit_classifier([[0.0], [1.0], [5.0], [6.0]], ["a", "a", "b", "b"], kind="nearest")
    assert classifier.stranger_distances.tolist() == [4.0, 4.0, 5.0, 5.0]
    assert classifier.name([[-3.5], [-4.0], [0.5], [11.0]]).scores.tolist() == [1.0, 0.5, 1.0, 0.0]


# Strangers


def stranger_distances(rows, names):
    """How near each row is to one of another name, by looking at every pair."""
    nearest = []
    for row, name in zip(rows.astype(float), names, strict=True):
        nearest.append(
            min(
                np.linalg.norm(row - other)
                for other, its in zip(rows.astype(float), names, strict=True)
                if its != name
            )
        )
    return np.sort(nearest)


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.025, 0.1, 0.5, 0.99, 1.0])
def test_at_most_the_rate_of_strangers_is_nearer_than_the_threshold(rate):
    rows, names = clusters()
    classifier = fit_classifier(rows, names, unknown_rate=rate)
    strangers = stranger_distances(rows, names)
    np.testing.assert_allclose(classifier.stranger_distances, strangers, rtol=1e-6)
    n_nearer = np.count_nonzero(classifier.stranger_distances < classifier.threshold)
    assert n_nearer <= rate * len(rows)
    # The greatest such threshold: pairs of strangers are near each other, so two distances may be equal.
    above = classifier.stranger_distances[classifier.stranger_distances >= classifier.threshold]
    if rate == 1.0:
        assert classifier.threshold == np.inf
    else:
        assert np.count_nonzero(classifier.stranger_distances <= above[0]) > rate * len(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_is_what_is_far_from_the_identity_it_is_given(kind):
    rows, names = clusters(spread=0.7)
    new = clusters(n_images=40, spread=1.0)[0]
    classifier = fit_classifier(rows, names, kind=kind, unknown_rate=0.3)
    naming = classifier.name(new)
    all_distances = cdist(new.astype(float), rows.astype(float))
    for n, identity in enumerate(naming.identities):
        distance = all_distances[n, names == classifier.names[identity]].min()
        assert naming.distances[n] == pytest.approx(distance, rel=1e-6)
        assert naming.is_unknown[n] == (naming.distances[n] >= classifier.threshold)
    assert 0 < naming.is_unknown.mean() < 1
    # Somebody is given a name that is not the nearest's; his distance is that of the name.
    assert (naming.distances > all_distances.min(axis=1) + 1e-3).any()


def test_nobody_is_unknown_at_rate_one_and_strangers_are_at_rate_zero():
    rows, names = clusters()
    far = 100 * np.ones((1, 6), np.float32)
    assert not fit_classifier(rows, names, unknown_rate=1.0).name(far).is_unknown.any()
    strict = fit_classifier(rows, names, unknown_rate=0.0)
    assert strict.name(far).is_unknown.all()
    assert not strict.name(rows).is_unknown.any()  # itself is there, at distance 0


def test_the_estimate_holds_for_people_like_those_trained_on():
    # 200 people to train on, 100 strangers from the same population; 8 numbers, so that some are alike.
    accepted = {0.05: [], 0.2: []}
    for seed in range(5):
        rows, names = clusters(300, 6, size=8, spread=0.25, seed=seed)
        is_stranger = np.array([int(name[5:]) >= 200 for name in names])
        for rate, shares in accepted.items():
            classifier = fit_classifier(
                rows[~is_stranger], names[~is_stranger], kind="nearest", unknown_rate=rate
            )
            shares.append(1 - classifier.name(rows[is_stranger]).is_unknown.mean())
    for rate, shares in accepted.items():
        assert 0.6 * rate < np.mean(shares) < 1.2 * rate


def test_share_of_known_people_refused():
    rows, names = clusters(spread=0.6)
    names[0], names[1] = "alone", "lonely"
    classifier = fit_classifier(rows, names, unknown_rate=0.1)
    refused = []
    for n in range(2, len(rows)):
        others = [
            np.linalg.norm(rows[n] - rows[m]) for m in range(len(rows)) if m != n and names[m] == names[n]
        ]
        refused.append(min(others) >= classifier.threshold)
    assert classifier.share_of_known_refused() == pytest.approx(np.mean(refused))
    assert 0 < np.mean(refused) < 1
    assert np.isnan(fit_classifier(rows[:2], ["a", "b"]).share_of_known_refused())


def test_one_photo_under_two_names_leaves_the_threshold_at_zero():
    rows, names = clusters()
    rows[1] = rows[0]
    names[0], names[1] = "name_0", "name_1"
    classifier = fit_classifier(rows, names, unknown_rate=0.01)
    assert classifier.threshold == 0.0
    assert classifier.name(rows).is_unknown.all()
    assert fit_classifier(rows, names, unknown_rate=0.05).threshold > 0


def test_mistakes_are_told():
    rows, names = clusters()
    with pytest.raises(UserError, match="needs images of at least 2 identities; got 1"):
        fit_classifier(rows, ["one"] * len(rows))
    with pytest.raises(UserError, match=r"shape \(n, 6\), as those trained on; got \(40, 5\)"):
        fit_classifier(rows, names).name(rows[:, :5])
    rows[3, 2] = np.nan
    with pytest.raises(ValueError, match="finite"):
        fit_classifier(rows, names)


def test_no_embeddings_have_no_names():
    rows, names = clusters()
    assert fit_classifier(rows, names).name(rows[:0]).identities.shape == (0,)


# The file


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read(tmp_path, kind):
    rows, names = clusters()
    path = str(tmp_path / "c.npz")
    classifier = fit_classifier(
        rows,
        names,
        kind=kind,
        unknown_rate=0.2,
        images=[f"{name}/é.png" for name in names],
        model="m",
        probe=[1, 2],
    )
    save_classifier(classifier, path)
    read = load_classifier(path)
    for name, value in vars(classifier).items():
        np.testing.assert_array_equal(getattr(read, name), value)
        assert type(getattr(read, name)) is type(value)
    new = clusters(n_images=30, spread=1.0)[0]
    for name, value in vars(classifier.name(new)).items():
        np.testing.assert_array_equal(getattr(read.name(new), name), value)
    assert os.listdir(tmp_path) == ["c.npz"]


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("name", ["classifier.pkl", "classifier.pickle", "classifier.npz"])
def test_pickles_are_refused_and_not_run(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Touch(str(tmp_path / "made"))))
    message = (
        f"must be CLASSIFIER.npz, since to read a pickle is to run what its writer put in it; "
        f"got {str(path)!r}; train it anew"
    )
    with pytest.raises(UserError, match=re.escape(message)):
        load_classifier(str(path))
    assert not (tmp_path / "made").exists()


def test_pickles_in_an_npz_are_not_run(tmp_path):
    path = str(tmp_path / "c.npz")
    rows, names = clusters()
    hostile = np.array([Touch(str(tmp_path / "made"))], dtype=object)
    np.savez(path, format=np.array(module._FORMAT), **vars(fit_classifier(rows, names)) | {"labels": hostile})
    with pytest.raises(UserError, match=r"must be a file that TRAIN wrote; .* is something else"):
        load_classifier(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "facenet-fast classifier 9"},
        {"names": np.array(["name_0", "name_1"])},
        {"coefficients": np.zeros((5, 7))},
        {"intercepts": np.zeros(4)},
        {"labels": np.zeros(40, np.int32)},
        {"labels": np.arange(40, dtype=np.int32)},
        {"embeddings": np.zeros(6, np.float32)},
        {"stranger_distances": np.zeros(3)},
        {"unknown_rate": "much"},
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, changes):
    path = str(tmp_path / "c.npz")
    arrays = {"format": module._FORMAT, **vars(fit_classifier(*clusters()))} | changes
    np.savez(path, **{name: np.array(value) for name, value in arrays.items()})
    with pytest.raises(UserError, match=r"must be a file that TRAIN wrote; .* is something else"):
        load_classifier(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="since to read a pickle is to run"):
        load_classifier(str(tmp_path / "missing.pkl"))
    path = tmp_path / "c.npz"
    with pytest.raises(UserError, match=r"must be a file that TRAIN wrote; '.*c\.npz': No such file"):
        load_classifier(str(path))
    with pytest.raises(UserError, match=r"': Is a directory"):
        load_classifier(str(tmp_path))
    save_classifier(fit_classifier(*clusters()), str(path))
    whole = path.read_bytes()
    np.savez(tmp_path / "others.npz", embeddings=np.zeros(3))
    np.save(tmp_path / "one.npy", np.zeros(3))
    others = [(tmp_path / name).read_bytes() for name in ("others.npz", "one.npy")]
    for data in (b"", b"text", *others, whole[: len(whole) // 2], whole[:-30]):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"must be a file that TRAIN wrote; '.*c\.npz'"):
            load_classifier(str(path))


# The command


def write_people(folder, people, size=12):
    """Write images of people: `people` says how many of each; a name always has one face."""
    for name, n_images in people.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        face = rng.uniform(0, 255, (4, 4, 3))
        for n in range(n_images):
            noisy = np.clip(face + rng.normal(scale=20, size=face.shape), 0, 255).astype(np.uint8)
            image = Image.fromarray(noisy).resize((size, size), Image.Resampling.NEAREST)
            image.save(folder / name / f"{n:03d}.png")
    return folder


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A model that gives 16 grey values of a face, at unit length; the list says what it was asked for."""

    def embed(batch):
        rows = batch.mean(axis=3)[:, 1::3, 1::3].reshape(len(batch), -1)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def load_embedder(path, *, image_size=None, standardisation=None):
        asked.append((path, image_size, standardisation))
        return Embedder(embed, 12, standardisation or "fixed", 16, f"greys of {path}")

    asked = []
    monkeypatch.setattr(facenet_fast.models, "load_embedder", load_embedder)
    return asked


PEOPLE = {"Ann_Lee": 6, "Bob": 5, "Cy_de_la_Rue": 7, "Dot": 6}


def run(mode, data_dir, classifier_path, model="model.pb", **settings):
    return classify(ClassifyConfig(mode, str(data_dir), model, str(classifier_path), **settings))


@pytest.mark.parametrize("kind", KINDS)
def test_people_are_named_and_strangers_told(tmp_path, model, capsys, kind):
    faces = write_people(tmp_path / "faces", PEOPLE)
    test = write_people(tmp_path / "test", {"Ann_Lee": 9, "Dot": 8, "Eve": 3, "Zoe_X": 2})
    path = tmp_path / "c.npz"
    assert run("TRAIN", faces, path, kind=kind, unknown_rate=0.0) is None
    classifier = load_classifier(str(path))
    assert capsys.readouterr().out.splitlines() == [
        "Model: greys of model.pb",
        "Number of classes: 4",
        "Number of images: 24",
        f"Unknown from distance {classifier.threshold:.3f} on: at most 0 of strangers' images are nearer, "
        "0.000 of those trained on are not",
        f"Classifier: 4 identities, {path}",
    ]
    assert classifier.kind == kind
    assert classifier.images[:2].tolist() == ["Ann_Lee/000.png", "Ann_Lee/001.png"]

    naming = run("classify", test, path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"Classifier: 4 identities, {path}", "Model: greys of model.pb"]
    wanted = ["Ann Lee"] * 9 + ["Dot"] * 8 + ["unknown"] * 5
    assert lines[2:24] == [f"{n:4d}  {name}: {naming.scores[n]:.3f}" for n, name in enumerate(wanted)]
    assert lines[24:] == [
        "Accuracy: 1.000",
        "Known: 0 of 17 images of people trained on called unknown",
        "Unknown: 5 of 5 images of people not trained on recognised as unknown",
    ]


def test_numbers_count_what_is_printed(tmp_path, model, capsys):
    # Noise enough that some are mistaken, and some refused although the best name is theirs.
    faces = write_people(tmp_path / "faces", PEOPLE)
    test = write_people(tmp_path / "test", {"Ann_Lee": 5, "Bob": 5, "Dot": 5})
    for n, path in enumerate(sorted([*faces.rglob("*.png"), *test.rglob("*.png")])):
        noise = np.random.default_rng(n).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        with Image.open(path) as image:
            blended = Image.blend(image, Image.fromarray(noise), (0.0, 0.5, 1.0)[n % 3])
        blended.save(path)
    strange = write_people(tmp_path / "strange", {"Eve": 3, "Flo": 3, "Gus": 3, "Hal": 3})
    path = tmp_path / "c.npz"
    run("TRAIN", faces, path, kind="nearest", unknown_rate=0.3)
    capsys.readouterr()
    naming = run("CLASSIFY", f"{faces}{os.pathsep}{test}{os.pathsep}{strange}", path)
    out = capsys.readouterr().out
    told = re.findall(r"^ *\d+  (.*): [01]\.\d{3}$", out, re.MULTILINE)
    true = ["Ann Lee"] * 11 + ["Bob"] * 10 + ["Cy de la Rue"] * 7 + ["Dot"] * 11 + ["?"] * 12
    assert len(told) == len(true)
    known = [(name, its) for name, its in zip(told, true, strict=True) if its != "?"]
    n_right = sum(name == its for name, its in known)
    n_refused = sum(name == "unknown" for name, _ in known)
    n_strangers_refused = told[len(known) :].count("unknown")
    assert out.endswith(
        f"Accuracy: {n_right / len(known):.3f}\n"
        f"Known: {n_refused} of {len(known)} images of people trained on called unknown\n"
        f"Unknown: {n_strangers_refused} of 12 images of people not trained on recognised as unknown\n"
    )
    assert 0 < n_right < len(known)
    assert n_refused > 0
    best = [sorted(PEOPLE)[identity].replace("_", " ") for identity in naming.identities]
    assert any(
        is_unknown and name == its
        for is_unknown, name, its in zip(naming.is_unknown, best, true, strict=True)
    )
    assert 0 < n_strangers_refused < 12


def test_the_rate_may_be_given_anew(tmp_path, model):
    faces = write_people(tmp_path / "faces", PEOPLE)
    strange = write_people(tmp_path / "strange", {"Eve": 2})
    path = tmp_path / "c.npz"
    for rate in (None, 0.01, 1.0):
        run("TRAIN", faces, path, unknown_rate=rate)
        assert load_classifier(str(path)).unknown_rate == (rate or 0.01)
        assert run("CLASSIFY", strange, path).is_unknown.all() == (rate != 1.0)
        assert not run("CLASSIFY", strange, path, unknown_rate=1.0).is_unknown.any()
        assert run("CLASSIFY", strange, path, unknown_rate=0.0).is_unknown.all()


def test_lines_are_left_out_where_there_is_nothing_to_count(tmp_path, model, capsys):
    path = tmp_path / "c.npz"
    run("TRAIN", write_people(tmp_path / "faces", PEOPLE), path, unknown_rate=1.0)
    assert "Unknown" not in capsys.readouterr().out
    run("CLASSIFY", write_people(tmp_path / "test", {"Bob": 9}), path)
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "Accuracy: 1.000",
        "Known: 0 of 9 images of people trained on called unknown",
    ]
    run("CLASSIFY", write_people(tmp_path / "strange", {"Eve": 2}), path)
    assert capsys.readouterr().out.splitlines()[-1] == (
        "Unknown: 0 of 2 images of people not trained on recognised as unknown"
    )


def test_split_trains_on_some_and_names_the_others(tmp_path, model, capsys, caplog):
    faces = write_people(tmp_path / "faces", PEOPLE | {"Few": 4})
    split = {"use_split_dataset": True, "min_images_per_identity": 5, "train_images_per_identity": 3}
    path = tmp_path / "c.npz"
    with caplog.at_level(logging.WARNING, "facenet_fast"):
        run("TRAIN", faces, path, unknown_rate=0.0, **split)
        assert "Number of classes: 4\nNumber of images: 12\n" in capsys.readouterr().out
        classifier = load_classifier(str(path))
        run("CLASSIFY", faces, path, **split)
    out = capsys.readouterr().out
    assert "Known: 0 of 12 images" in out  # 24 less 12
    assert "Unknown: 4 of 4 images" in out
    assert caplog.text == ""
    drawn = [image.split("/")[0] for image in classifier.images]
    assert drawn == [name for name in PEOPLE for _ in range(3)]

    # Each identity has a draw of its own, which depends on the seed, and not on who else there is.
    of_ann, of_dot = ([image[-7:] for image in classifier.images if name in image] for name in ("Ann", "Dot"))
    assert of_ann != of_dot
    write_people(faces, {"Aaron": 5})
    run("TRAIN", faces, path, **split)
    assert set(classifier.images) < set(load_classifier(str(path)).images)
    run("TRAIN", faces, path, seed=1, **split)
    assert not set(classifier.images) <= set(load_classifier(str(path)).images)

    with caplog.at_level(logging.WARNING, "facenet_fast"):
        run("CLASSIFY", faces, path, **split)
    assert re.search(r"\d of 18 images were trained on; others are named less well", caplog.text)


def test_test_folder_is_named_instead_and_after_training(tmp_path, model, capsys):
    faces = write_people(tmp_path / "faces", PEOPLE)
    test = write_people(tmp_path / "test", {"Bob": 8})
    path = tmp_path / "c.npz"
    of_train = run("TRAIN", faces, path, test_data_dir=str(test))
    assert "Known: 0 of 8 images" in capsys.readouterr().out
    of_classify = run("CLASSIFY", faces, path, test_data_dir=str(test))
    assert "Known: 0 of 8 images" in capsys.readouterr().out
    np.testing.assert_array_equal(of_train.scores, of_classify.scores)


def test_images_that_were_trained_on_are_told(tmp_path, model, caplog):
    faces = write_people(tmp_path / "faces", PEOPLE)
    run("TRAIN", faces, tmp_path / "c.npz")
    with caplog.at_level(logging.WARNING, "facenet_fast"):
        run("CLASSIFY", faces, tmp_path / "c.npz")
    assert "24 of 24 images were trained on" in caplog.text


def test_unreadable_images_keep_their_numbers(tmp_path, model, capsys, caplog):
    faces = write_people(tmp_path / "faces", PEOPLE)
    (faces / "Bob" / "001.png").write_bytes(b"")
    (write_people(faces, {"Gone": 1}) / "Gone" / "000.png").write_bytes(b"")
    path = tmp_path / "c.npz"
    run("TRAIN", faces, path)
    classifier = load_classifier(str(path))
    assert (classifier.names.tolist(), len(classifier.images)) == (sorted(PEOPLE), 23)
    capsys.readouterr()
    run("CLASSIFY", faces, path, unknown_rate=1.0)
    numbers = [int(line[:4]) for line in capsys.readouterr().out.splitlines() if re.match(r" *\d+  ", line)]
    assert numbers == [*range(7), *range(8, 24)]
    assert caplog.text.count("Bob/001.png: empty file") == 2
    for image in faces.rglob("*.png"):
        image.write_bytes(b"")
    with pytest.raises(UserError, match="there must be images that can be read; of 25 none can"):
        run("CLASSIFY", faces, path)
    with pytest.raises(UserError, match="at least 2 identities; got 0"):
        run("TRAIN", faces, path)


def test_model_is_loaded_as_asked(tmp_path, model):
    faces = write_people(tmp_path / "faces", PEOPLE)
    run("TRAIN", faces, tmp_path / "c.npz", image_size=12, use_fixed_image_standardization=True)
    run("TRAIN", faces, tmp_path / "c.npz")
    assert model == [("model.pb", 12, "fixed"), ("model.pb", None, None)]


def test_another_network_is_told(tmp_path, model, monkeypatch, caplog):
    faces = write_people(tmp_path / "faces", PEOPLE)
    path = tmp_path / "c.npz"
    run("TRAIN", faces, path)

    def other(scale, size):
        def load_embedder(*_, **__):
            embed = lambda batch: (scale * batch).mean(axis=(2, 3)).repeat(2, axis=1)[:, :size]  # noqa: E731
            return Embedder(embed, 12, "fixed", size, "another")

        return load_embedder

    monkeypatch.setattr(facenet_fast.models, "load_embedder", other(1.0, 16))
    with caplog.at_level(logging.WARNING, "facenet_fast"):
        run("CLASSIFY", write_people(tmp_path / "test", {"Bob": 9}), path)
    assert "another gives other embeddings than greys of model.pb, with which the classifier" in caplog.text
    monkeypatch.setattr(facenet_fast.models, "load_embedder", other(1.0, 15))
    with pytest.raises(
        UserError, match=r"must give embeddings of 16 numbers, as greys of model\.pb did.*; another gives 15"
    ):
        run("CLASSIFY", faces, path)


def test_a_run_and_the_graph_frozen_of_it_are_one_network(tmp_path, caplog):
    from facenet_fast.config import FreezeConfig
    from facenet_fast.export import freeze

    run_dir = make_run(tmp_path / "20240101-120000")
    faces = make_faces(tmp_path / "faces")
    path = tmp_path / "c.npz"
    run("TRAIN", faces, path, model=str(run_dir), unknown_rate=1.0)
    assert load_classifier(str(path)).embeddings.shape[1] == EMBEDDING_SIZE
    freeze(FreezeConfig(str(run_dir), str(tmp_path / "frozen.pb")))
    with caplog.at_level(logging.WARNING, "facenet_fast"):
        naming = run("CLASSIFY", faces, path, model=str(tmp_path / "frozen.pb"))
    assert "embeddings" not in caplog.text
    assert np.all(naming.distances < 1e-3)  # each was trained on


@pytest.mark.parametrize("name", ["c.pkl", "c.npy", "nowhere/c.npz"])
def test_output_that_cannot_be_is_refused_before_any_work(tmp_path, name):
    messages = {
        "c.pkl": "must be CLASSIFIER.npz, since to read a pickle",
        "c.npy": "must be called OUT.npz, for a classifier",
        "nowhere/c.npz": "the output's folder must exist",
    }
    with pytest.raises(UserError, match=messages[name]):
        run("TRAIN", tmp_path / "no_images", tmp_path / name)


def test_missing_images_and_too_few_identities_are_errors(tmp_path, model):
    path = tmp_path / "c.npz"
    with pytest.raises(UserError, match=r"images must be in a folder .*; '.*gone' is nothing"):
        run("TRAIN", tmp_path / "gone", path)
    one = write_people(tmp_path / "one", {"Bob": 9})
    with pytest.raises(
        UserError, match=r"at least 2 identities with images must be in the folder .* has 1: Bob"
    ):
        run("TRAIN", one, path)
    faces = write_people(tmp_path / "faces", PEOPLE)
    split = {"use_split_dataset": True, "min_images_per_identity": 7, "train_images_per_identity": 3}
    with pytest.raises(
        UserError,
        match=r"at least 2 identities must have 7 images \(min_images_per_identity\); of the 4 in .* 1 have",
    ):
        run("TRAIN", faces, path, **split)
    with pytest.raises(UserError, match=r"a file that TRAIN wrote; '.*c\.npz': No such file"):
        run("CLASSIFY", faces, path)
    run("TRAIN", faces, path)
    with pytest.raises(UserError, match=r"images must be in a folder .*; '.*gone' is nothing"):
        run("CLASSIFY", tmp_path / "gone", path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "TEST"}, "mode must be one of TRAIN, CLASSIFY; got 'TEST'"),
        ({"mode": 3}, "mode must be of type str; got 3"),
        ({"kind": "svm"}, "kind must be one of logistic, linear_svm, nearest; got 'svm'"),
        ({"unknown_rate": 1.5}, "unknown_rate must be at most 1.0; got 1.5"),
        ({"unknown_rate": -0.1}, "unknown_rate must be at least 0.0; got -0.1"),
        (
            {"use_split_dataset": True, "train_images_per_identity": 20},
            "train_images_per_identity must be below min_images_per_identity, 20, .*; got 20",
        ),
        (
            {"use_split_dataset": True, "test_data_dir": "x"},
            "test_data_dir must not be given with use_split_dataset",
        ),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(UserError, match=message):
        ClassifyConfig(**{"mode": "TRAIN", "data_dir": "d", "model": "m", "classifier_path": "c"} | settings)
