"""The report of a verification: one HTML page that needs nothing else, its plots, and its numbers as JSON."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet_fast.errors import UserError
from facenet_fast.evaluation.exact import ExactVerification
from facenet_fast.evaluation.mistakes import IdentityErrors
from facenet_fast.evaluation.verification import Verification
from facenet_fast.files import written_aside
from facenet_fast.report.plots import DistanceHistogram, plot_det, plot_distances, plot_roc

__all__ = ["METRICS_FILE", "PAGE_FILE", "PLOT_FILES", "Page", "ShownPair", "write_page"]

PAGE_FILE = "index.html"
METRICS_FILE = "metrics.json"
PLOT_FILES = ("roc.png", "det.png", "distances.png")

_MAX_IDENTITIES = 100
# Shown at 128 pixels: larger photographs would only make the page heavy.
_MAX_SIDE = 160
_NONE = "n/a"


@dataclass(frozen=True)
class ShownPair:
    """Two photographs and how far they are apart.

    Attributes
    ----------
    left, right : uint8 (h, w, 3)
        The photographs, of any size; shown at 128 pixels.
    left_name, right_name : str
        What they are called.
    distance : float
        Of the two.
    """

    left: NDArray[np.uint8]
    right: NDArray[np.uint8]
    left_name: str
    right_name: str
    distance: float


@dataclass(frozen=True, kw_only=True)
class Page:
    """What the page shows.

    Attributes
    ----------
    title, subtitle : str
        What was verified, and on what.
    exact : ExactVerification
        The numbers.
    grid : Verification or None
        The LFW protocol's numbers of the same pairs, shown beside.
    distance_name : str
        Like "squared Euclidean distance".
    similarity : callable or None
        Turns a threshold of distance into one of similarity (for unit vectors the cosine, ``1 - d / 2``).
    histogram : DistanceHistogram
        The distances of all pairs.
    false_accepts, false_rejects : sequence of ShownPair
        The worst pairs judged wrongly, worst first.
    n_false_accepts, n_false_rejects : int
        How many there are in all.
    judged_at : float
        The threshold they are judged at.
    judged_as : str
        Where that is from, like "best accuracy" or "FAR=0.001".
    identity_errors : sequence of IdentityErrors
        Those with errors are shown, the first hundred of them, in the order given.
    n_identities : int
        How many identities the pairs are of.
    measures : mapping of str to float or str
        Further numbers, like recall@1.
    settings, versions : mapping of str to str
        What the numbers were made with.
    """

    title: str
    subtitle: str
    exact: ExactVerification
    grid: Verification | None
    distance_name: str
    similarity: Callable[[float], float] | None
    histogram: DistanceHistogram
    false_accepts: Sequence[ShownPair]
    false_rejects: Sequence[ShownPair]
    n_false_accepts: int
    n_false_rejects: int
    judged_at: float
    judged_as: str
    identity_errors: Sequence[IdentityErrors]
    n_identities: int
    measures: Mapping[str, float | str]
    settings: Mapping[str, str]
    versions: Mapping[str, str]


def write_page(report_dir: str, page: Page) -> str:
    """Write the report: `index.html`, `roc.png`, `det.png`, `distances.png` and `metrics.json`.

    The page holds its pictures and asks the network for nothing. Each file is written aside and renamed; the
    page is the last.

    Parameters
    ----------
    report_dir : str
        The folder, made if missing; files of an earlier report are replaced.
    page : Page
        What to show.

    Returns
    -------
    str
        The path of `index.html`.

    Raises
    ------
    UserError
        If the folder or a file in it cannot be written.
    """
    exact = page.exact
    pictures = [io.BytesIO() for _ in PLOT_FILES]
    plot_roc(pictures[0], exact.roc, exact.operating_points)
    plot_det(pictures[1], exact.roc, exact.operating_points)
    plot_distances(pictures[2], page.histogram, page.judged_at, page.distance_name)
    plots = {name: picture.getvalue() for name, picture in zip(PLOT_FILES, pictures, strict=True)}
    metrics = json.dumps(_plain(_metrics(page)), indent=2, allow_nan=False) + "\n"
    files = {
        **plots,
        METRICS_FILE: metrics.encode(),
        # A name on disk need not be UTF-8; what is not becomes a question mark.
        PAGE_FILE: _html(page, plots).encode("utf-8", errors="replace"),
    }
    try:
        os.makedirs(report_dir, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the folder of the report must be writable; {report_dir!r}: {error.strerror}"
        ) from error
    for name, content in files.items():
        with written_aside(os.path.join(report_dir, name)) as aside, open(aside, "wb") as file:
            file.write(content)
    return os.path.join(report_dir, PAGE_FILE)


def _metrics(page: Page) -> dict[str, Any]:
    exact, grid = page.exact, page.grid
    return {
        "title": page.title,
        "subtitle": page.subtitle,
        "distance": page.distance_name,
        "n_same": exact.roc.n_same,
        "n_different": exact.roc.n_different,
        "threshold_error": exact.roc.threshold_error,
        "accuracy": exact.accuracy,
        "accuracy_std": exact.accuracy_std,
        "best_accuracy": exact.best_accuracy,
        "threshold": exact.threshold,
        "auc": exact.auc,
        "eer": exact.eer,
        "operating_points": [
            {**asdict(point), "similarity": page.similarity(point.threshold) if page.similarity else None}
            for point in exact.operating_points
        ],
        "refused": exact.refused,
        "intervals": {name: asdict(interval) for name, interval in exact.intervals.items()},
        "confidence": exact.confidence,
        "n_resamples": exact.n_resamples,
        "resampled": exact.resampled,
        "lfw_protocol": None
        if grid is None
        else {
            "accuracy": grid.accuracy,
            "accuracy_std": grid.accuracy_std,
            "threshold": grid.threshold,
            "far_target": grid.far_target,
            "val": grid.val,
            "val_std": grid.val_std,
            "far": grid.far,
            "auc": grid.auc,
            "eer": grid.eer,
        },
        "mistakes": {
            "threshold": page.judged_at,
            "judged_as": page.judged_as,
            "n_false_accepts": page.n_false_accepts,
            "n_false_rejects": page.n_false_rejects,
        },
        "n_identities": page.n_identities,
        "identity_errors": [asdict(one) for one in page.identity_errors if one.n_errors],
        "measures": page.measures,
        "settings": page.settings,
        "versions": page.versions,
    }


def _plain(value: Any) -> Any:
    """Turn numbers of numpy into Python's and those that JSON has no word for into null."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


