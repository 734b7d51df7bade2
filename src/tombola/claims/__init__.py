"""Claims: what papers state, re-measured on data that is here."""

from tombola.claims.claim import LEVELS, Claim, ClaimArm, Level, Protocol
from tombola.claims.collapse import COLLAPSE
from tombola.claims.data_dependent import DATA_DEPENDENT
from tombola.claims.early_bird import SETTLING
from tombola.claims.first import FIRST
from tombola.claims.greedy import GREEDY
from tombola.claims.greedy_channels import PRETRAINING
from tombola.claims.layers import SHALLOWER
from tombola.claims.measurement import Figure, Measurement, Taken, load_taken
from tombola.claims.outcome import Expectation, Finding, Relation, Report, judge
from tombola.claims.records import load_records, save_records
from tombola.claims.run import arms_of, measure
from tombola.claims.sanity import SANITY
from tombola.claims.sparsest import SPARSEST
from tombola.claims.supermasks import SUPERMASKS
from tombola.claims.units import POINTS, Unit
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
    "judge",
    "load_records",
    "load_taken",
    "measure",
    "save_records",
]
