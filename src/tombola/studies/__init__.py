"""Studies: runs, the store of their results, and the one engine that carries them out."""

from tombola.studies.agenda import Agenda
from tombola.studies.batch_training import Piece, pieces_of
from tombola.studies.comparison import Study, check, compare
from tombola.studies.data_recipes import RECIPES, recipe_for
from tombola.studies.execution import ElsewhereWarning, carry_out, execute, search, search_all
from tombola.studies.executor import Engine, Executor, Serial
from tombola.studies.forms import (
    Eight,
    Form,
    dense_export,
    eight_bits,
    exported,
    form_of,
    masked_form,
    some_of,
    timed,
)
from tombola.studies.frames import columns_of, dataframe, rows_of
from tombola.studies.grid import Grid
from tombola.studies.group_cuts import GroupCut, Sensitivity
from tombola.studies.group_sensitivity import sensitivity
from tombola.studies.leftovers import Remain, remains, remove
from tombola.studies.measures import DirectionWarning, check_direction
from tombola.studies.named_methods import at_size, at_sizes, check_density, method_named, with_values
from tombola.studies.narrowing import DENSITIES, Narrowed, narrow
from tombola.studies.origins import zoo_origin
from tombola.studies.own_weights import read_weights
from tombola.studies.plan import Plan
from tombola.studies.prepared import Prepared, found, prepare
from tombola.studies.price_list import Price, prices
from tombola.studies.processes import Processes
from tombola.studies.progress import Progress, progress_of
from tombola.studies.resources import estimated_memory, memory_needed, workers_that_fit
from tombola.studies.result import Result
from tombola.studies.run_folder import ConditionsWarning, Failure, RunFolder, in_words, under
from tombola.studies.sanity_checks import sanity
from tombola.studies.sections import Section
from tombola.studies.smaller_networks import Smaller, density_of, make_smaller
from tombola.studies.spec import RunSpec, digest, source_digest, subject_kind, task_settings
from tombola.studies.store import StaleWarning, Store
from tombola.studies.study_file import PLAN, MethodTable, StudyFile
from tombola.studies.targets import aimed, target_section
from tombola.studies.task_options import TaskOptions, default_options, options_from, task_title, task_words
from tombola.studies.tasks import make_task, supervised_task, tokenizer_folder
from tombola.studies.trackers import Tracker
from tombola.studies.watchdog import PAUSE, STOP, Watchdog
from tombola.studies.work_order import TRACKERS, Tally, WorkOrder, tracker_named, work_as_told
from tombola.studies.worker import Worker

__all__ = [
    "DENSITIES",
    "PAUSE",
    "PLAN",
    "RECIPES",
    "STOP",
    "TRACKERS",
    "Agenda",
    "ConditionsWarning",
    "DirectionWarning",
    "Eight",
    "ElsewhereWarning",
    "Engine",
    "Executor",
    "Failure",
    "Form",
    "Grid",
    "GroupCut",
    "MethodTable",
    "Narrowed",
    "Piece",
    "Plan",
    "Prepared",
    "Price",
    "Processes",
    "Progress",
    "Remain",
    "Result",
    "RunFolder",
    "RunSpec",
    "Section",
    "Sensitivity",
    "Serial",
    "Smaller",
    "StaleWarning",
    "Store",
    "Study",
    "StudyFile",
    "Tally",
    "TaskOptions",
    "Tracker",
    "Watchdog",
    "WorkOrder",
    "Worker",
    "aimed",
    "at_size",
    "at_sizes",
    "carry_out",
    "check",
    "check_density",
    "check_direction",
    "columns_of",
    "compare",
    "dataframe",
    "default_options",
    "dense_export",
    "density_of",
    "digest",
    "eight_bits",
    "estimated_memory",
    "execute",
    "exported",
    "form_of",
    "found",
    "in_words",
    "make_smaller",
    "make_task",
    "masked_form",
    "memory_needed",
    "method_named",
    "narrow",
    "options_from",
    "pieces_of",
    "prepare",
    "prices",
    "progress_of",
    "read_weights",
    "recipe_for",
    "remains",
    "remove",
    "rows_of",
    "sanity",
    "search",
    "search_all",
    "sensitivity",
    "some_of",
    "source_digest",
    "subject_kind",
    "supervised_task",
    "target_section",
    "task_settings",
    "task_title",
    "task_words",
    "timed",
    "tokenizer_folder",
    "tracker_named",
    "under",
    "with_values",
    "work_as_told",
    "workers_that_fit",
    "zoo_origin",
]
