"""What there is, by name: scores, methods, controls, data and all else that has one. Listing loads nothing."""

from tombola.registry.registry import REGISTRIES, Entry, Registry, RegistryWarning, imported

SCORES = Registry.read("score", "scores", group="tombola.scores")
METHODS = Registry.read("method", "methods", group="tombola.methods")
GRANULARITIES = Registry.read("granularity", "granularities")
CONTROLS = Registry.read("control", "controls")
DATA = Registry.read("data set", "data")
MODELS = Registry.read("model", "models")
METRICS = Registry.read("metric", "metrics")
FAMILIES = Registry.read("family", "families")

KINDS = {
    "methods": METHODS,
    "scores": SCORES,
    "granularities": GRANULARITIES,
    "controls": CONTROLS,
    "data": DATA,
    "models": MODELS,
    "metrics": METRICS,
}
"""What can be listed."""


def version_of(kind: type | object) -> tuple[str, int] | None:
    """Under which name and version identities know a class or function of Tombola's own; None for any other."""
    where = f"{getattr(kind, '__module__', '')}:{getattr(kind, '__qualname__', '')}"
    if not where.startswith("tombola."):
        return None
    known = (registry.own.values() for registry in (SCORES, FAMILIES, METRICS, CONTROLS))
    return next(((own.name, own.version) for entries in known for own in entries if own.where == where), None)


__all__ = [
    "CONTROLS",
    "DATA",
    "FAMILIES",
    "GRANULARITIES",
    "KINDS",
    "METHODS",
    "METRICS",
    "MODELS",
    "REGISTRIES",
    "SCORES",
    "Entry",
    "Registry",
    "RegistryWarning",
    "imported",
    "version_of",
]
