"""Studies: runs, the store of their results, and the one engine that carries them out."""

from tombola.studies.batch_training import Piece, pieces_of
from tombola.studies.comparison import Study, check, compare
from tombola.studies.execution import ElsewhereWarning, carry_out, execute, search, search_all
from tombola.studies.executor import Engine, Executor, Serial
from tombola.studies.named_methods import at_size, at_sizes, check_density, method_named, with_values
from tombola.studies.narrowing import DENSITIES, Narrowed, narrow
from tombola.studies.prepared import Prepared, found, prepare
from tombola.studies.processes import Processes
from tombola.studies.result import Result
from tombola.studies.run_folder import ConditionsWarning, RunFolder, in_words, under
from tombola.studies.sanity_checks import sanity
from tombola.studies.spec import RunSpec, digest, source_digest, subject_kind, task_settings
from tombola.studies.store import StaleWarning, Store
from tombola.studies.tasks import RECIPES, TaskOptions, default_options, make_task, options_from, task_words

__all__ = [
    "DENSITIES",
    "RECIPES",
    "ConditionsWarning",
    "ElsewhereWarning",
    "Engine",
    "Executor",
    "Narrowed",
    "Piece",
    "Prepared",
    "Processes",
    "Result",
    "RunFolder",
    "RunSpec",
    "Serial",
    "StaleWarning",
    "Store",
    "Study",
    "TaskOptions",
    "at_size",
    "at_sizes",
    "carry_out",
    "check",
    "check_density",
    "compare",
    "default_options",
    "digest",
    "execute",
    "found",
    "in_words",
    "make_task",
    "method_named",
    "narrow",
    "options_from",
    "pieces_of",
    "prepare",
    "sanity",
    "search",
    "search_all",
    "source_digest",
    "subject_kind",
    "task_settings",
    "task_words",
    "under",
    "with_values",
]
