"""Registries of everything that has a name: scores, methods, controls, data and more. Listing them imports nothing."""

from tombola.registry.metric_direction import lower_is_better
from tombola.registry.registry import REGISTRIES, Entry, Registry, RegistryWarning, imported

SCORES = Registry.read("score", "scores", group="tombola.scores")
METHODS = Registry.read("method", "methods", group="tombola.methods")
GRANULARITIES = Registry.read("granularity", "granularities")
CONTROLS = Registry.read("control", "controls")
DATA = Registry.read("data set", "data")
MODELS = Registry.read("model", "models")
LOSSES = Registry.read("loss", "losses")
METRICS = Registry.read("metric", "metrics")
FAMILIES = Registry.read("family", "families")

KINDS = {
    "methods": METHODS,
    "scores": SCORES,
    "granularities": GRANULARITIES,
    "controls": CONTROLS,
    "data": DATA,
    "models": MODELS,
    "losses": LOSSES,
    "metrics": METRICS,
}
"""The registries that `tombola methods` and the documentation list, by the plural of their kind."""


def version_of(kind: type | object) -> tuple[str, int] | None:
    """The name and version by which a run's identity knows a class or function.

    Args:
        kind: a class or a function.

    Returns:
        (name, version) of its entry; None for what Tombola does not bring, or has no entry for.

    Examples:
        >>> from tombola.scores import Snip
        >>> version_of(Snip)
        ('snip', 1)
    """
    where = f"{getattr(kind, '__module__', '')}:{getattr(kind, '__qualname__', '')}"
    if not where.startswith("tombola."):
        return None
    for registry in (SCORES, FAMILIES, METRICS, LOSSES, CONTROLS):
        if (entry := registry.entry_at(where)) is not None:
            return (entry.name, entry.version) if entry.version else None
    return None


__all__ = [
    "CONTROLS",
    "DATA",
    "FAMILIES",
    "GRANULARITIES",
    "KINDS",
    "LOSSES",
    "METHODS",
    "METRICS",
    "MODELS",
    "REGISTRIES",
    "SCORES",
    "Entry",
    "Registry",
    "RegistryWarning",
    "imported",
    "lower_is_better",
    "version_of",
]
