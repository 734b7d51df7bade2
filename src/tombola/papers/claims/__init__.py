"""Claims: what papers state, re-measured on data that is here."""

from tombola.papers.claims.claim import LEVELS, Claim, ClaimArm, Damage, Level, PaperProtocol, Protocol
from tombola.papers.claims.claim_checks import obstacles
from tombola.papers.claims.claim_files import claims
from tombola.papers.claims.claim_index import check_index_place, write_index
from tombola.papers.claims.claim_outcome import ClaimReport, Expectation, Finding, Judged, Relation, judge_claim
from tombola.papers.claims.claim_pages import check_claim_place, claim_table, write_claim
from tombola.papers.claims.claim_prices import Quote, price_list, quote
from tombola.papers.claims.claim_records import load_records, save_records
from tombola.papers.claims.claim_words import answer_of
from tombola.papers.claims.measurement import MeasuredFigure, MeasuredRow, Measurement, load_taken
from tombola.papers.claims.measuring import arms_of, measure, on_record
from tombola.papers.claims.units import POINTS, Unit

CLAIMS: dict[str, Claim] = claims()
"""Every claim by its name. A test may add its own."""

__all__ = [
    "CLAIMS",
    "LEVELS",
    "POINTS",
    "Claim",
    "ClaimArm",
    "ClaimReport",
    "Damage",
    "Expectation",
    "Finding",
    "Judged",
    "Level",
    "MeasuredFigure",
    "MeasuredRow",
    "Measurement",
    "PaperProtocol",
    "Protocol",
    "Quote",
    "Relation",
    "Unit",
    "answer_of",
    "arms_of",
    "check_claim_place",
    "check_index_place",
    "claim_table",
    "judge_claim",
    "load_records",
    "load_taken",
    "measure",
    "obstacles",
    "on_record",
    "price_list",
    "quote",
    "save_records",
    "write_claim",
    "write_index",
]
