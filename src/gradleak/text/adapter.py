"""A transformers model as gradleak's attacks and clients take one: words in, logits out."""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from gradleak.errors import InvalidBatch, InvalidInput, InvalidModel, NotInstalled
from gradleak.observe import Loss, Observation, cross_entropy
from gradleak.text.losses import masked_words, next_words

TASKS: dict[str, Loss] = {
    "classification": cross_entropy,
    "masked": masked_words,
    "causal": next_words,
}
"""What a model can be trained for, and the loss of it."""

CAUSAL = ("gpt2", "gpt_neo", "opt", "llama", "mistral", "qwen2", "gpt_neox")
BIDIRECTIONAL = ("bert", "roberta", "distilbert", "electra", "albert", "camembert", "xlm-roberta", "deberta")


class TextModel(nn.Module):
    """``network``, called with nothing but the words; padding is read off them.

    In the place of words [B, T], it takes their embeddings [B, T, width], before positions are added: a
    row that is the padding word's own is padding.
    """

    def __init__(self, network: nn.Module, task: str, pad: int | None) -> None:
        super().__init__()
        self.network = network
        self.task = task
        self.pad = pad
        self.table = self._name_of_table()
        self.training = network.training

    @property
    def loss(self) -> Loss:
        """What ``gradleak.observe`` takes as ``loss``."""
        return TASKS[self.task]

    @property
    def config(self) -> Any:
        return self.network.config

    def embeddings(self) -> Tensor:
        """One row for each word of the vocabulary."""
        table: Tensor = self.network.get_input_embeddings().weight  # type: ignore[operator]
        return table

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        given = {"inputs_embeds": x} if x.is_floating_point() else {"input_ids": x}
        mask = None if self.pad is None else self._mask(self._real(x))
        output = self.network(**given, attention_mask=mask, return_dict=True, **self._plainly())
        logits: Tensor = output.logits
        return logits

    def _real(self, x: Tensor) -> Tensor:
        if x.is_floating_point():
            return (x != self.embeddings()[self.pad]).any(-1)
        return x.ne(-1 if self.pad is None else self.pad)

    def _mask(self, real: Tensor) -> Tensor:
        """1 for words and 0 for padding; where the model is known, as what is added to attention's scores.

        transformers asks of the former whether all of it is 1, which vmap cannot answer.
        """
        kind, length = self.config.model_type, real.shape[-1]
        if kind not in CAUSAL + BIDIRECTIONAL:
            return real.long()
        seen = real[:, None, None, :].expand(-1, 1, length, -1)
        if kind in CAUSAL:
            seen = seen & torch.ones(length, length, dtype=torch.bool, device=real.device).tril()
        dtype = self.embeddings().dtype
        return torch.zeros(seen.shape, dtype=dtype, device=real.device).masked_fill(
            ~seen, torch.finfo(dtype).min
        )

    def _plainly(self) -> dict[str, bool]:
        return {"use_cache": False} if self.config.model_type in CAUSAL else {}

    def _check(self, x: Tensor) -> None:
        rows, width = self.embeddings().shape
        if x.is_floating_point() and (x.dim() != 3 or x.shape[-1] != width):
            raise InvalidBatch(
                f"expected words [B, T], or their embeddings [B, T, {width}]; came {x.dtype} of shape "
                f"{list(x.shape)}"
            )
        if not x.is_floating_point() and x.dim() != 2:
            raise InvalidBatch(f"expected words as integers of shape [B, T]; came shape {list(x.shape)}")
        longest = getattr(self.config, "max_position_embeddings", None)
        if longest is not None and x.shape[1] > longest:
            raise InvalidBatch(
                f"expected sentences of at most {longest} words, for which the model has positions; came "
                f"{x.shape[1]}. Cut them: ids[:, :n]."
            )
        if not x.is_floating_point():
            self._check_words(x, rows)

    def _check_words(self, ids: Tensor, rows: int) -> None:
        if not 0 <= int(ids.min()) <= int(ids.max()) < rows:
            raise InvalidBatch(
                f"expected words from 0 to {rows - 1:,}, as the model's vocabulary has them; came "
                f"{int(ids.min()):,} to {int(ids.max()):,}. Was another tokenizer used?"
            )
        empty = (~self._real(ids).any(1)).nonzero().flatten().tolist() if self.pad is not None else []
        if empty:
            raise InvalidBatch(
                f"expected a word in every sentence; {', '.join(map(str, empty))} of the batch are padding "
                "alone. Leave them out."
            )

    def _name_of_table(self) -> str:
        table = self.embeddings()
        return next(name for name, parameter in self.named_parameters() if parameter is table)


def wrap(model: nn.Module, task: str = "classification", pad: int | None = None) -> TextModel:
    """A model from transformers, so that ``gradleak.observe`` takes it with words as data.

    ``task`` is what it is trained for: ``"classification"`` with one label for each text, ``"masked"``
    with the words that were masked out as labels, ``"causal"`` with the words themselves. ``wrapped.loss``
    is the loss of that task. ``pad`` is the padding word, by default the model's own; a model that has none
    takes texts of one length. The model is used as it is, in the mode in which it is.
    """
    model = _underneath(model)
    if task not in TASKS:
        raise InvalidInput(f"expected the task as one of {', '.join(TASKS)}; came {task!r}")
    _require_language_model(model)
    config: Any = model.config
    if task == "causal" and config.model_type in BIDIRECTIONAL and not getattr(config, "is_decoder", False):
        raise InvalidModel(
            f"expected a decoder for the task 'causal'; {type(model).__name__} sees the words that it is to "
            "predict. Load it with is_decoder=True, or take the task 'masked'."
        )
    pad = config.pad_token_id if pad is None else pad
    wrapped = TextModel(model, task, pad)
    rows = len(wrapped.embeddings())
    if pad is not None and not 0 <= pad < rows:
        raise InvalidInput(f"expected the padding word from 0 to {rows - 1:,}; came {pad!r}")
    return wrapped


def _underneath(model: nn.Module) -> nn.Module:
    """What carries the adapters, where the package peft has put some on a model."""
    base = getattr(model, "get_base_model", None)
    found = base() if callable(base) else model
    return found if isinstance(found, nn.Module) else model


def _require_language_model(model: object) -> None:
    try:
        from transformers import PreTrainedModel
    except ImportError as error:
        raise NotInstalled(
            "models of words come from the package transformers, which is not installed. Run: pip install "
            "'gradleak[text]'"
        ) from error
    if not isinstance(model, PreTrainedModel):
        raise InvalidModel(
            "expected a model from transformers, such as BertForSequenceClassification; came "
            f"{type(model).__name__}"
        )
    if not any("For" in kind.__name__ or "LMHead" in kind.__name__ for kind in type(model).__mro__):
        raise InvalidModel(
            "expected a model that ends in logits, such as BertForSequenceClassification; "
            f"{type(model).__name__} has no head. Load the same weights into a class with one."
        )


def without_table(obs: Observation) -> Observation:
    """The same facts with the word embeddings frozen, so that their rows are not in the update.

    Who rebuilds embeddings looks up no row, and its simulated update would be zero there.
    """
    table: str = getattr(obs.model, "table", "")
    if table not in obs.params or len(obs.params) == 1:
        return obs
    return dataclasses.replace(
        obs,
        params={name: leaf for name, leaf in obs.params.items() if name != table},
        update={name: leaf for name, leaf in obs.update.items() if name != table},
        constants={**obs.constants, table: obs.params[table]},
    )