# ----------------------------------------------------------------------------------------------------------
# The page. Every text goes through _text on its way in, every number through a format.


def _html(page: Page, plots: Mapping[str, bytes]) -> str:
    sections = (
        _numbers_section(page),
        _plots_section(page, plots),
        _thresholds_section(page),
        _pairs_section(page),
        _identities_section(page),
        _settings_section(page),
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{_text(page.title)}</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>{_text(page.title)}</h1>
<p>{_text(page.subtitle)}</p>
<p class="note">{page.exact.roc.n_same:,} pairs of one identity,
{page.exact.roc.n_different:,} pairs of two.</p>
</header>
<main>
{"".join(sections)}
</main>
</body>
</html>
"""


def _numbers_section(page: Page) -> str:
    exact = page.exact
    cards = [
        *(
            [_card("Accuracy", _with_std(exact.accuracy, exact.accuracy_std), _interval(exact, "accuracy"))]
            if _in_folds(exact)
            else []
        ),
        _card("AUC", _rate(exact.auc), _interval(exact, "auc")),
        _card("EER", _rate(exact.eer), _interval(exact, "eer")),
    ]
    cards += [
        _card(f"VAL@FAR={point.far_target:g}", _rate(point.val), _interval(exact, _key(point.far_target)))
        for point in exact.operating_points
    ]
    tables = [f"<div>{table}</div>" for table in (_protocol_table(page), _measures_table(page)) if table]
    return _section(
        "numbers",
        "Numbers",
        f'<dl class="cards">{"".join(cards)}</dl>',
        f'<div class="columns">{"".join(tables)}</div>' if tables else "",
        _glossary(page),
    )


def _in_folds(exact: ExactVerification) -> bool:
    """Tell whether pairs are in folds; of all pairs there are, few are same and any accuracy is near 1."""
    return not math.isnan(exact.accuracy)


def _card(name: str, value: str, note: str) -> str:
    return f'<div><dt>{name}</dt><dd>{value}</dd><dd class="note">{note}</dd></div>'


def _protocol_table(page: Page) -> str:
    """Lay the LFW protocol's numbers beside the exact ones."""
    exact, grid = page.exact, page.grid
    if grid is None:
        return ""
    vals = {point.far_target: point.val for point in exact.operating_points}
    rows = [
        (
            "Accuracy",
            _with_std(exact.accuracy, exact.accuracy_std),
            _with_std(grid.accuracy, grid.accuracy_std),
        ),
        (
            f"VAL@FAR={grid.far_target:g}",
            _rate(vals.get(grid.far_target, math.nan)),
            _with_std(grid.val, grid.val_std),
        ),
        ("AUC", _rate(exact.auc), _rate(grid.auc)),
        ("EER", _rate(exact.eer), _rate(grid.eer)),
        ("Threshold of best accuracy", _threshold(exact.threshold), _threshold(grid.threshold)),
    ]
    return _table("Beside the LFW protocol", ("", "exact", "LFW protocol"), rows) + (
        '<p class="note">The LFW protocol tries thresholds in fixed steps and takes VAL as the mean over the '
        "folds; published tables are made so. The exact numbers try every threshold that matters.</p>"
    )


def _measures_table(page: Page) -> str:
    rows = [
        (_text(name), _text(value) if isinstance(value, str) else _rate(value))
        for name, value in page.measures.items()
    ]
    return _table("Further measures", ("", "value"), rows) if rows else ""


def _glossary(page: Page) -> str:
    exact = page.exact
    words = {
        "Accuracy": "share of pairs judged rightly. Two images are taken for one identity where their "
        "distance is below a threshold; it is chosen on the other folds. &plusmn; is the standard deviation "
        "over the folds.",
        "FAR": "false accept rate: of the pairs of two identities, the share that is taken for one.",
        "VAL": "validation rate or true accept rate: of the pairs of one identity, the share accepted.",
        "VAL@FAR": "VAL at the largest threshold that keeps FAR within the number given.",
        "EER": "equal error rate: where the share of same pairs rejected equals that of different pairs "
        "accepted.",
        "AUC": "area under the ROC curve: how often a same pair is nearer than a different pair. 1 is "
        "perfect, 0.5 is chance.",
    }
    if exact.intervals:
        drawn = _text(exact.resampled)
        words["Interval"] = (
            f"where the number falls in {100 * exact.confidence:g}% of {exact.n_resamples:,} repetitions "
            f"with the {drawn} drawn again by chance: how far it may move with other {drawn} of this kind."
        )
    items = "".join(f"<dt>{word}</dt><dd>{meaning}</dd>" for word, meaning in words.items())
    return f'<details><summary>What the words mean</summary><dl class="words">{items}</dl></details>'


def _plots_section(page: Page, plots: Mapping[str, bytes]) -> str:
    exact = page.exact
    points = "; ".join(f"VAL {point.val:.3f} at FAR {point.far_target:g}" for point in exact.operating_points)
    shown = {
        "roc.png": (
            f"ROC curve, true accept rate over false accept rate, AUC {exact.auc:.4f}. {points}",
            "Which share of same pairs is accepted, for each share of different pairs accepted. "
            "Higher is better; note the logarithmic axis.",
        ),
        "det.png": (
            f"DET curve, false rejects over false accepts in percent, EER {exact.eer:.4f}",
            "The same trade between the two kinds of error. Lower is better; normal distributions of "
            "distances make a straight line.",
        ),
        "distances.png": (
            f"Histograms of the {page.distance_name} of pairs of one identity and of pairs of two, "
            f"with the threshold {page.judged_at:.4g}",
            f"How far pairs are apart. The less the two hills overlap, the better. The dashed line is the "
            f"threshold of {page.judged_as}.",
        ),
    }
    figures = "".join(
        f'<figure class="plot"><img src="{_data_uri("png", plots[name])}" alt="{_text(alt)}">'
        f"<figcaption>{_text(caption)}</figcaption></figure>"
        for name, (alt, caption) in shown.items()
    )
    return _section("plots", "Plots", f'<div class="plots">{figures}</div>')


def _thresholds_section(page: Page) -> str:
    exact = page.exact
    points = exact.operating_points
    best = _judged(exact, exact.threshold)
    rows = [
        (
            f"FAR {point.far_target:g}",
            *_thresholds(page, point.threshold if point.n_true_accepts + point.n_false_accepts else math.nan),
            f"{point.far:.3g}",
            f"{point.n_false_accepts:,}",
            _rate(point.val),
            _range(exact, _key(point.far_target)),
        )
        for point in points
    ]
    if _in_folds(exact):
        rows.append(
            (
                "best accuracy",
                *_thresholds(page, exact.threshold),
                f"{best[0] / max(exact.roc.n_different, 1):.3g}",
                f"{best[0]:,}",
                _rate(best[1] / max(exact.roc.n_same, 1)),
                _NONE,
            )
        )
    heads = (
        "at most",
        "distance below",
        *(("similarity above",) if page.similarity else ()),
        "FAR reached",
        "false accepts",
        "VAL",
        "interval of VAL",
    )
    error = exact.roc.threshold_error
    refused = "".join(f"<li>{_text(sentence)}.</li>" for sentence in exact.refused)
    return _section(
        "thresholds",
        "Which threshold should I use?",
        "<p>Decide how often two different people may be taken for one, and use the threshold of that FAR: "
        f"accept a pair where its {_text(page.distance_name)} is <em>below</em> it. A door may want 0.001 "
        "or less, a photo album bears 0.01. Thresholds hold for this network and for faces like these.</p>",
        _table(f"Thresholds, of {exact.roc.n_different:,} pairs of two identities", heads, rows),
        f'<p class="note">Distances were counted in steps: thresholds are right to within {error:.2g}.</p>'
        if error
        else "",
        f'<ul class="refused">{refused}</ul>' if refused else "",
    )


def _pairs_section(page: Page) -> str:
    def shown(kind: str, none: str, pairs: Sequence[ShownPair], n_pairs: int) -> str:
        if not n_pairs:
            return f"<h3>{kind}: none</h3><p>{none}</p>"
        which = f"the worst {len(pairs)} of {n_pairs:,}" if len(pairs) < n_pairs else f"all {n_pairs:,}"
        if not pairs:
            return f"<h3>{kind}: {n_pairs:,}</h3><p>Their images are not at hand.</p>"
        return f'<h3>{kind}: {which}</h3><div class="pairs">{"".join(map(_figure, pairs))}</div>'

    return _section(
        "mistakes",
        "Worst mistakes",
        f"<p>Judged at the threshold of {_text(page.judged_as)}, {_threshold(page.judged_at)}. Look for "
        "wrong labels here before you look for faults of the network.</p>",
        shown(
            "False accepts",
            "No pair of two identities is accepted.",
            page.false_accepts,
            page.n_false_accepts,
        ),
        shown(
            "False rejects", "No pair of one identity is rejected.", page.false_rejects, page.n_false_rejects
        ),
    )


def _figure(pair: ShownPair) -> str:
    sides = ((pair.left, pair.left_name), (pair.right, pair.right_name))
    images = "".join(
        f'<img src="{_data_uri("jpeg", _jpeg(image))}" alt="{_text(name)}">' for image, name in sides
    )
    names = "".join(f"<div><bdi>{_text(name)}</bdi></div>" for _, name in sides)
    return f"<figure>{images}<figcaption><b>{pair.distance:#.4g}</b>{names}</figcaption></figure>"


def _identities_section(page: Page) -> str:
    wrong = [one for one in page.identity_errors if one.n_errors]
    if not wrong:
        return _section(
            "identities", "Errors by identity", f"<p>None of {page.n_identities:,} identities has errors.</p>"
        )
    rows = [
        (
            _text(one.name),
            f"{one.n_errors:,}",
            _of(one.n_false_rejects, one.n_same),
            _of(one.n_false_accepts, one.n_different),
        )
        for one in wrong[:_MAX_IDENTITIES]
    ]
    rest = len(wrong) - len(rows)
    heads = ("identity", "errors", "false rejects", "false accepts")
    return _section(
        "identities",
        "Errors by identity",
        f"<p>{len(wrong):,} of {page.n_identities:,} identities have errors at the threshold of "
        f"{_text(page.judged_as)}. A pair of two identities counts for both.</p>",
        _table("Most errors first", heads, rows, kind="tall"),
        f'<p class="note">And {rest:,} more identities with errors; {METRICS_FILE} has all.</p>'
        if rest
        else "",
    )


def _settings_section(page: Page) -> str:
    tables = (
        _table(
            name, ("", "value"), [(_text(key), _text(value)) for key, value in values.items()], kind="texts"
        )
        for name, values in (("Settings", page.settings), ("Versions", page.versions))
        if values
    )
    return _section(
        "settings",
        "How this was made",
        f'<div class="columns">{"".join(f"<div>{table}</div>" for table in tables)}</div>',
        f'<p class="note">All numbers of this page are in {METRICS_FILE} beside it.</p>',
    )


def _section(name: str, heading: str, *parts: str) -> str:
    return (
        f'<section aria-labelledby="{name}">\n<h2 id="{name}">{heading}</h2>\n{"".join(parts)}\n</section>\n'
    )


def _table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], *, kind: str = "") -> str:
    """Lay out cells of HTML; the first of each row is its head. Wide tables scroll by themselves."""
    columns = "".join(f'<th scope="col">{head}</th>' if head else "<td></td>" for head in heads)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>\n'
        for row in rows
    )
    return (
        f'<div class="table {kind}" role="region" aria-label="{caption}" tabindex="0">'
        f"<table><caption>{caption}</caption>"
        f"<thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _thresholds(page: Page, threshold: float) -> tuple[str, ...]:
    """Give a threshold's cells: distance and, where there is one, similarity."""
    if page.similarity is None:
        return (_threshold(threshold),)
    return _threshold(threshold), _threshold(page.similarity(threshold))


def _judged(exact: ExactVerification, threshold: float) -> tuple[int, int]:
    """Count false and true accepts below a threshold."""
    roc = exact.roc
    entry = int(np.searchsorted(roc.thresholds, threshold, side="left")) - 1
    if entry < 0:
        return 0, 0
    return round(roc.fpr[entry] * roc.n_different), round(roc.tpr[entry] * roc.n_same)


def _interval(exact: ExactVerification, key: str) -> str:
    text = _range(exact, key)
    return "" if text == _NONE else f"{100 * exact.confidence:g}%: {text}"


def _range(exact: ExactVerification, key: str) -> str:
    interval = exact.intervals.get(key)
    if interval is None or math.isnan(interval.low):
        return _NONE
    return f"{interval.low:.4f} to {interval.high:.4f}"


def _key(far: float) -> str:
    return f"val@{far:g}"


def _with_std(value: float, std: float) -> str:
    return _NONE if math.isnan(value) else f"{value:.4f} &plusmn; {std:.4f}"


def _rate(value: float) -> str:
    return _NONE if math.isnan(value) else f"{value:.4f}"


def _threshold(value: float) -> str:
    return _NONE if math.isnan(value) else f"{value:.5g}"


def _of(n: int, of: int) -> str:
    return f"{n:,} of {of:,}" if of else "&ndash;"


def _text(value: object) -> str:
    return html.escape(str(value))


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    photograph = Image.fromarray(np.ascontiguousarray(image))
    photograph.thumbnail((_MAX_SIDE, _MAX_SIDE))
    written = io.BytesIO()
    photograph.save(written, "JPEG", quality=85)
    return written.getvalue()


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


# Nothing is fetched and nothing runs, whatever a name holds.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --paper: #fff; --tint: #f3f5f7;
  --line: #d5dae0; --strong: #0064a3; --warn: #fff4e0; --warn-line: #d98a00; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ed; --soft: #a3adb8; --paper: #14171b; --tint: #1f242a; --line: #3a424b;
    --strong: #6cbcf0; --warn: #33280f; --warn-line: #e69f00; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0.5rem 0; }
h2 { font-size: 1.3rem; margin: 2.2rem 0 0.8rem; padding-bottom: 0.2rem;
  border-bottom: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.4rem 0 0.6rem; }
header p { margin: 0.2rem 0; }
p { max-width: 48rem; }
.note, figcaption { color: var(--soft); font-size: 0.875rem; }
.refused { border-left: 4px solid var(--warn-line); background: var(--warn); margin: 0.8rem 0;
  max-width: 48rem; padding: 0.4rem 0.8rem 0.4rem 2rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 11rem), 1fr));
  gap: 0.75rem; margin: 0 0 1rem; }
