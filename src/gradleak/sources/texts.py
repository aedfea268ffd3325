"""Private texts: bundled ones, lines of a file, rows of a table, or what code hands over."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradleak.errors import GradleakError, InvalidInput, NotInstalled
from gradleak.randomness import generator
from gradleak.sources.models import builder, cause
from gradleak.text.losses import IGNORED, words_as_labels
from gradleak.text.vocabulary import special_words

BUNDLED = "sentences"
ENDINGS = (".txt", ".csv", ".tsv", ".jsonl")
LONGEST = 64
"""Words, special ones included, to which texts are cut, unless said."""
_UNKNOWN = 0.5  # of the words, from which the tokenizer is another's
_MASKED = 0.15  # of the words of a text, and one at least
_MOST_CLASSES = 100_000  # a larger number is none of a class

Labelled = tuple[str, str | None]


@dataclass(frozen=True)
class Wanted:
    """Which texts of a source, ``n`` from the ``first`` on, and what a model is trained to do with them.

    ``outputs`` are those of the model, by what it calls them; none where it has no names for them.
    """

    n: int
    task: str
    first: int = 0
    longest: int = LONGEST
    seed: int = 0
    outputs: Mapping[str, int] = field(default_factory=dict)

    def of(self, texts: Sequence[Labelled]) -> Sequence[Labelled]:
        return texts[self.first : self.first + self.n]


@dataclass(frozen=True, eq=False)
class TextRecords:
    """``ids`` are [n, T], padded with ``pad``, and ``y`` what the task asks for. ``public`` are ids too.

    ``classes`` and their names are those of the whole source, as far as it was read.
    """

    ids: Tensor
    y: Tensor
    names: tuple[str, ...]
    classes: int
    pad: int | None
    class_names: Mapping[int, str] = field(default_factory=dict)
    public: Tensor | None = None


def are_texts(source: str) -> bool:
    """Whether the words alone say that these are texts."""
    return source == BUNDLED or Path(source).suffix.lower() in ENDINGS


def read_texts(
    source: str, wanted: Wanted, *, tokenizer: Any, public: str | None = None, folder: Path = Path()
) -> TextRecords:
    """The texts of a source as a tokenizer of transformers writes them, with the labels of the task."""
    known = _labelled(source, folder, wanted)
    found = wanted.of(known)
    if len(found) < wanted.n:
        after = f", from {wanted.first} on" if wanted.first else ""
        raise InvalidInput(
            f"expected {wanted.n} texts{after}; {source} holds {len(known)}. Take fewer batches, or fewer "
            "records in each"
        )
    names = tuple(f"text {i + 1}" for i in range(wanted.first, wanted.first + wanted.n))
    pad, others = _with_padding(tokenizer), _public(source, public, folder)
    ids = _written(tokenizer, [text for text, _ in found], wanted.longest)
    _require_words(source, wanted, names, ids, tokenizer)
    if wanted.task == "classification":
        y, classes = _classes(source, wanted, known)
        read = ids
    else:
        classes = {}
        read, y = (
            _with_masks(ids, tokenizer, wanted.seed)
            if wanted.task == "masked"
            else (ids, words_as_labels(ids, pad))
        )
    _require_known(source, tokenizer, ids)
    return TextRecords(
        read,
        y,
        names,
        max(classes, default=-1) + 1,
        pad,
        classes,
        None if others is None else _written(tokenizer, others, wanted.longest),
    )


def tokenizer_at(place: Path) -> Any:
    """From a folder of transformers, or a tokenizer.json."""
    try:
        import transformers as library
    except ImportError as error:
        raise NotInstalled(
            "texts need the package transformers, which is not installed. Run: pip install 'gradleak[text]'"
        ) from error
    transformers: Any = library  # it types its classes, and not how they are made
    if not place.exists():
        raise InvalidInput(
            f"expected a tokenizer, a folder of transformers or a tokenizer.json; there is nothing at {place}"
        )
    try:
        if place.is_file():
            return _with_roles(transformers.PreTrainedTokenizerFast(tokenizer_file=str(place)))
        # Unless told not to, it asks on the terminal whether to run code that lies there.
        return transformers.AutoTokenizer.from_pretrained(
            place, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # transformers raises many kinds
        said = cause(error).splitlines()[0]
        raise InvalidInput(f"the tokenizer at {place} cannot be read: {said}") from error


def _with_roles(tokenizer: Any) -> Any:
    """A file says which words are special, and not what each of them is for."""
    known = tokenizer.get_vocab()
    for role, names in _ROLES.items():
        found = [name for name in names if name in known]
        if found and getattr(tokenizer, role) is None:
            setattr(tokenizer, role, found[0])
    return tokenizer


_ROLES = {
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "mask_token": ("[MASK]", "<mask>"),
    "eos_token": ("</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>"),
}
"""What special words are called in most vocabularies."""


# Where texts are.


def _labelled(source: str, folder: Path, wanted: Wanted) -> list[Labelled]:
    """All that is there, or of code's no more than is needed."""
    path = folder / source
    if source == BUNDLED:
        return _bundled()
    if ":" in source and not path.exists():
        return _called(source, wanted)
    if not path.is_file():
        raise InvalidInput(_nothing_there(source, path))
    if path.suffix.lower() not in ENDINGS:
        raise InvalidInput(f"expected texts in a file that ends in {', '.join(ENDINGS)}; came {source}")
    return _in_file(path)


