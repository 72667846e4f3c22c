"""The report as files, as text and, where there is a browser, as a browser shows it."""

import base64
import html
import io
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from facenet_fast.errors import UserError
from facenet_fast.evaluation.exact import Interval, exact_verification, of_roc
from facenet_fast.evaluation.mistakes import IdentityErrors, identity_errors, worst_pairs
from facenet_fast.evaluation.roc import exact_roc
from facenet_fast.evaluation.verification import verify
from facenet_fast.report.page import Page, ShownPair, write_page
from facenet_fast.report.plots import DistanceHistogram, plot_det, plot_distances, plot_roc

FILES = ["det.png", "distances.png", "index.html", "metrics.json", "roc.png"]
EVIL = "<script>alert(1)</script> & \"quotes\" 'n' \udc80 \u0639\u0645\u0631"


def some_pairs(n_identities=40, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n_identities, 8))
    left = np.repeat(np.arange(n_identities), 6)
    right = np.where(
        np.arange(len(left)) % 2 == 0, left, (left + 1 + np.arange(len(left)) % 5) % n_identities
    )
    rows = [centres[side] + 0.5 * rng.normal(size=(len(side), 8)) for side in (left, right)]
    rows = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in rows]
    return *rows, left, right, np.arange(len(left)) // 2 % 4


def a_page(**changes):
    left, right, left_identity, right_identity, fold = some_pairs()
    is_same = left_identity == right_identity
    grid = verify(left, right, is_same, fold)
    exact = exact_verification(
        grid.distances,
        is_same,
        fold=fold,
        left_identity=left_identity,
        right_identity=right_identity,
        n_resamples=100,
    )
    rng = np.random.default_rng(1)
    photographs = rng.integers(0, 256, (80, 30, 20, 3), dtype=np.uint8)
    accepts, rejects = (
        [
            ShownPair(photographs[2 * n], photographs[2 * n + 1], f"left {pair}", f"right {pair}", d)
            for n, (pair, d) in enumerate(zip(pairs, grid.distances[pairs].tolist(), strict=True))
        ]
        for pairs in worst_pairs(grid.distances, is_same, exact.threshold, n=5)
    )
    errors = identity_errors(left_identity, right_identity, grid.distances, is_same, exact.threshold)
    accepted = grid.distances < exact.threshold
    page = Page(
        title="Verification of a network",
        subtitle="forty people",
        exact=exact,
        grid=grid,
        distance_name="squared Euclidean distance",
        similarity=lambda d: 1 - d / 2,
        histogram=DistanceHistogram.of(grid.distances, is_same),
        false_accepts=accepts,
        false_rejects=rejects,
        n_false_accepts=int(np.count_nonzero(accepted & ~is_same)),
        n_false_rejects=int(np.count_nonzero(~accepted & is_same)),
        judged_at=exact.threshold,
        judged_as="best accuracy",
        identity_errors=errors,
        n_identities=len(errors),
        measures={"recall@1": 0.4321, "images": "1,234"},
        settings={"batch_size": "90"},
        versions={"numpy": "2.0"},
    )
    return replace(page, **changes)


class Reader(HTMLParser):
    """Tags in order, text, and whether each that opens closes."""

    EMPTY = frozenset({"meta", "link", "img", "br"})

    def __init__(self):
        super().__init__()
        self.tags, self.text, self.open = [], "", []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def read(folder):
    source = (folder / "index.html").read_bytes().decode("utf-8")
    reader = Reader()
    reader.feed(source)
    assert reader.open == []
    reader.words = re.sub(r"\s+", " ", reader.text)
    return source, reader


@pytest.fixture(scope="module")
def page():
    return a_page()


@pytest.fixture(scope="module")
def written(page, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "new" / "folder"
    assert write_page(str(folder), page) == str(folder / "index.html")
    return folder


@pytest.fixture
def quick_dir(tmp_path, monkeypatch):
    """A folder for reports whose plots are one pixel: drawing them takes longer than all the rest."""

    def one_pixel(file, *_):
        Image.new("RGB", (1, 1)).save(file, "PNG")

    for name in ("plot_roc", "plot_det", "plot_distances"):
        monkeypatch.setattr(f"facenet_fast.report.page.{name}", one_pixel)
    return tmp_path


def png_of(draw, *arguments):
    picture = io.BytesIO()
    draw(picture, *arguments)
    return picture.getvalue()


def table_rows(source, caption):
    """Cells of the table of a caption, as text."""
    table = source[source.index(f"<caption>{caption}") :]
    rows = re.findall(r"<tr>(.*?)</tr>", table[: table.index("</table>")], flags=re.S)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, flags=re.S) for row in rows]


