"""Verification results as a table of text."""

from __future__ import annotations

from collections.abc import Mapping

from facenet_fast.evaluation.verification import Verification

__all__ = ["verification_line", "verification_table"]


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
