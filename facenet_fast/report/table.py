"""Verification results as a table of text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from facenet_fast.evaluation.exact import ExactVerification, Interval
from facenet_fast.evaluation.retrieval import Identification, Retrieval
from facenet_fast.evaluation.verification import Verification

__all__ = ["exact_lines", "search_lines", "threshold_lines", "verification_line", "verification_table"]


def verification_table(results: Mapping[str, Verification]) -> list[str]:
    """Lay out named results, one a line, under a heading.

    Returns
    -------
    list of str
        Lines of one width: accuracy and VAL with their standard deviations over the folds, AUC, EER.
    """
    width = max([len(name) for name in results], default=0)
    far = next(iter(results.values())).far_target if results else 1e-3
    val_head = f"VAL@FAR={far:g}"
    lines = [f"{'':{width}}  {'accuracy':>15}  {val_head:>15}  {'AUC':>6}  {'EER':>6}"]
    for name, result in results.items():
        accuracy = f"{result.accuracy:.4f}+-{result.accuracy_std:.4f}"
        val = f"{result.val:.4f}+-{result.val_std:.4f}"
        lines.append(f"{name:{width}}  {accuracy:>15}  {val:>15}  {result.auc:>6.4f}  {result.eer:>6.4f}")
    return lines


def verification_line(result: Verification) -> str:
    """Say a result in one line.

    Returns
    -------
    str
        Like ``accuracy 0.950+-0.010, VAL 0.800+-0.050 @ FAR=0.001, AUC 0.990, EER 0.040``.
    """
    return (
        f"accuracy {result.accuracy:.3f}+-{result.accuracy_std:.3f}, "
        f"VAL {result.val:.3f}+-{result.val_std:.3f} @ FAR={result.far_target:g}, "
        f"AUC {result.auc:.3f}, EER {result.eer:.3f}"
    )


def exact_lines(exact: ExactVerification, n_pairs: int) -> list[str]:
    """Say the exact measures, each with its interval where there is one.

    Parameters
    ----------
    exact : ExactVerification
        What was found.
    n_pairs : int
        Pairs it was found on.

    Returns
    -------
    list of str
    """
    heading = f"Exact measures of {n_pairs} pairs, {exact.roc.n_same} of one identity"
    if exact.n_resamples:
        share = f"{100 * exact.confidence:g} %"
        heading += f", with {share} intervals ({exact.n_resamples} resamples of the {exact.resampled})"
    lines = ["", heading]
    if not math.isnan(exact.accuracy):
        accuracy = f"{exact.accuracy:.4f}+-{exact.accuracy_std:.4f}"
        lines.append(_measure("Accuracy", accuracy, exact.intervals.get("accuracy")))
    lines.append(_measure("AUC", f"{exact.auc:.5f}", exact.intervals.get("auc")))
    lines.append(_measure("EER", f"{exact.eer:.5f}", exact.intervals.get("eer")))
    return lines


def threshold_lines(
    exact: ExactVerification, distance_name: str, similarity: Callable[[float], float] | None
) -> list[str]:
    """Say which threshold gives which rates, and which rates cannot be given.

    Parameters
    ----------
    exact : ExactVerification
        What was found.
    distance_name : str
        What the thresholds are of.
    similarity : callable or None
        Turns a distance into a cosine.

    Returns
    -------
    list of str
    """
    lines = ["", f"Which threshold? Accept two images as one person below this {distance_name}:"]
    lines.append(f"  {'FAR':>8}  {'distance':>9}  {'cosine':>7}  {'VAL':>7}  {'':16}  false accepts")
    points = [
        (f"{point.far_target:g}", point.threshold, f"{point.val:.4f}", exact.intervals.get(key), accepts)
        for point in exact.operating_points
        for key, accepts in [(f"val@{point.far_target:g}", f"{point.n_false_accepts}")]
    ]
    for far, threshold, val, interval, accepts in points:
        cosine = "-" if similarity is None else f"{similarity(threshold):.4f}"
        lines.append(
            f"  {far:>8}  {threshold:9.4f}  {cosine:>7}  {val:>7}  {_bounds(interval):16}  {accepts}"
        )
    if not math.isnan(exact.accuracy):
        best = "-" if similarity is None else f"{similarity(exact.threshold):.4f}"
        accuracy = f"({exact.best_accuracy:.4f}, the best of all)"
        lines.append(f"  {'accuracy':>8}  {exact.threshold:9.4f}  {best:>7}  {accuracy}")
    return [*lines, *(f"  Not given: {sentence}" for sentence in exact.refused)]


def search_lines(found: Retrieval, searched: Identification | None, reason: str = "") -> list[str]:
    """Say how images find each other and how people are identified, or for what `reason` they are not.

    Returns
    -------
    list of str
    """
    recalls = ", ".join(f"recall@{k} {share:.4f}" for k, share in found.recall_at.items())
    lines = [
        "",
        f"Search among all images ({found.n_queries} queries): {recalls}, MAP@R {found.map_at_r:.4f}",
    ]
    if searched is None:
        return [*lines, f"  Not given: {reason}"]
    ranks = ", ".join(f"rank {rank} {share:.4f}" for rank, share in searched.rank.items())
    lines.append(f"Identification, one image each of {searched.n_gallery} people enrolled: {ranks}")
    lines += [
        f"  with strangers, at FAR={point.far_target:g}: {point.rate:.4f} found and accepted "
        f"(below {point.threshold:.4f}; {searched.n_unmated} images of strangers)"
        for point in searched.open_set
    ]
    return [*lines, *(f"  Not given: {sentence}" for sentence in searched.refused)]


def _measure(name: str, value: str, interval: Interval | None) -> str:
    return f"  {name:8}  {value:16}  {_bounds(interval)}".rstrip()


def _bounds(interval: Interval | None) -> str:
    if interval is None or math.isnan(interval.low):
        return ""
    return f"[{interval.low:.4f}, {interval.high:.4f}]"
