"""An audit's plan: what a TOML file may say, and what is wrong with one that cannot be run."""

import tomllib
from collections.abc import Iterator
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from gradleak.attacks import ATTACKS
from gradleak.audit import mistakes
from gradleak.audit.choice import AUTO, LADDERS, require_attack, require_attacks, require_rung, require_rungs
from gradleak.audit.limits import FAULTS, Limits
from gradleak.audit.mistakes import Mistake, Where
from gradleak.audit.places import lines_of
from gradleak.audit.ways import called, ways_of
from gradleak.defenses import DEFENSES
from gradleak.errors import InvalidInput, InvalidPlan
from gradleak.observe import Client, LocalAdam, LocalSGD, OneGradient
from gradleak.observe.domain import Domain
from gradleak.sources.attacks import on_texts
from gradleak.sources.defenses import defended
from gradleak.sources.models import require_spec
from gradleak.sources.texts import are_texts
from gradleak.text import TEXT_ATTACKS
from gradleak.threats.rungs import RUNGS

SEEDS = 2**63
_MOST_BATCHES, _MOST_RECORDS = 10_000, 4096
_MOST_DECIBELS = 150.0  # float32 tells no more apart


class _Part(BaseModel):
    """Words are not numbers here, nor numbers words; and what is not known is a mistake."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _words(value: Any) -> Any:
    """One word is a list of one."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _around(value: Any) -> Any:
    """A defense, or several around each other, tried on a client that does nothing."""
    if value == []:
        raise InvalidInput(
            "expected a defense, or several that are put around each other; came an empty list"
        )
    specs = _words(value)
    if not isinstance(specs, tuple) or not all(isinstance(spec, str) for spec in specs):
        raise InvalidInput(
            f'expected a defense, such as "gaussian:std=1e-3", or a list of such; came '
            f"{mistakes.shown(value)}"
        )
    if "none" in specs:
        raise InvalidInput("expected a defense; came 'none'. Every client is tried without them as well")
    defended(OneGradient(), specs)
    return specs


_EXAMPLES = "sign, gaussian:std=1e-3, mask:rate=0.5"
_SPEC = {"type": "string", "examples": _EXAMPLES.split(", "), "pattern": f"^({'|'.join(DEFENSES)})(:.*)?$"}
_SPECS = {"anyOf": [_SPEC, {"type": "array", "items": _SPEC, "minItems": 1}]}
_ATTACK = {"type": "string", "pattern": f"^({'|'.join((*ATTACKS, *TEXT_ATTACKS))})(:.*)?$"}
_ATTACKS = {"anyOf": [{"const": AUTO}, _ATTACK, {"type": "array", "items": _ATTACK, "minItems": 1}]}
_RUNG = {"enum": [rung.name for rung in RUNGS]}
_LADDER = {"anyOf": [{"enum": [*LADDERS, *_RUNG["enum"]]}, {"type": "array", "items": _RUNG, "minItems": 1}]}

Specs = Annotated[tuple[str, ...], BeforeValidator(_around), WithJsonSchema(_SPECS)]
Attack = Annotated[str, AfterValidator(require_attack)]
RungName = Annotated[str, AfterValidator(require_rung)]
Numbers = Annotated[tuple[float, ...], BeforeValidator(_listed), Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]


class NormalizationPart(_Part):
    """The model sees (pixel - mean) / std; one value for each channel, or one for all."""

    mean: Numbers
    std: Numbers

    @field_validator("std")
    @classmethod
    def _together(cls, std: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        if "mean" in info.data:
            Domain(info.data["mean"], std)
        return std


class ModelPart(_Part):
    """What builds the network, and the weights that it is sent out with."""

    build: str | None = Field(
        default=None, description="module:callable, or a model of `gradleak list models`"
    )
    pretrained: str | None = Field(
        default=None, description="a folder of transformers, in the place of build; for texts"
    )
    task: Literal["classification", "masked", "causal"] | None = Field(
        default=None, description="what a model of texts is trained for; none for pictures"
    )
    tokenizer: str | None = Field(
        default=None,
        description="a folder of transformers or a tokenizer.json; that of pretrained unless said",
    )
    arguments: dict[str, Any] = Field(default={}, description="what the callable is handed")
    weights: str | None = Field(
        default=None, description="a safetensors file; without it, the seed's own weights"
    )

    @field_validator("build")
    @classmethod
    def _known(cls, build: str | None) -> str | None:
        if build is not None:
            require_spec(build)
        return build

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.build is None) == (self.pretrained is None):
            came = "none" if self.build is None else "both"
            raise InvalidInput(f"expected one of build and pretrained; came {came}")
        if self.task is None and (self.pretrained or self.tokenizer):
            name = "pretrained" if self.pretrained else "tokenizer"
            raise InvalidInput(
                f'expected task = "classification", "masked" or "causal" beside {name}, which is for texts; '
                "came none"
            )
        return self


