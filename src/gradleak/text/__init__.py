"""Language models: what an update tells of the words behind it, without optimisation and exactly."""

from collections.abc import Callable
from typing import Any

from gradleak.text.adapter import TextModel, without_table, wrap
from gradleak.text.architecture import ARCHITECTURES
from gradleak.text.attack import Dager, Texts, dager
from gradleak.text.fluency import Bigrams, Causal, bigrams
from gradleak.text.forecast import ExposedText, TextForecast, forecast
from gradleak.text.graph import Aliases, aliases
from gradleak.text.losses import masked_words, next_words, words_as_labels
from gradleak.text.matching import MatchedTexts, TextMatching
from gradleak.text.published import dlg_text, lamp, tag
from gradleak.text.rows import Order, bag_of_words, label_words, longest_text, order_from_rows
from gradleak.text.vocabulary import Vocabulary, vocabulary

__all__ = [
    "ARCHITECTURES",
    "TEXT_ATTACKS",
    "Aliases",
    "Bigrams",
    "Causal",
    "Dager",
    "ExposedText",
    "MatchedTexts",
    "Order",
    "TextForecast",
    "TextMatching",
    "TextModel",
    "Texts",
    "Vocabulary",
    "aliases",
    "bag_of_words",
    "bigrams",
    "dager",
    "dlg_text",
    "forecast",
    "label_words",
    "lamp",
    "longest_text",
    "masked_words",
    "next_words",
    "order_from_rows",
    "tag",
    "vocabulary",
    "without_table",
    "words_as_labels",
    "wrap",
]

# by the name that a command line says, the cheap one first
TEXT_ATTACKS: dict[str, Callable[..., Any]] = {"dager": dager, "dlg_text": dlg_text, "tag": tag, "lamp": lamp}