def test_the_files_are_there_and_nothing_else(written):
    assert sorted(path.name for path in written.iterdir()) == FILES


def test_the_numbers_are_on_the_page(written, page):
    _, reader = read(written)
    exact = page.exact
    words = [
        f"Accuracy{exact.accuracy:.4f} \u00b1 {exact.accuracy_std:.4f}95%: ",
        f"AUC{exact.auc:.4f}95%: {exact.intervals['auc'].low:.4f} to {exact.intervals['auc'].high:.4f}",
        f"EER{exact.eer:.4f}95%: ",
        f"VAL@FAR=0.1{exact.roc.at_far(0.1).val:.4f}95%: ",
        "120 pairs of one identity, 120 pairs of two.",
        "recall@10.4321",
        "batch_size90",
        "numpy2.0",
        "100 repetitions with the identities drawn again",
        *(f"{sentence}." for sentence in exact.refused),
    ]
    assert len(exact.refused) == 4
    for word in words:
        assert word in reader.words, word
    for name in ("accuracy", "eer", "val@0.1", "val@0.01"):
        interval = exact.intervals[name]
        assert f"{interval.low:.4f} to {interval.high:.4f}" in reader.words


def test_thresholds_are_told_as_distance_and_similarity(written, page):
    source, _ = read(written)
    heads, *rows = table_rows(source, "Thresholds")
    assert heads[1:3] == ["distance below", "similarity above"]
    assert [row[0] for row in rows] == ["FAR 0.1", "FAR 0.01", "best accuracy"]
    for row, point in zip(rows, page.exact.operating_points, strict=False):
        interval = page.exact.intervals[f"val@{point.far_target:g}"]
        assert row[1:] == [
            f"{point.threshold:.5g}",
            f"{1 - point.threshold / 2:.5g}",
            f"{point.far:.3g}",
            str(point.n_false_accepts),
            f"{point.val:.4f}",
            f"{interval.low:.4f} to {interval.high:.4f}",
        ]
    d, same = page.grid.distances, page.grid.is_same
    accepted = d < page.exact.threshold
    assert rows[-1][3:6] == [
        f"{np.mean(accepted[~same]):.3g}",
        str(np.count_nonzero(accepted & ~same)),
        f"{np.mean(accepted[same]):.4f}",
    ]


def test_without_similarity_there_is_no_such_column(page, quick_dir):
    write_page(str(quick_dir), replace(page, similarity=None))
    source, _ = read(quick_dir)
    heads, *rows = table_rows(source, "Thresholds")
    assert "similarity above" not in heads
    assert {len(row) for row in rows} == {len(heads)} == {6}


def test_the_lfw_protocol_stands_beside(written, page, quick_dir):
    source, _ = read(written)
    rows = {row[0]: row[1:] for row in table_rows(source, "Beside the LFW protocol")}
    grid, exact = page.grid, page.exact
    assert rows["AUC"] == [f"{exact.auc:.4f}", f"{grid.auc:.4f}"]
    assert rows["Accuracy"][1] == f"{grid.accuracy:.4f} &plusmn; {grid.accuracy_std:.4f}"
    assert rows["VAL@FAR=0.001"] == ["n/a", f"{grid.val:.4f} &plusmn; {grid.val_std:.4f}"]
    write_page(str(quick_dir), replace(page, grid=None, measures={}))
    _, reader = read(quick_dir)
    assert "LFW protocol" not in reader.text
    assert "Further measures" not in reader.text


def test_every_picture_is_in_the_page(written, page):
    _, reader = read(written)
    images = reader.all("img")
    assert len(images) == 3 + 2 * (len(page.false_accepts) + len(page.false_rejects))
    for image in images:
        kind, data = re.fullmatch(r"data:image/(png|jpeg);base64,(.+)", image["src"]).groups()
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert picture.format == kind.upper()
            picture.load()
        assert image["alt"]
    pngs = [base64.b64decode(image["src"].split(",")[1]) for image in images[:3]]
    assert pngs == [(written / name).read_bytes() for name in ("roc.png", "det.png", "distances.png")]


