"""Private texts: bundled ones, lines of a file, rows of a table, or what code hands over."""

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
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

BUNDLED = "sentences"
ENDINGS = (".txt", ".csv", ".tsv", ".jsonl")
LONGEST = 64
"""Words, special ones included, to which texts are cut, unless said."""
_MASKED = 0.15  # of the words of a text, and one at least

Labelled = tuple[str, str | None]


@dataclass(frozen=True)
class Wanted:
    """Which texts of a source, ``n`` from the ``first`` on, and what a model is trained to do with them."""

    n: int
    task: str
    first: int = 0
    longest: int = LONGEST
    seed: int = 0


@dataclass(frozen=True, eq=False)
class TextRecords:
    """``ids`` are [n, T], padded with ``pad``, and ``y`` what the task asks for. ``public`` are ids too."""

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
    found = _labelled(source, folder, wanted)
    if len(found) < wanted.n:
        after = f", from {wanted.first} on" if wanted.first else ""
        raise InvalidInput(
            f"expected {wanted.n} texts{after}; {source} holds {len(found) + wanted.first}. Take fewer "
            "batches, or fewer records in each"
        )
    pad = _with_padding(tokenizer)
    ids = _written(tokenizer, [text for text, _ in found], wanted.longest)
    read, y, names = _task(source, wanted, ids, [label for _, label in found], tokenizer, pad)
    others = _public(source, public, folder)
    return TextRecords(
        read,
        y,
        tuple(f"text {i + 1}" for i in range(wanted.first, wanted.first + wanted.n)),
        len(names),
        pad,
        names,
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
            return transformers.PreTrainedTokenizerFast(tokenizer_file=str(place))
        return transformers.AutoTokenizer.from_pretrained(place, local_files_only=True)
    except Exception as error:  # transformers raises many kinds
        raise InvalidInput(f"the tokenizer at {place} cannot be read: {cause(error)}") from error


# Where texts are.


def _labelled(source: str, folder: Path, wanted: Wanted) -> list[Labelled]:
    path = folder / source
    if source == BUNDLED:
        return _between(_bundled(), wanted)
    if ":" in source and not path.exists():
        return _between(_called(source, wanted), wanted)
    if not path.is_file():
        raise InvalidInput(_nothing_there(source, path))
    if path.suffix.lower() not in ENDINGS:
        raise InvalidInput(f"expected texts in a file that ends in {', '.join(ENDINGS)}; came {source}")
    return _between(_in_file(path), wanted)


def _between(texts: Iterable[Labelled], wanted: Wanted) -> list[Labelled]:
    return list(islice(texts, wanted.first, wanted.first + wanted.n))


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
    return [(line.strip(), None) for line in content.splitlines() if line.strip()]


def _table(name: str, content: str) -> list[Labelled]:
    rows = csv.DictReader(content.splitlines(), delimiter="\t" if name.lower().endswith(".tsv") else ",")
    if "text" not in (rows.fieldnames or ()):
        raise InvalidInput(
            f"expected a first line with the column text, and label where there are any; {name} begins with "
            f"{', '.join(rows.fieldnames or ()) or 'nothing'}"
        )
    found = [(row["text"] or "", row.get("label")) for row in rows]
    return [(text.strip(), label) for text, label in found if text.strip()]


def _objects(name: str, content: str) -> list[Labelled]:
    found: list[Labelled] = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
            text, label = said["text"], said.get("label")
        except (ValueError, TypeError, KeyError, AttributeError):
            raise InvalidInput(
                f'expected an object with "text", and "label" where there is one, on each line; line '
                f"{number} of {name} is {line[:40]!r}"
            ) from None
        found.append((str(text).strip(), None if label is None else str(label)))
    return [(text, label) for text, label in found if text]


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


def _with_padding(tokenizer: Any) -> int | None:
    """The padding word; one that ends texts takes its place where a tokenizer has none."""
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


def _task(
    source: str, wanted: Wanted, ids: Tensor, labels: Sequence[str | None], tokenizer: Any, pad: int | None
) -> tuple[Tensor, Tensor, dict[int, str]]:
    """What the model is shown, what it is to say, and what classes are called."""
    if wanted.task == "causal":
        return ids, words_as_labels(ids, pad), {}
    if wanted.task == "masked":
        return *_with_masks(ids, tokenizer, wanted.seed), {}
    if any(label is None for label in labels):
        raise InvalidInput(
            f"expected a label for each text, since the model classifies; {source} has none for some. Take a "
            ".csv with the columns text and label, or another task"
        )
    whole = all(str(label).isascii() and str(label).isdigit() for label in labels)
    names = sorted({str(label) for label in labels}, key=int if whole else str)
    if whole:
        return ids, torch.tensor([int(str(label)) for label in labels]), {int(name): name for name in names}
    return ids, torch.tensor([names.index(str(label)) for label in labels]), dict(enumerate(names))


def _with_masks(ids: Tensor, tokenizer: Any, seed: int) -> tuple[Tensor, Tensor]:
    mask = tokenizer.mask_token_id
    if mask is None:
        raise InvalidInput("expected a tokenizer with a word that masks others; this one has none")
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    order = torch.rand(ids.shape, generator=generator(seed)).masked_fill(special, 2.0)
    counts = ((~special).sum(1) * _MASKED).clamp_min(1)
    chosen = (order.argsort(1).argsort(1) < counts[:, None].round()) & ~special
    return ids.masked_fill(chosen, mask), ids.masked_fill(~chosen, IGNORED)
