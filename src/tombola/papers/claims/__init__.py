"""Claims: what papers state, re-measured on data that is here."""

from tombola.papers.claims.claim import LEVELS, Claim, ClaimArm, Level, Protocol
from tombola.papers.claims.collapse import COLLAPSE
from tombola.papers.claims.data_dependent import DATA_DEPENDENT
from tombola.papers.claims.early_bird import SETTLING
from tombola.papers.claims.first import FIRST
from tombola.papers.claims.greedy import GREEDY
from tombola.papers.claims.greedy_channels import PRETRAINING
from tombola.papers.claims.layers import SHALLOWER
from tombola.papers.claims.measurement import Figure, Measurement, Taken, load_taken
from tombola.papers.claims.outcome import Expectation, Finding, Relation, Report, judge
from tombola.papers.claims.page import claim_table, write_claim
from tombola.papers.claims.records import load_records, save_records
from tombola.papers.claims.run import arms_of, measure
from tombola.papers.claims.sanity import SANITY
from tombola.papers.claims.sparsest import SPARSEST
from tombola.papers.claims.supermasks import SUPERMASKS
from tombola.papers.claims.units import POINTS, Unit
from tombola.papers.claims.worm import AGAINST_EARLY_BIRD

CLAIMS: dict[str, Claim] = {
    claim.id: claim
    for claim in (
        *FIRST,
        SANITY,
        *SUPERMASKS,
        *SETTLING,
        *AGAINST_EARLY_BIRD,
        *SHALLOWER,
        *DATA_DEPENDENT,
        *COLLAPSE,
        SPARSEST,
        *GREEDY,
        *PRETRAINING,
    )
}

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