def test_the_plots_are_of_what_the_page_tells(written, page):
    roc, points = page.exact.roc, page.exact.operating_points
    assert (written / "roc.png").read_bytes() == png_of(plot_roc, roc, points)
    assert (written / "det.png").read_bytes() == png_of(plot_det, roc, points)
    of_distances = page.histogram, page.judged_at, page.distance_name
    assert (written / "distances.png").read_bytes() == png_of(plot_distances, *of_distances)


def test_nothing_is_fetched_and_nothing_runs(written):
    source, reader = read(written)
    without_pictures = re.sub(r"base64,[A-Za-z0-9+/=]+", "", source)
    assert not re.search(r"https?:|//\w|url\(|@import|<script|\bon\w+=", without_pictures)
    assert not set(dict(reader.tags)) & {"script", "iframe", "object", "embed", "form", "a", "base"}
    assert {attrs["href"] for attrs in reader.all("link")} == {"data:,"}
    policies = [a["content"] for a in reader.all("meta") if a.get("http-equiv")]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_the_page_can_be_read_aloud(written):
    source, reader = read(written)
    assert source.startswith("<!DOCTYPE html>")
    assert reader.all("html") == [{"lang": "en"}]
    assert "<title>Verification of a network</title>" in source
    assert [tag for tag, _ in reader.tags if re.fullmatch("h[1-3]", tag)][:2] == ["h1", "h2"]
    assert len(reader.all("h1")) == 1
    assert {attrs.get("scope") for attrs in reader.all("th")} == {"row", "col"}
    assert len(reader.all("caption")) == len(reader.all("table"))
    ids = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["aria-labelledby"] for attrs in reader.all("section")} <= set(ids)


def test_mistakes_are_shown_with_names_and_distances(written, page):
    _, reader = read(written)
    assert f"False accepts: the worst 5 of {page.n_false_accepts}" in reader.words
    for pair in (*page.false_accepts, *page.false_rejects):
        assert f"{pair.distance:#.4g}{pair.left_name}{pair.right_name}" in reader.text
    assert [a["alt"] for a in reader.all("img")[3:5]] == [
        page.false_accepts[0].left_name,
        page.false_accepts[0].right_name,
    ]


def test_no_mistakes_are_told_too(page, quick_dir):
    changes = {"false_accepts": (), "false_rejects": (), "identity_errors": ()}
    write_page(str(quick_dir), replace(page, **changes, n_false_accepts=0, n_false_rejects=7))
    _, reader = read(quick_dir)
    assert "False accepts: noneNo pair of two identities is accepted." in reader.text
    assert "False rejects: 7Their images are not at hand." in reader.text
    assert "None of 40 identities has errors." in reader.text


def test_a_hundred_identities_are_shown_and_the_rest_counted(page, quick_dir):
    errors = [IdentityErrors(f"Person {n:03}", 5, 1 + (n < 50), 7, 1) for n in range(130)]
    errors.append(IdentityErrors("Faultless", 3, 0, 0, 0))
    write_page(str(quick_dir), replace(page, identity_errors=errors, n_identities=500))
    source, reader = read(quick_dir)
    rows = table_rows(source, "Most errors first")[1:]
    assert len(rows) == 100
    assert rows[0] == ["Person 000", "3", "2 of 5", "1 of 7"]
    assert "130 of 500 identities have errors" in reader.words
    assert "And 30 more identities with errors" in reader.words
    assert "Faultless" not in reader.text
    assert len(json.loads((quick_dir / "metrics.json").read_text())["identity_errors"]) == 130


