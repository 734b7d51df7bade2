"""Reports: one self-contained HTML page with its charts, and the table for the terminal."""

from tombola.report.page import write_report
from tombola.report.table import table

__all__ = ["table", "write_report"]
