"""Studies: runs, the store of their results, and the one engine that carries them out."""

from tombola.studies.comparison import Study, check, compare
from tombola.studies.execution import carry_out, execute
from tombola.studies.prepare import Engine, search
from tombola.studies.pretraining import EnoughStudy, Pretrained, enough, part
from tombola.studies.result import Result
from tombola.studies.sanity_checks import sanity
from tombola.studies.spec import RunSpec, digest, settings_of, source_digest
from tombola.studies.store import RunFolder, Store
from tombola.studies.tasks import RECIPES, TaskOptions, default_options, make_task

__all__ = [
    "RECIPES",
    "Engine",
    "EnoughStudy",
    "Pretrained",
    "Result",
    "RunFolder",
    "RunSpec",
    "Store",
    "Study",
    "TaskOptions",
    "carry_out",
    "check",
    "compare",
    "default_options",
    "digest",
    "enough",
    "execute",
    "make_task",
    "part",
    "sanity",
    "search",
    "settings_of",
    "source_digest",
]