class DataPart(_Part):
    """Private records, one batch of them for each client that is attacked."""

    source: str = Field(min_length=1, description="a bundled set, a folder, a file, or module:callable")
    batches: int = Field(default=2, ge=1, le=_MOST_BATCHES, description="how many updates are attacked")
    records: int = Field(default=1, ge=1, le=_MOST_RECORDS, description="in each batch")
    first: int = Field(default=0, ge=0, lt=2**31, description="the record to begin with")
    size: int | None = Field(
        default=None, ge=4, le=4096, description="side of pictures, in pixels; 32 unless said"
    )
    longest: int | None = Field(
        default=None, ge=3, le=4096, description="words to which texts are cut; 64 unless said"
    )
    public: str | None = Field(
        default=None, description="texts that are nobody's private ones, for the null; read as source is"
    )
    channels: Literal[1, 3] | None = Field(default=None, description="of pictures; the set's own unless said")
    normalization: NormalizationPart | None = None


class ClientPart(_Part):
    """How one kind of client trains."""

    kind: Literal["gradient", "sgd", "adam"] = "gradient"
    lr: Annotated[float, Field(gt=0)] | None = Field(default=None, validate_default=True)
    epochs: Count | None = Field(default=None, description="of local training; 1 unless said")
    batch: Count | None = Field(default=None, description="records in a local step; all unless said")
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        default=None, description="of sgd; 0 unless said"
    )

    @field_validator("lr", "epochs", "batch", "momentum")
    @classmethod
    def _belongs(cls, value: Any, info: ValidationInfo) -> Any:
        kind, name = info.data.get("kind"), info.field_name
        if value is None:
            if name == "lr" and kind in ("sgd", "adam"):
                raise InvalidInput(f'expected lr, the local learning rate, beside kind = "{kind}"; came none')
            return value
        if kind == "gradient":
            raise InvalidInput(
                f'expected no {name}, since a client of kind = "gradient" sends one gradient and takes no '
                f'step; came {mistakes.shown(value)}. Say kind = "sgd" or "adam" for local training'
            )
        if kind == "adam" and name == "momentum":
            raise InvalidInput(
                'expected momentum with kind = "sgd" only, as adam keeps running means of its own; came '
                f"{mistakes.shown(value)}"
            )
        return value

    def client(self, records: int) -> Client:
        """The client that trains like this on ``records`` records."""
        if self.kind == "gradient" or self.lr is None:
            return OneGradient()
        epochs, size = self.epochs or 1, self.batch or records
        if self.kind == "adam":
            return LocalAdam(epochs, size, self.lr)
        return LocalSGD(epochs, size, self.lr, momentum=self.momentum or 0.0)


class BudgetPart(_Part):
    """How much is tried. What is finished is kept, and more can be given later."""

    level: Literal["quick", "standard", "thorough"] = Field(
        default="standard", description="of the attacks in auto"
    )
    matching_gradients: Count | None = Field(default=None, description="of one attack on one update, at most")
    seconds: Annotated[float, Field(gt=0)] | None = Field(default=None, description="of the whole audit")
    starts: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="how often each attack begins anew; 1, and 3 where thorough"
    )
    target: Annotated[float, Field(gt=0, le=_MOST_DECIBELS)] | None = Field(
        default=None, description="decibels; dearer attacks are spared where one is well past it"
    )


def _accuracy(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise InvalidInput(f'expected a share from 0 to 1, or "random+0.2"; came {mistakes.shown(value)}')


_ACCURACY = {
    "anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "string", "pattern": "^random"}]
}
_FAULTS = {"type": "array", "items": {"enum": list(FAULTS)}}


class LimitsPart(_Part):
    """What `gradleak check` holds against the record; none is asked for unless said."""

    max_psnr: float | None = Field(default=None, description="decibels, of any record")
    max_ssim: float | None = Field(default=None, description="of any record")
    max_rouge: float | None = Field(default=None, description="ROUGE-L in percent, of any text")
    max_leaked: float | None = Field(default=None, description="share of records that leak")
    max_label_accuracy: Annotated[
        float | str | None, PlainValidator(_accuracy), WithJsonSchema(_ACCURACY)
    ] = Field(default=None, description='share of labels that come back, or "random+0.2"')
    max_forecast: float | None = Field(
        default=None, description="decibels that the forecast may say, of any record"
    )
    ways: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        default=(), description="of training that are meant; all unless said"
    )
    allow: Annotated[tuple[str, ...], BeforeValidator(_listed), WithJsonSchema(_FAULTS)] = Field(
        default=(), description="what may pass: cases not run, failed, or without an answer"
    )

    @field_validator("*")
    @classmethod
    def _within(cls, value: Any, info: ValidationInfo) -> Any:
        """The limits know their own ranges."""
        Limits(**{str(info.field_name): value})
        return value


