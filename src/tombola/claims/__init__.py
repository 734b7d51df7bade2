"""Claims: what papers state, re-measured on data that is here."""

from tombola.claims.claim import LEVELS, Claim, ClaimArm, Level, Protocol
from tombola.claims.collapse import COLLAPSE
from tombola.claims.data_dependent import DATA_DEPENDENT
from tombola.claims.early_bird import SETTLING
from tombola.claims.first import FIRST
from tombola.claims.greedy import PRETRAINING
from tombola.claims.layers import SHALLOWER
from tombola.claims.outcome import POINTS, Expectation, Finding, Relation, Report, Unit, judge
from tombola.claims.records import load_records, save_records
from tombola.claims.run import arms_of, measure
from tombola.claims.sanity import SANITY
from tombola.claims.supermasks import SUPERMASKS
from tombola.claims.worm import AGAINST_EARLY_BIRD

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
    "Finding",
    "Level",
    "Protocol",
    "Relation",
    "Report",
    "Unit",
    "arms_of",
    "judge",
    "load_records",
    "measure",
    "save_records",
]