.cards > div { background: var(--tint); border-radius: 8px; padding: 0.6rem 0.8rem; }
.cards dt { color: var(--soft); font-size: 0.9rem; }
.cards dd { margin: 0; font-size: 1.15rem; font-weight: 600; color: var(--strong); white-space: nowrap; }
.cards dd.note { font-size: 0.8125rem; font-weight: 400; color: var(--soft); white-space: normal; }
.words { display: grid; grid-template-columns: max-content 1fr; gap: 0.4rem 1rem; max-width: 56rem; }
.words dt { font-weight: 600; }
.words dd { margin: 0; }
summary { cursor: pointer; font-weight: 600; margin: 0.8rem 0; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 0 2rem;
  align-items: start; }
.columns > * { min-width: 0; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem; }
figure { margin: 0; }
.plot { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 0.6rem; }
.plot img { display: block; width: 100%; height: auto; max-width: 34rem; margin: 0 auto; }
.plot figcaption { color: #57606a; padding: 0.4rem 0.2rem 0; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(16.5rem, 1fr)); gap: 1rem; }
.pairs img { width: calc(50% - 2px); max-width: 8rem; aspect-ratio: 1; object-fit: cover; border-radius: 4px;
  vertical-align: top; }
.pairs img + img { margin-left: 4px; }
.pairs b { color: var(--ink); font-variant-numeric: tabular-nums; }
.table { overflow-x: auto; margin: 0.8rem 0; overflow-wrap: normal; }
.tall { max-height: 32rem; overflow-y: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: 0.3rem 0; }
th, td { text-align: right; padding: 0.35rem 0.8rem; border-bottom: 1px solid var(--line);
  vertical-align: top; white-space: nowrap; }
.texts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
th:first-child { text-align: left; padding-left: 0; font-weight: 400; }
.texts th { text-align: left; }
tbody th { white-space: normal; }
thead th, thead th:first-child { font-weight: 600; font-size: 0.9rem; vertical-align: bottom; }
@media (max-width: 32rem) { th, td { padding: 0.35rem 0.3rem; font-size: 0.85rem; }
  .cards { grid-template-columns: repeat(auto-fill, minmax(min(100%, 10rem), 1fr)); } }
@media print { .tall { max-height: none; } section { break-inside: avoid-page; } }
"""
