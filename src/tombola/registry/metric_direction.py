"""Which way a metric of the user's is better: as it says itself, or as its name says."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

LOWER = re.compile(
    "bce|bler|bpb|bpc|brier|cer|cost|crps|cross|deviance|distance|divergence|ece|entropy|err|errors?|fid|fnr|fpr|"
    "hausdorff|huber|kid|kl|latency|lev|logloss|loss|losses|lpips|mae|mape|maxae|mce|medae|mer|mse|msle|nll|nlpd|nmse|"
    "nrmse|perplexity|ppl|regret|residuals?|rmse|rmsle|rse|seconds|smape|ter|wasserstein|wer|wil"
)
"""Words in names of errors, of which less is better."""
HIGHER = re.compile(
    "acc|accurac(y|ies)|agreement|ap|auc|auprc|auroc|bleu|chrf|correct|correlation|dice|f1|f2|fbeta|gini|hits|iou|"
    "jaccard|kappa|likelihood|map|mcc|meteor|miou|mrr|ndcg|pearson|precision|psnr|r2|recall|rouge|sensitivity|"
    "similarity|spearman|specificity|ssim|tnr|tpr"
)
"""Words in names of what more is better of."""
TURNED = re.compile("inv|inverse|minus|neg|negated|negative")
"""Words that turn a name round."""
WORD = re.compile(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+\d*|\d+")
"""A word of a name, in snake_case and in CamelCase."""


def lower_is_better(metric: Any) -> bool | None:
    """Whether a smaller value of a metric is better; None where neither the metric nor its name says so.

    A metric says so by an attribute `higher_is_better`, as those of torchmetrics do.

    Args:
        metric: a function of outputs and targets, or an object that is called with them.

    Examples:
        >>> def val_rmse(outputs, targets): ...
        >>> def negative_log_likelihood(outputs, targets): ...
        >>> def quality(outputs, targets): ...
        >>> [lower_is_better(metric) for metric in (val_rmse, negative_log_likelihood, quality)]
        [True, True, None]
    """
    if isinstance(said := getattr(metric, "higher_is_better", None), bool):
        return not said
    words = words_of(metric)
    is_error, is_merit = (any(map(known.fullmatch, words)) for known in (LOWER, HIGHER))
    is_turned = sum(map(bool, map(TURNED.fullmatch, words))) % 2 == 1
    return None if is_error == is_merit else is_error != is_turned


def name_of(metric: Any) -> str:
    """What a metric is called: a function's name, or that of an object's class; "" for one without."""
    while isinstance(metric, partial):
        metric = metric.func
    name = getattr(metric, "__name__", type(metric).__name__).strip("_")
    return "" if name in ("<lambda>", "metric", "forward", "call") else name


def words_of(metric: Any) -> tuple[str, ...]:
    """The words of a metric's name, in lower case.

    Examples:
        >>> from torch import nn
        >>> words_of(nn.MSELoss()), words_of(nn.functional.l1_loss)
        (('mse', 'loss'), ('l1', 'loss'))
    """
    return tuple(word.lower() for word in WORD.findall(name_of(metric)))
