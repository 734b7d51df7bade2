"""Reports of a study: a self-contained HTML page with charts, and tables for the terminal."""

from tombola.report.arms import GatheredArms
from tombola.report.connectivity_sections import landscape_section, stability_section
from tombola.report.distance_matrix import write_matrix
from tombola.report.group_cut_picture import sensitivity_picture
from tombola.report.html_page import write_report
from tombola.report.line_curves import lines_picture
from tombola.report.paper import write_paper
from tombola.report.prose import estimate
from tombola.report.ranking_tables import ranking_table
from tombola.report.results_table import results_table_for, saves, savings_table
from tombola.report.robustness_tables import RobustnessRow, robustness_rows, robustness_table
from tombola.report.sanity_tables import sanity_table
from tombola.report.search_curve import write_search_curve
from tombola.report.standings import headline
from tombola.report.training_length import advice, too_brief

__all__ = [
    "GatheredArms",
    "RobustnessRow",
    "advice",
    "estimate",
    "headline",
    "landscape_section",
    "lines_picture",
    "ranking_table",
    "results_table_for",
    "robustness_rows",
    "robustness_table",
    "sanity_table",
    "saves",
    "savings_table",
    "sensitivity_picture",
    "stability_section",
    "too_brief",
    "write_matrix",
    "write_paper",
    "write_report",
    "write_search_curve",
]