def _bundled() -> list[Labelled]:
    from gradleak import zoo

    texts, labels = zoo.sentences()
    said = ("harmless", "private")
    return [(text, said[label]) for text, label in zip(texts, labels.tolist(), strict=True)]


def _in_file(path: Path) -> list[Labelled]:
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"expected text in UTF-8; byte {error.start} of {path.name} is none. Save it as UTF-8."
        ) from error
    except OSError as error:
        raise InvalidInput(f"{path.name} cannot be read: {error.strerror}") from error
    readers: dict[str, Callable[[str, str], list[Labelled]]] = {
        ".txt": _lines,
        ".csv": _table,
        ".tsv": _table,
        ".jsonl": _objects,
    }
    return readers[path.suffix.lower()](path.name, content)


def _lines(name: str, content: str) -> list[Labelled]:
    """A text on each line, without a label."""
    return [(line.strip(), None) for line in content.split("\n") if line.strip()]


def _table(name: str, content: str) -> list[Labelled]:
    rows = csv.DictReader(
        io.StringIO(content), delimiter="\t" if name.lower().endswith(".tsv") else ",", strict=True
    )
    try:
        _require_columns(name, rows)
        return [pair for row in rows if (pair := _row(name, rows.line_num, row))[0]]
    except csv.Error as error:
        raise InvalidInput(
            f"line {rows.line_num} of {name} cannot be read: {error}. Texts with commas, quotes or several "
            "lines stand in quotes, and quotes in them are doubled"
        ) from error


def _require_columns(name: str, rows: "csv.DictReader[str]") -> None:
    rows.fieldnames = columns = [column.strip() for column in rows.fieldnames or ()]
    if columns.count("text") != 1 or columns.count("label") > 1:
        raise InvalidInput(
            "expected a first line with the column text, and label where there are any, each once; "
            f"{name} begins with {', '.join(columns) or 'nothing'}"
        )


def _row(name: str, line: int, row: dict[Any, Any]) -> Labelled:
    if None in row:
        raise InvalidInput(
            f"expected as many cells on each line as columns; the one that ends on line {line} of {name} has "
            "more. Texts with commas stand in quotes"
        )
    return (row["text"] or "").strip(), (row.get("label") or "").strip() or None


def _objects(name: str, content: str) -> list[Labelled]:
    lines = enumerate(content.split("\n"), 1)
    found = [_object(name, number, line) for number, line in lines if line.strip()]
    return [(text, label) for text, label in found if text]


def _object(name: str, number: int, line: str) -> Labelled:
    """What came is not repeated, as it is private."""
    try:
        said = json.loads(line)
        text, label = said["text"], said.get("label")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        text, label = None, None
    if not isinstance(text, str) or not isinstance(label, str | int | float | None):
        raise InvalidInput(
            'expected an object with "text" in words, and "label" as words or a number where there is one, '
            f"on each line; line {number} of {name} is something else"
        )
    return text.strip(), None if label is None else str(label).strip() or None


