"""How much pre-training is enough for a good greedy ticket (Wolfe et al., TMLR 2024): study, theory and page."""

from tombola.papers.pretraining.page import enough_sentences, enough_table, write_enough
from tombola.papers.pretraining.study import EnoughStudy, Pretrained, enough, part
from tombola.papers.pretraining.theory import Growth, bound_rows

__all__ = [
    "EnoughStudy",
    "Growth",
    "Pretrained",
    "bound_rows",
    "enough",
    "enough_sentences",
    "enough_table",
    "part",
    "write_enough",
]
