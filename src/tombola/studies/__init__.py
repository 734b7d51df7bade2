"""Studies: runs, the store of their results, and the one engine that carries them out."""

from tombola.studies.check import Study, check, compare
from tombola.studies.execute import Engine, carry_out, execute, search
from tombola.studies.result import Result
from tombola.studies.spec import RunSpec, digest, settings_of, source_digest
from tombola.studies.store import RunFolder, Store

__all__ = [
    "Engine",
    "Result",
    "RunFolder",
    "RunSpec",
    "Store",
    "Study",
    "carry_out",
    "check",
    "compare",
    "digest",
    "execute",
    "search",
    "settings_of",
    "source_digest",
]