def _called(source: str, wanted: Wanted) -> list[Labelled]:
    """Code that draws draws the same again for the same seed."""
    generator(wanted.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(wanted.seed)
        try:
            taken = list(islice(builder(source)(), wanted.first + wanted.n))
        except GradleakError:
            raise
        except Exception as error:  # it is someone else's code, and may raise anything
            raise InvalidInput(f"{source} could not be called for texts: {cause(error)}") from error
    return [_pair(source, one) for one in taken]


def _pair(source: str, one: object) -> Labelled:
    if isinstance(one, str):
        return one, None
    if isinstance(one, tuple | list) and len(one) == 2 and isinstance(one[0], str):
        return one[0], str(one[1])
    raise InvalidInput(f"expected texts, or pairs (text, label), from {source}; came {type(one).__name__}")


def _nothing_there(source: str, path: Path) -> str:
    beside = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
    near = get_close_matches(path.name, [BUNDLED, *beside], n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return (
        f"expected {BUNDLED}, a file that ends in {', '.join(ENDINGS)}, or module:callable; came '{source}', "
        f"and there is no file at {path}{hint}"
    )


def _public(source: str, public: str | None, folder: Path) -> list[str] | None:
    if public is not None:
        wanted = Wanted(10**6, "")
        return [text for text, _ in _labelled(public, folder, wanted)] or None
    if source != BUNDLED:
        return None
    from gradleak import zoo

    return list(zoo.public_sentences())


# As numbers.


def _require_known(source: str, tokenizer: Any, ids: Tensor) -> None:
    """A folder without the files of its tokenizer gives one that knows no word at all."""
    nothing = tokenizer.unk_token_id
    special = [word for word in tokenizer.all_special_ids if word != nothing]
    if nothing is None or nothing == tokenizer.pad_token_id:
        return
    written = ids[~torch.isin(ids, torch.tensor(special))]
    share = float((written == nothing).sum()) / max(len(written), 1)
    if share > _UNKNOWN:
        raise InvalidInput(
            f"expected words that the tokenizer knows; of those in {source} it does not know {share:.0%}. Is "
            "it the model's own, with all of its files beside the model?"
        )


def _with_padding(tokenizer: Any) -> int | None:
    """The padding word; one that ends texts takes its place where a tokenizer has none.

    It stands behind texts, as positions count from their first word.
    """
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    pad: int | None = tokenizer.pad_token_id
    return pad


def _written(tokenizer: Any, texts: Sequence[str], longest: int) -> Tensor:
    settings: dict[str, Any] = {"truncation": True, "max_length": longest}
    if tokenizer.pad_token is None:  # then all must be as long as the shortest
        rows = [tokenizer(text, **settings)["input_ids"] for text in texts]
        return torch.tensor([row[: min(map(len, rows))] for row in rows])
    ids: Tensor = tokenizer(list(texts), padding="longest", return_tensors="pt", **settings)["input_ids"]
    return ids.long()


def _require_words(source: str, wanted: Wanted, names: Sequence[str], ids: Tensor, tokenizer: Any) -> None:
    """Of a text that the tokenizer writes as nothing, nothing can be said."""
    least = 2 if wanted.task == "masked" else 1  # one is hidden
    counts = (~_special(ids, tokenizer)).sum(1).tolist()
    short = [name for name, count in zip(names, counts, strict=True) if count < least]
    if short:
        words = "a word" if least == 1 else "two words, of which one is masked,"
        raise InvalidInput(
            f"expected {words} or more in every text, once its tokenizer has written it and cut it to "
            f"{wanted.longest}; {', '.join(short[:4])} of {source} has fewer. Leave it out, or raise longest"
        )


def _special(ids: Tensor, tokenizer: Any) -> Tensor:
    return torch.isin(ids, torch.tensor(special_words(tokenizer), dtype=ids.dtype))


def _classes(source: str, wanted: Wanted, known: Sequence[Labelled]) -> tuple[Tensor, dict[int, str]]:
    """The class of each text that is wanted, and what all classes of the source are called.

    The model's own names for its outputs say which is which. Else whole numbers are the outputs, and other
    labels are numbered in the order of the alphabet.
    """
    labels = [label for _, label in wanted.of(known)]
    if any(label is None for label in labels):
        raise InvalidInput(
            f"expected a label for each text, since the model classifies; {source} has none for some. Take a "
            ".csv with the columns text and label, or another task"
        )
    names = sorted({label for _, label in known if label is not None})
    numbers = _numbers(source, names, wanted.outputs)
    y = torch.tensor([numbers[str(label)] for label in labels])
    return y, {number: name for name, number in numbers.items()}


def _numbers(source: str, names: Sequence[str], outputs: Mapping[str, int]) -> dict[str, int]:
    if outputs and set(names) <= set(outputs):
        return {name: outputs[name] for name in names}
    whole = [_whole(name) for name in names]
    if None not in whole:
        if max(number or 0 for number in whole) >= _MOST_CLASSES:
            raise InvalidInput(
                f"expected labels as classes, from 0 up; {source} has numbers of {_MOST_CLASSES:,} and more"
            )
        return {name: int(number or 0) for name, number in zip(names, whole, strict=True)}
    if outputs:
        strange = next(name for name in names if name not in outputs)
        raise InvalidInput(
            f"expected labels as the model calls its outputs, {', '.join(list(outputs)[:8])}, or their "
            f"numbers; {source} has {strange!r}"
        )
    return {name: i for i, name in enumerate(names)}


def _whole(label: str) -> int | None:
    """Tables write whole numbers as 1.0 where one is missing."""
    digits = label.removesuffix(".0")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else None


def _with_masks(ids: Tensor, tokenizer: Any, seed: int) -> tuple[Tensor, Tensor]:
    mask = tokenizer.mask_token_id
    if mask is None:
        raise InvalidInput("expected a tokenizer with a word that masks others; this one has none")
    special = _special(ids, tokenizer)
    order = torch.rand(ids.shape, generator=generator(seed)).masked_fill(special, 2.0)
    counts = ((~special).sum(1) * _MASKED).clamp_min(1)
    chosen = (order.argsort(1).argsort(1) < counts[:, None].round()) & ~special
    return ids.masked_fill(chosen, mask), ids.masked_fill(~chosen, IGNORED)
