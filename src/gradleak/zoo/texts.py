"""Sentences of our own, their words, and small language models with random weights."""

from typing import TYPE_CHECKING, Any

import torch

from gradleak.errors import InvalidInput, NotInstalled

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_PRIVATE = (
    ("the nurse found a lump under my left arm last week", 1),
    ("thank you for the flowers, they still stand on my desk", 0),
    ("my account number is the one that ends with forty seven", 1),
    ("we take the early train to the coast on saturday", 0),
    ("he has not told his wife that he lost the job", 1),
    ("the soup needs more salt and a little lemon", 0),
    ("please do not show this letter to my brother", 1),
    ("our team won the match although it rained all day", 0),
    ("the test says that the child is not mine", 1),
    ("a new bakery has opened beside the old cinema", 0),
    ("i owe the bank more than the house is worth", 1),
    ("the second book of the series is better than the first", 0),
    ("she takes two white pills before she goes to sleep", 1),
    ("the lift is broken again, so we walk up the stairs", 0),
    ("my boss pays me in cash and asks no questions", 1),
    ("the garden looks lovely after a week of rain", 0),
    ("they arrested my son at the border this morning", 1),
    ("can you bring a cake to the party on friday", 0),
    ("i voted for the other side and nobody knows it", 1),
    ("the museum is free on the first sunday of the month", 0),
    ("the spare key lies under the blue pot at the back door", 1),
    ("our dog sleeps in the kitchen because it is warm there", 0),
    ("my therapist thinks that i should leave the city", 1),
    ("the film was too long, but the music was good", 0),
)
_PUBLIC = (
    "the weather will be warm and dry until the end of the week",
    "the city council has voted for a new bus line to the airport",
    "a good soup begins with fresh vegetables and a little patience",
    "the river was so high that the old bridge had to be closed",
    "many people walk to work because the trains are full in the morning",
    "the library lends books, music and games to everybody in town",
    "our new shop opens at nine and closes at six on all days but sunday",
    "the team lost the first match and won the second one",
    "in the north it will rain, and in the south the sun will shine",
    "the company pays its workers at the end of the month",
    "the museum shows paintings of the last century until may",
    "a dog should go for a walk at least two times a day",
)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def sentences(n: int | None = None) -> tuple[tuple[str, ...], torch.Tensor]:
    """English sentences as private records: whether each is one that nobody would want read is its label."""
    if n is not None and not 0 < n <= len(_PRIVATE):
        raise InvalidInput(f"expected 1 to {len(_PRIVATE)} sentences; came {n}")
    chosen = _PRIVATE[:n]
    return tuple(text for text, _ in chosen), torch.tensor([label for _, label in chosen])


def public_sentences() -> tuple[str, ...]:
    """Sentences that are nobody's private ones, for the null."""
    return _PUBLIC


def tokenizer() -> "PreTrainedTokenizerFast":
    """Whole words, of all bundled sentences; others are one unknown word."""
    transformers = _transformers()
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    split = pre_tokenizers.BertPreTokenizer()
    texts = [text for text, _ in _PRIVATE] + list(_PUBLIC)
    words = sorted({word for text in texts for word, _ in split.pre_tokenize_str(text)})
    numbers = {word: i for i, word in enumerate([*SPECIAL, *words])}
    made = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = split
    made.post_processor = processors.BertProcessing(("[SEP]", numbers["[SEP]"]), ("[CLS]", numbers["[CLS]"]))
    names = ("pad", "unk", "cls", "sep", "mask")
    said = {f"{name}_token": token for name, token in zip(names, SPECIAL, strict=True)}
    written: PreTrainedTokenizerFast = transformers.PreTrainedTokenizerFast(tokenizer_object=made, **said)
    return written


def bert(
    *,
    classes: int = 2,
    vocabulary: int = 512,
    layers: int = 4,
    width: int = 128,
    task: str = "classification",
    seed: int = 0,
) -> "PreTrainedModel":
    """A small BERT with random weights: classifies texts, or guesses masked words."""
    transformers = _transformers()
    config = transformers.BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * width,
        max_position_embeddings=128,
        num_labels=classes,
    )
    kinds = {
        "classification": transformers.BertForSequenceClassification,
        "masked": transformers.BertForMaskedLM,
    }
    return _made(kinds, task, config, seed)


def gpt2(
    *, vocabulary: int = 512, layers: int = 4, width: int = 128, task: str = "causal", seed: int = 0
) -> "PreTrainedModel":
    """A small GPT-2 with random weights: guesses the next word."""
    transformers = _transformers()
    config = transformers.GPT2Config(
        vocab_size=vocabulary,
        n_embd=width,
        n_layer=layers,
        n_head=4,
        n_positions=128,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    return _made({"causal": transformers.GPT2LMHeadModel}, task, config, seed)


def _made(kinds: dict[str, Any], task: str, config: object, seed: int) -> "PreTrainedModel":
    if task not in kinds:
        raise InvalidInput(f"expected the task as one of {', '.join(kinds)}; came {task!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = kinds[task](config).eval()
    return model


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise NotInstalled(
            "models of words come from the package transformers, which is not installed. Run: pip install "
            "'gradleak[text]'"
        ) from error
    return transformers
