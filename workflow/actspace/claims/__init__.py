"""Published claims, each with its source, a statistic, a criterion and the verdict that the tables of a study give."""

from actspace.claims.entries import CLAIMS, evaluate, untested
from actspace.claims.entry import Claim

__all__ = ["CLAIMS", "Claim", "evaluate", "untested"]
