"""What an update gives away, said before any attack is run."""

from gradleak.risk.advice import Change, advise
from gradleak.risk.rank import LayerRank, RankReport, rank

__all__ = ["Change", "LayerRank", "RankReport", "advise", "rank"]
