"""Language models: what an update tells of the words behind it, without optimisation and exactly."""

from gradleak.text.adapter import TextModel, without_table, wrap
from gradleak.text.architecture import ARCHITECTURES
from gradleak.text.attack import Dager, Texts, dager
from gradleak.text.fluency import Bigrams, Causal, bigrams
from gradleak.text.graph import Aliases, aliases
from gradleak.text.losses import masked_words, next_words, words_as_labels
from gradleak.text.matching import MatchedTexts, TextMatching
from gradleak.text.published import dlg_text, lamp, tag
from gradleak.text.rows import Order, bag_of_words, label_words, longest_text, order_from_rows

__all__ = [
    "ARCHITECTURES",
    "Aliases",
    "Bigrams",
    "Causal",
    "Dager",
    "MatchedTexts",
    "Order",
    "TextMatching",
    "TextModel",
    "Texts",
    "aliases",
    "bag_of_words",
    "bigrams",
    "dager",
    "dlg_text",
    "label_words",
    "lamp",
    "longest_text",
    "masked_words",
    "next_words",
    "order_from_rows",
    "tag",
    "without_table",
    "words_as_labels",
    "wrap",
]
