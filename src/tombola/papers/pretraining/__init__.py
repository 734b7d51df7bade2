"""How much pre-training is enough for a good greedy ticket (Wolfe et al., TMLR 2024): study, theory and page."""

from tombola.papers.pretraining.pretraining_page import enough_sentences, enough_table, write_enough
from tombola.papers.pretraining.pretraining_study import EnoughStudy, PretrainingPoint, enough, part
from tombola.papers.pretraining.theory import Growth, bound_rows

__all__ = [
    "EnoughStudy",
    "Growth",
    "PretrainingPoint",
    "bound_rows",
    "enough",
    "enough_sentences",
    "enough_table",
    "part",
    "write_enough",
]
