"""From a plan to an audit's work on texts: the model with its tokenizer, and what private texts say."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gradleak.audit.mistakes import Mistake
from gradleak.audit.plan import Plan
from gradleak.audit.planned import planned
from gradleak.cases.texts import Texts
from gradleak.cases.work import Work
from gradleak.errors import GradleakError, InvalidInput, NotInstalled
from gradleak.observe import observe
from gradleak.sources.models import build, cause, load_weights
from gradleak.sources.texts import LONGEST, TextRecords, Wanted, read_texts, tokenizer_at
from gradleak.text import TextModel, vocabulary, wrap

_HEADS = {
    "classification": "AutoModelForSequenceClassification",
    "masked": "AutoModelForMaskedLM",
    "causal": "AutoModelForCausalLM",
}


def work_of_texts(plan: Plan) -> tuple[Work, Mapping[int, str]]:
    """The work, and what classes are called."""
    found: list[Mistake] = []
    tokenizer, outputs = None, _Outputs()
    from_folder = plan.model.pretrained is not None and plan.model.tokenizer is None
    with plan.where.blamed("model", "pretrained" if from_folder else "tokenizer", on=found):
        tokenizer = _tokenizer(plan)
        outputs = _outputs(plan)
    if found:
        raise plan.where.refusal(found)
    records, model = None, None
    with plan.where.blamed("data", "source", on=found):
        records = _records(plan, tokenizer, outputs)
    with plan.where.blamed("model", "pretrained" if plan.model.pretrained else "build", on=found):
        model = _model(plan, tokenizer, records, outputs)
    if model is not None and plan.model.weights is not None:
        with plan.where.blamed("model", "weights", on=found):
            load_weights(model.network, plan.where.folder / plan.model.weights)
    if found or records is None or model is None:
        raise plan.where.refusal(found)
    return _work(plan, model, records, tokenizer), records.class_names


def _tokenizer(plan: Plan) -> Any:
    said = plan.model.tokenizer or plan.model.pretrained
    if said is not None:
        return tokenizer_at(plan.where.folder / said)
    from gradleak import zoo

    if plan.model.build in zoo.TEXT_MODELS:
        return zoo.tokenizer()
    raise InvalidInput(
        "expected the tokenizer of the model, a folder of transformers or a tokenizer.json; came none"
    )


def _records(plan: Plan, tokenizer: Any, outputs: "_Outputs") -> TextRecords:
    data = plan.data
    wanted = Wanted(
        n=data.batches * data.records,
        task=plan.model.task or "",
        first=data.first,
        longest=data.longest or LONGEST,
        seed=plan.seed,
        outputs=outputs.named,
    )
    return read_texts(data.source, wanted, tokenizer=tokenizer, public=data.public, folder=plan.where.folder)


def _model(plan: Plan, tokenizer: Any, records: TextRecords | None, outputs: "_Outputs") -> TextModel:
    said = plan.model
    task = said.task or ""
    if said.pretrained is not None:
        more = dict(said.arguments)
        if task == "classification" and not outputs.trained and records is not None and records.classes > 1:
            more.setdefault("num_labels", records.classes)
        network = _pretrained(plan.where.folder / said.pretrained, task, more, plan.seed)
    else:
        fit: dict[str, Any] = {"vocabulary": len(tokenizer), "task": task}
        if records is not None and records.classes > 1:
            fit["classes"] = records.classes
        network = build(said.build or "", said.arguments, plan.seed, fit=fit)
    if isinstance(network, TextModel):
        return network
    config: Any = getattr(network, "config", None)
    if getattr(config, "pad_token_id", tokenizer.pad_token_id) is None:
        config.pad_token_id = (
            tokenizer.pad_token_id
        )  # a decoder that classifies looks for the last word by it
    return wrap(network.eval(), task, pad=tokenizer.pad_token_id)


@dataclass(frozen=True)
class _Outputs:
    """Those of a classifier that was trained, by the names that it gave them."""

    trained: bool = False
    named: Mapping[str, int] = field(default_factory=dict)


def _outputs(plan: Plan) -> _Outputs:
    said = plan.model
    if said.pretrained is None or said.task != "classification" or "num_labels" in said.arguments:
        return _Outputs()
    folder = plan.where.folder / said.pretrained
    with _read_by_transformers(folder) as transformers:
        config = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    if not any("ForSequenceClassification" in kind for kind in config.architectures or ()):
        return _Outputs()
    unnamed = all(name == f"LABEL_{number}" for name, number in config.label2id.items())
    return _Outputs(True, {} if unnamed else {str(name): i for name, i in config.label2id.items()})


def _pretrained(folder: Path, task: str, more: Mapping[str, Any], seed: int) -> nn.Module:
    """Weights of safetensors alone are read, and no code that lies beside them is run."""
    with _read_by_transformers(folder) as transformers, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # a head that was not trained is drawn
        network: nn.Module = getattr(transformers, _HEADS[task]).from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, **more
        )
    return network.float()


@contextmanager
def _read_by_transformers(folder: Path) -> Iterator[Any]:
    try:
        import transformers
    except ImportError as error:
        raise NotInstalled(
            "texts need the package transformers, which is not installed. Run: pip install 'gradleak[text]'"
        ) from error
    if not folder.is_dir():
        raise InvalidInput(f"expected a folder that transformers wrote; there is none at {folder}")
    try:
        yield transformers
    except Exception as error:  # transformers raises many kinds
        said = cause(error).splitlines()[0]
        raise InvalidInput(f"transformers cannot read a model in {folder}: {said}") from error


def _work(plan: Plan, model: TextModel, records: TextRecords, tokenizer: Any) -> Work:
    first = plan.data.records
    _require_fit(plan, model, (records.ids[:first], records.y[:first]))
    kind = Texts(vocabulary(tokenizer), records.public)
    return planned(plan, model, (records.ids, records.y, records.names), kind, loss=model.loss)


def _require_fit(plan: Plan, model: TextModel, batch: tuple[Any, Any]) -> None:
    """One gradient, to see whether model, tokenizer and texts fit each other."""
    key = "pretrained" if plan.model.pretrained else "build"
    try:
        observe(model, *batch, loss=model.loss)
    except GradleakError as error:
        words = str(error)
    except Exception as error:  # the model is someone else's code
        words = f"the model raised {cause(error)}"
    else:
        return
    raise plan.where.refusal([Mistake(("model", key), words)])
