"""Reports: one self-contained HTML page with its charts, and the tables for the terminal."""

from tombola.report.arms import Gathered
from tombola.report.page import write_report
from tombola.report.results_table import savings_table, table
from tombola.report.robustness import Tried, robustness_table, tried
from tombola.report.sanity import sanity_table
from tombola.report.search_curve import write_search_curve
from tombola.report.words import estimate

__all__ = [
    "Gathered",
    "Tried",
    "estimate",
    "robustness_table",
    "sanity_table",
    "savings_table",
    "table",
    "tried",
    "write_report",
    "write_search_curve",
]
