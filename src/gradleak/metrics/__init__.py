"""How close a guess comes to the private batch, beside what a guess without the gradient would score."""

from gradleak.metrics.identify import identified
from gradleak.metrics.image import mse, psnr, ssim
from gradleak.metrics.labels import flat_label_agreement, label_agreement, null_label_agreement
from gradleak.metrics.null import mean_picture, random_picture
from gradleak.metrics.pairing import pair
from gradleak.metrics.scores import Scores, score
from gradleak.metrics.text import TextMarks, TextScores, score_text

__all__ = [
    "Scores",
    "TextMarks",
    "TextScores",
    "flat_label_agreement",
    "identified",
    "label_agreement",
    "mean_picture",
    "mse",
    "null_label_agreement",
    "pair",
    "psnr",
    "random_picture",
    "score",
    "score_text",
    "ssim",
]