def test_any_name_is_only_text(page, tmp_path):
    pair = replace(page.false_accepts[0], left_name=EVIL, right_name="x" * 300)
    changed = replace(
        page,
        title=EVIL,
        subtitle=EVIL,
        judged_as=EVIL,
        distance_name="distance & <b> \u00b2",
        false_accepts=(pair,),
        identity_errors=(IdentityErrors(EVIL, 1, 1, 0, 0),),
        measures={EVIL: EVIL},
        settings={EVIL: EVIL},
        versions={EVIL: EVIL},
    )
    write_page(str(tmp_path), changed)
    source, reader = read(tmp_path)
    assert "script" not in dict(reader.tags)
    assert "<script" not in source
    shown = EVIL.replace("\udc80", "?")
    assert reader.text.count(shown) >= 11
    assert reader.all("img")[3]["alt"] == shown
    assert json.loads((tmp_path / "metrics.json").read_text())["title"] == EVIL


def test_metrics_hold_every_number(written, page):
    metrics = json.loads((written / "metrics.json").read_text(), parse_constant=pytest.fail)
    exact = page.exact
    for name in ("accuracy", "accuracy_std", "best_accuracy", "threshold", "auc", "eer", "confidence"):
        assert metrics[name] == getattr(exact, name), name
    assert (metrics["n_same"], metrics["n_different"]) == (120, 120)
    assert metrics["intervals"]["auc"] == {
        "low": exact.intervals["auc"].low,
        "high": exact.intervals["auc"].high,
    }
    assert [point["far_target"] for point in metrics["operating_points"]] == [0.1, 0.01]
    point = metrics["operating_points"][0]
    assert point["similarity"] == 1 - point["threshold"] / 2
    assert metrics["refused"] == list(exact.refused)
    assert metrics["lfw_protocol"]["val"] == page.grid.val
    assert metrics["mistakes"]["n_false_accepts"] == page.n_false_accepts
    assert metrics["measures"] == page.measures
    assert metrics["settings"] == page.settings


