"""The protocol of LFW verification once more, from its definition: slow loops, one threshold at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn.metrics import auc


@dataclass
class LiteralResult:
    accuracy: float
    accuracy_std: float
    val: float
    val_std: float
    far: float
    auc: float
    eer: float
    tpr: np.ndarray
    fpr: np.ndarray


def literal_distance(a, b, metric):
    if metric == 0:
        return math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
    norms = math.sqrt(math.fsum(x * x for x in a)) * math.sqrt(math.fsum(y * y for y in b))
    return math.acos(min(1.0, max(-1.0, dot / norms))) / math.pi


def literal_verification(left, right, is_same, fold, metric, subtract_mean, far_target=1e-3, grid_end=4.0):
    accuracies, vals, fars, tprs, fprs = [], [], [], [], []
    for tested in sorted(set(fold)):
        train = [i for i in range(len(fold)) if fold[i] != tested]
        test = [i for i in range(len(fold)) if fold[i] == tested]
        mean = 0.0
        if subtract_mean:
            mean = np.mean([left[i] for i in train] + [right[i] for i in train], axis=0)
        d = [
            literal_distance(a - mean, b - mean, metric)
            for a, b in zip(np.asarray(left, float), np.asarray(right, float), strict=True)
        ]

        best_threshold, best_accuracy = None, -1.0
        tpr_of_fold, fpr_of_fold = [], []
        for threshold in np.arange(0, grid_end, 0.01):
            right_answers = sum((d[i] < threshold) == bool(is_same[i]) for i in train)
            if right_answers / len(train) > best_accuracy:
                best_threshold, best_accuracy = threshold, right_answers / len(train)
            tpr_of_fold.append(_rate(d, is_same, test, threshold, True))
            fpr_of_fold.append(_rate(d, is_same, test, threshold, False))
        tprs.append(tpr_of_fold)
        fprs.append(fpr_of_fold)
        accuracies.append(sum((d[i] < best_threshold) == bool(is_same[i]) for i in test) / len(test))

        thresholds = np.arange(0, grid_end, 0.001)
        negatives = np.array([d[i] for i in train if not is_same[i]])
        far_train = [np.count_nonzero(negatives < threshold) / len(negatives) for threshold in thresholds]
        threshold = 0.0
        if max(far_train) >= far_target:
            last_of = dict(
                zip(far_train, thresholds, strict=True)
            )  # a later threshold replaces an earlier one
            threshold = float(interp1d(list(last_of), list(last_of.values()), kind="slinear")(far_target))
        vals.append(_rate(d, is_same, test, threshold, True))
        fars.append(_rate(d, is_same, test, threshold, False))

    tpr, fpr = np.mean(tprs, axis=0), np.mean(fprs, axis=0)
    return LiteralResult(
        accuracy=np.mean(accuracies),
        accuracy_std=np.std(accuracies),
        val=np.mean(vals),
        val_std=np.std(vals),
        far=np.mean(fars),
        auc=auc(fpr, tpr),
        eer=brentq(lambda x: 1.0 - x - interp1d(fpr, tpr)(x), 0.0, 1.0),
        tpr=tpr,
        fpr=fpr,
    )


def _rate(d, is_same, pairs, threshold, kind):
    of_kind = [i for i in pairs if bool(is_same[i]) == kind]
    return sum(d[i] < threshold for i in of_kind) / len(of_kind)
