"""Claims: what papers state, re-measured on data that is here."""

from tombola.papers.claims.claim import LEVELS, Claim, ClaimArm, Level, Protocol
from tombola.papers.claims.claim_files import claims
from tombola.papers.claims.measurement import Figure, Measurement, Taken, load_taken
from tombola.papers.claims.outcome import Expectation, Finding, Relation, Report, judge
from tombola.papers.claims.page import claim_table, write_claim
from tombola.papers.claims.records import load_records, save_records
from tombola.papers.claims.run import arms_of, measure
from tombola.papers.claims.units import POINTS, Unit

CLAIMS: dict[str, Claim] = claims()
"""Every claim by its name; a test may put in its own."""

__all__ = [
    "CLAIMS",
    "LEVELS",
    "POINTS",
    "Claim",
    "ClaimArm",
    "Expectation",
    "Figure",
    "Finding",
    "Level",
    "Measurement",
    "Protocol",
    "Relation",
    "Report",
    "Taken",
    "Unit",
    "arms_of",
    "claim_table",
    "judge",
    "load_records",
    "load_taken",
    "measure",
    "save_records",
    "write_claim",
]