def test_what_is_not_known_is_null_and_not_nan(page, quick_dir):
    exact = replace(of_roc(page.exact.roc), intervals={"auc": Interval(math.nan, math.nan)})
    grid = replace(page.grid, val=math.nan, val_std=math.nan)
    write_page(str(quick_dir), replace(page, exact=exact, grid=grid, measures={"recall@1": math.nan}))
    metrics = json.loads((quick_dir / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert metrics["accuracy"] is None
    assert metrics["intervals"]["auc"] == {"low": None, "high": None}
    assert metrics["measures"] == {"recall@1": None}
    source, reader = read(quick_dir)
    assert "nan" not in re.sub(r"\bname\b", "", reader.text)
    # Without folds any accuracy is near 1, and is not shown.
    assert "best accuracy" not in [row[0] for row in table_rows(source, "Thresholds")]
    assert "recall@1n/a" in reader.words


def test_a_threshold_that_accepts_nothing_is_none(page, quick_dir):
    roc = exact_roc(np.r_[np.full(50, 2.0), np.full(50, 1.0)], np.arange(100) < 50)
    write_page(str(quick_dir), replace(page, exact=of_roc(roc), grid=None))
    source, _ = read(quick_dir)
    assert table_rows(source, "Thresholds")[1][1:6] == ["n/a", "n/a", "0", "0", "0.0000"]


def test_counted_distances_say_how_exact_thresholds_are(page, quick_dir):
    roc = replace(page.exact.roc, threshold_error=0.00061)
    write_page(str(quick_dir), replace(page, exact=replace(page.exact, roc=roc)))
    assert "thresholds are right to within 0.00061" in read(quick_dir)[1].words


def test_photographs_are_made_small(page, quick_dir):
    large = np.random.default_rng(0).integers(0, 256, (900, 600, 3), dtype=np.uint8)
    pair = ShownPair(large, large[::2, ::3], "a", "b", 0.5)
    write_page(str(quick_dir), replace(page, false_accepts=(pair,)))
    data = read(quick_dir)[1].all("img")[3]["src"].split(",")[1]
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert picture.size == (107, 160)


def test_a_report_replaces_an_earlier_one(page, quick_dir):
    (quick_dir / "index.html").write_text("old")
    (quick_dir / "mine.txt").write_text("mine")
    write_page(str(quick_dir), page)
    assert (quick_dir / "index.html").read_text()[:3] != "old"
    assert sorted(path.name for path in quick_dir.iterdir()) == sorted([*FILES, "mine.txt"])


def test_a_write_that_fails_leaves_nothing_half_written(page, quick_dir, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    (quick_dir / "index.html").write_text("old")
    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UserError, match=r"cannot write .*roc.png.: No space left on device"):
        write_page(str(quick_dir), page)
    assert [path.name for path in quick_dir.iterdir()] == ["index.html"]
    assert (quick_dir / "index.html").read_text() == "old"


def test_a_folder_that_cannot_be_is_refused(page, quick_dir):
    (quick_dir / "file").write_text("x")
    with pytest.raises(UserError, match=r"the folder of the report must be writable; '.*file'"):
        write_page(str(quick_dir / "file"), page)


# ----------------------------------------------------------------------------------------------------------
# Plots


def pixels_of(draw, *arguments):
    with Image.open(io.BytesIO(png_of(draw, *arguments))) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def inked(pixels, colour):
    wanted = np.array([int(colour[n : n + 2], 16) for n in (1, 3, 5)])
    return np.abs(pixels - wanted).max(axis=2) < 12


ROCS = {
    "usual": lambda: a_page().exact.roc,
    "perfect": lambda: exact_roc(np.arange(100) / 50, np.arange(100) < 50),
    "inverted": lambda: exact_roc(np.arange(100) / 50, np.arange(100) >= 50),
    "one pair of each": lambda: exact_roc([0.1, 0.2], [True, False]),
    "all ties": lambda: exact_roc(np.ones(20), np.arange(20) < 10),
    "many": lambda: exact_roc(np.random.default_rng(0).random(30_000), np.arange(30_000) % 3 == 0),
}


@pytest.mark.parametrize("name", ROCS)
@pytest.mark.parametrize("draw", [plot_roc, plot_det])
def test_curves_of_any_kind_are_drawn(name, draw):
    roc = ROCS[name]()
    pixels = pixels_of(draw, roc, of_roc(roc).operating_points)
    assert pixels.shape[0] > 800
    assert inked(pixels, "#0072b2").sum() > 1000


@pytest.mark.parametrize("draw", [plot_roc, plot_det])
def test_operating_points_are_marked(draw):
    roc = ROCS["usual"]()
    points = of_roc(roc).operating_points
    marks = [inked(pixels_of(draw, roc, points[:n]), "#e69f00").sum() for n in (0, 1, 2)]
    assert marks[0] == 0
    # The legend has a mark of its own.
    assert marks[1] > 0
    assert marks[2] > marks[1]


def test_both_kinds_of_distances_and_the_threshold_are_drawn():
    histogram = DistanceHistogram.of(np.r_[np.full(10, 0.2), np.full(10, 1.8)], np.arange(20) < 10)
    pixels = pixels_of(plot_distances, histogram, 1.0)
    # 0.6 of the colour on white.
    columns = [np.flatnonzero(inked(pixels, colour).sum(axis=0) > 200) for colour in ("#66aad1", "#e69e66")]
    line = np.flatnonzero((pixels[250:600] < 80).all(axis=2).sum(axis=0) > 100)
    line = line[(line > columns[0].max()) & (line < columns[1].min())]
    assert len(line) > 0
    assert line.mean() == pytest.approx((columns[0].mean() + columns[1].mean()) / 2, abs=10)


def test_many_bins_are_drawn_as_few_and_none_is_lost():
    d = np.random.default_rng(0).random(5000)
    is_same = np.arange(5000) % 2 == 0
    edges = np.linspace(0, 8, 65_537)
    fine = DistanceHistogram(edges, *(np.histogram(d[k], edges)[0] for k in (is_same, ~is_same)))
    from facenet_fast.report.plots import _coarse

    coarse_edges, kinds = _coarse(fine)
    assert len(coarse_edges) <= 61
    assert coarse_edges[0] == 0
    assert coarse_edges[-1] == pytest.approx(d.max(), abs=8 / 65_536)
    for counts, chosen in zip(kinds, (is_same, ~is_same), strict=True):
        wanted = [
            np.count_nonzero((d[chosen] >= low) & (d[chosen] < high)) for low, high in pairwise(coarse_edges)
        ]
        assert counts.tolist() == wanted


def test_histograms_count_every_pair():
    d = np.array([0.0, 0.0, 0.1, 0.7, 2.0, 2.0])
    histogram = DistanceHistogram.of(d, [True, False, True, False, True, False])
    assert (histogram.n_same.sum(), histogram.n_different.sum()) == (3, 3)
    assert (histogram.n_same[0], histogram.n_same[-1], histogram.n_same[3]) == (1, 1, 1)
    plot_distances(io.BytesIO(), DistanceHistogram.of([0.0, 0.0], [True, False]), 0.0)


@pytest.mark.parametrize("lengths", [(3, 3, 2), (3, 2, 3), (2, 2, 2), (1, 0, 0)])
def test_histograms_have_one_edge_more_than_bins(lengths):
    with pytest.raises(UserError, match="one edge more than bins"):
        DistanceHistogram(*(np.zeros(n) for n in lengths))


# ----------------------------------------------------------------------------------------------------------
# In a browser

WATCH = """
<script>
window.faults = [];
window.onerror = (text) => { window.faults.push(text); };
document.addEventListener("securitypolicyviolation", (one) => window.faults.push(one.blockedURI));
window.addEventListener("load", () => {
  const root = document.documentElement;
  parent.postMessage({
    images: Array.from(document.images, (image) => image.complete && image.naturalWidth > 0),
    width: window.innerWidth,
    overflow: root.scrollWidth - root.clientWidth,
    background: getComputedStyle(document.body).backgroundColor,
    faults: window.faults,
  }, "*");
});
</script>
"""
# The page is told about from a frame: a window of Chromium's is never narrower than 500 pixels.
FRAME = """
<body><script>
window.addEventListener("message", (one) => { document.body.textContent = JSON.stringify(one.data); });
</script><iframe src="copy.html" width="WIDTH" height="900" style="border: 0"></iframe></body>
"""


def browse(path, profile_dir, *options):
    """Load a page in Chromium; return its DOM and what the console says."""
    browser = shutil.which("chromium") or pytest.skip("no browser: chromium is not on PATH")
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--enable-logging=stderr",
        "--v=0",
        "--virtual-time-budget=5000",
        f"--user-data-dir={profile_dir}",
        *options,
        "--dump-dom",
        path.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    console = [line for line in done.stderr.decode(errors="replace").splitlines() if "CONSOLE" in line]
    return done.stdout.decode(), console


def told(source, folder, width, *, dark=False):
    """Give a page a script that tells what the browser makes of it, and return that."""
    policy = "style-src 'unsafe-inline'"
    source = source.replace(policy, f"{policy}; script-src 'unsafe-inline'")
    source = source.replace("<style>", f"{WATCH}<style>")
    (folder / "copy.html").write_text(source, encoding="utf-8")
    (folder / "frame.html").write_text(FRAME.replace("WIDTH", str(width)))
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    dom, console = browse(folder / "frame.html", folder / "profile", scheme)
    return json.loads(html.unescape(re.search(r"<body>({.*})</body>", dom).group(1))), console


def test_a_browser_has_nothing_to_complain_about(written, tmp_path):
    dom, console = browse(written / "index.html", tmp_path)
    assert "Which threshold should I use?" in dom
    assert console == []


@pytest.mark.parametrize(("width", "dark"), [(400, False), (1600, True)])
def test_a_browser_shows_every_picture_and_scrolls_no_way_but_down(page, written, tmp_path, width, dark):
    answers, console = told(read(written)[0], tmp_path, width, dark=dark)
    assert answers == {
        "images": [True] * (3 + 2 * len((*page.false_accepts, *page.false_rejects))),
        "width": width,
        "overflow": 0,
        "background": "rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)",
        "faults": [],
    }
    assert console == []


def test_the_browser_would_tell(written, tmp_path):
    source = read(written)[0].replace("image/png;base64,", "image/png;base64,AAAA", 1)
    wide = '<div style="width: 5000px">wide</div><script>undefined_name()</script>'
    source = source.replace("<main>", f'<main><img src="http://localhost:9/x.png">{wide}')
    answers, console = told(source, tmp_path, 400)
    assert answers["images"][:3] == [False, False, True]
    assert answers["overflow"] > 4000
    assert sorted(answers["faults"]) == [
        "Uncaught ReferenceError: undefined_name is not defined",
        "http://localhost:9/x.png",
    ]
    assert len(console) == 2
