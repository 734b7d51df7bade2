"""Reports: one self-contained HTML page with its charts, the table for the terminal, and a claim's page."""

from tombola.report.arms import Gathered
from tombola.report.claim_page import claim_table, write_claim
from tombola.report.enough import enough_sentences, enough_table, write_enough
from tombola.report.page import write_report
from tombola.report.results_table import savings_table, table
from tombola.report.robustness import Tried, robustness_table, tried
from tombola.report.sanity import sanity_table
from tombola.report.search_curve import write_search_curve
from tombola.report.sparsest import pruned_table, rates_table, write_sparsest
from tombola.report.words import estimate

__all__ = [
    "Gathered",
    "Tried",
    "claim_table",
    "enough_sentences",
    "enough_table",
    "estimate",
    "pruned_table",
    "rates_table",
    "robustness_table",
    "sanity_table",
    "savings_table",
    "table",
    "tried",
    "write_claim",
    "write_enough",
    "write_report",
    "write_search_curve",
    "write_sparsest",
]