class Plan(_Part):
    """One audit: a network, private records, ways of training, and how hard a server tries."""

    title: str = Field(default="An audit", min_length=1, max_length=200)
    seed: int = Field(default=0, ge=0, lt=SEEDS, description="everything random follows from it")
    defenses: Annotated[tuple[Specs, ...], BeforeValidator(_listed)] = Field(
        default=(), description="each is tried on every client, beside none"
    )
    attacks: Annotated[
        tuple[Attack, ...], BeforeValidator(_words), AfterValidator(require_attacks), WithJsonSchema(_ATTACKS)
    ] = Field(default=(AUTO,), description="tried one after another, from cheap to dear")
    ladder: Annotated[
        tuple[RungName, ...], BeforeValidator(_words), AfterValidator(require_rungs), WithJsonSchema(_LADDER)
    ] = Field(default=("all",), description="what the server knows, from everything down")
    together: int = Field(
        default=2, ge=2, le=_MOST_BATCHES, description="clients that are summed on the last rung"
    )
    model: ModelPart
    data: DataPart
    clients: dict[str, ClientPart] = Field(
        default={"one gradient": ClientPart()}, min_length=1, description="ways of training, by your names"
    )
    budget: BudgetPart = BudgetPart()
    limited: LimitsPart = Field(default=LimitsPart(), alias="limits")
    _where: Where = PrivateAttr()

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """From a file. All of its mistakes are told at once, as far as one can see past the first."""
        path = Path(path)
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InvalidPlan(
                f"{path}: expected text in UTF-8; byte {error.start} is none. "
                "Is this a plan? If so, save it as UTF-8."
            ) from error
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            hint = " `gradleak plan init` writes one." if isinstance(error, FileNotFoundError) else ""
            why = getattr(error, "strerror", None) or error
            raise InvalidPlan(
                f"{path}: expected a plan, a TOML file; it cannot be read: {why}.{hint}"
            ) from error
        return cls.parse(text, path)

    @classmethod
    def parse(cls, text: str, where: Path | str = "plan.toml") -> Self:
        """From text. Paths in it are relative to the folder of ``where``, and messages name that."""
        path = Path(where)
        try:
            data = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidPlan(mistakes.not_toml(path, error)) from error
        place = Where(path, lines_of(text, data))
        try:
            plan = cls.model_validate(data)
        except ValidationError as error:
            raise place.refusal(mistakes.of(error, cls)) from error
        plan._where = place
        if crossed := list(plan._crossed()):
            raise place.refusal(crossed)
        return plan

    @property
    def where(self) -> Where:
        return self._where

    @property
    def limits(self) -> Limits:
        return Limits(**{one.name: getattr(self.limited, one.name) for one in fields(Limits)})

    @property
    def ways(self) -> dict[str, Client]:
        """Every client as it is, and with each of the defenses around it."""
        clients = {name: part.client(self.data.records) for name, part in self.clients.items()}
        return ways_of(clients, self.defenses)

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        said = self.data.normalization
        return None if said is None else (said.mean, said.std)

    @property
    def of_texts(self) -> bool:
        return self.model.task is not None

    @property
    def domain(self) -> Domain:
        return Domain.of(self.normalization)

    def as_facts(self) -> dict[str, Any]:
        """As it was said, in plain JSON."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def _crossed(self) -> Iterator[Mistake]:
        """What no key can know alone."""
        yield from self._pictures_or_texts()
        records = self.data.records
        for name, part in self.clients.items():
            if part.batch is not None and part.batch > records:
                yield Mistake(
                    ("clients", name, "batch"),
                    f"expected at most the {records} records of a client, data.records; came {part.batch}",
                )
            if not name.strip() or not name.isprintable():
                yield Mistake(("clients", name), f"expected a name that can be read; came {name!r}")
        for i, specs in enumerate(self.defenses):
            if specs in self.defenses[:i]:
                yield Mistake(
                    ("defenses", i), f"expected every defense once; came {' around '.join(specs)} twice"
                )
        for name in self.clients:
            if any(name == called(other, specs) for other in self.clients for specs in self.defenses):
                yield Mistake(
                    ("clients", name), "expected a name that no client with a defense has; came that one"
                )
        for i, way in enumerate(self.limited.ways):
            if way not in self.ways:
                near = get_close_matches(way, self.ways, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                yield Mistake(
                    ("limits", "ways", i),
                    f"expected ways of training among {'; '.join(self.ways)}; came '{way}'{hint}",
                )

    def _pictures_or_texts(self) -> Iterator[Mistake]:
        noun, other = ("texts", "pictures") if self.of_texts else ("pictures", "texts")
        if not self.of_texts and are_texts(self.data.source):
            yield Mistake(
                ("data", "source"),
                f'expected model.task = "classification", "masked" or "causal" for texts such as '
                f"'{self.data.source}'; came none",
            )
            return
        foreign = ("size", "channels", "normalization") if self.of_texts else ("longest", "public")
        for name in foreign:
            if getattr(self.data, name) is not None:
                yield Mistake(("data", name), f"expected no {name}, which is for {other}; these are {noun}")
        for name in ("max_psnr", "max_ssim") if self.of_texts else ("max_rouge",):
            if getattr(self.limited, name) is not None:
                yield Mistake(("limits", name), f"expected no {name}, which is for {other}; these are {noun}")
        for i, spec in enumerate(self.attacks):
            if spec != AUTO and on_texts(spec) is not self.of_texts:
                yield Mistake(("attacks", i), f"expected an attack on {noun}; '{spec}' is one on {other}")


def schema() -> dict[str, Any]:
    """JSON Schema, for editors that complete and check TOML."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Plan.model_json_schema(by_alias=True)
