"""What an update gives away, said before any attack is run."""

from gradleak.risk.advice import Change, advise
from gradleak.risk.decibels import Decibels, decibels
from gradleak.risk.directions import Directions, directions
from gradleak.risk.fairness import Fairness, fairness
from gradleak.risk.gram import jacobian
from gradleak.risk.influence import influence
from gradleak.risk.initialization import Starts, initialization
from gradleak.risk.predict import Forecast, predict
from gradleak.risk.prediction import Prediction
from gradleak.risk.rank import LayerRank, RankReport, rank

__all__ = [
    "Change",
    "Decibels",
    "Directions",
    "Fairness",
    "Forecast",
    "LayerRank",
    "Prediction",
    "RankReport",
    "Starts",
    "advise",
    "decibels",
    "directions",
    "fairness",
    "influence",
    "initialization",
    "jacobian",
    "predict",
    "rank",
]
