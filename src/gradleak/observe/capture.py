"""Observations on disk: safetensors with a JSON header. Nothing is ever unpickled."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import safetensors.torch
import torch
from torch import Tensor, nn

from gradleak.errors import InvalidCapture, InvalidInput
from gradleak.files import write_whole
from gradleak.observe.checks import check_fit, count_classes
from gradleak.observe.client import CLIENTS, Client
from gradleak.observe.domain import Domain
from gradleak.observe.observation import Observation
from gradleak.observe.task import (
    Loss,
    cross_entropy,
    keep_no_statistics,
    logistic,
    split_tensors,
    structure_of,
)
from gradleak.randomness import undisturbed
from gradleak.trees import Tree, detached, map_tree

_FORMAT = "gradleak-capture"
_VERSION = 2
_GROUPS = ("params", "constants", "update")
_EXTRAS = ("labels", "statistics")  # what only some servers know
_LONGEST_HEADER = 100_000_000  # the bound that the safetensors format sets itself
# What a description may claim, since a batch of that shape is what its reader will then allocate.
_MOST_PIXELS, _MOST_RECORD_PIXELS, _MOST_CLASSES = 2**31, 2**26, 2**24
_DEEPEST = 4  # clients inside clients
_NAMED_LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "logistic": logistic}


def save(obs: Observation, path: str | Path) -> None:
    """Write what the server holds to ``path``.

    A loss or a client of your own is not written, since that would take code: its name is kept, and
    ``load`` asks for it.
    """
    trees = zip(_GROUPS, (obs.params, obs.constants, obs.update), strict=True)
    tensors = {f"{group}/{name}": leaf for group, tree in trees for name, leaf in tree.items()}
    if obs.labels is not None:
        tensors["labels"] = obs.labels
    tensors |= {f"statistics/{name}": leaf for name, leaf in (obs.statistics or {}).items()}
    facts = {
        "format": _FORMAT,
        "version": _VERSION,
        "model": type(obs.model).__name__,
        "x_shape": list(obs.x_shape),
        "classes": obs.classes,
        "loss": _loss_name(obs.loss),
        "client": _client_facts(obs.client),
        "domain": dataclasses.asdict(obs.domain),
        "training": [name for name, module in obs.model.named_modules() if module.training],
        "draws": list(obs.draws),
    }
    # Tied tensors are written once per name: safetensors takes no two names for one memory.
    contiguous = {name: leaf.detach().cpu().clone().contiguous() for name, leaf in tensors.items()}
    write_whole(Path(path), safetensors.torch.save(contiguous, {"gradleak": json.dumps(facts)}))


@torch.inference_mode(False)  # what is read inside it could not be differentiated later
def load(
    path: str | Path, model: nn.Module, *, loss: Loss | None = None, client: Client | None = None
) -> Observation:
    """Read a capture of ``model``; the parameters come from the file, the structure from ``model``.

    ``loss`` and ``client`` are for captures that were made with your own.
    """
    path = Path(path)
    trained, constant = split_tensors(model)
    names = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]
    own = {name: {**trained, **constant}[name] for name in names}
    facts, tensors = read_capture(path)
    params, constants, update = _fitting_groups(path, tensors, type(model).__name__, own)
    labels, statistics = tensors.get("labels"), _group(tensors, "statistics")
    device = next((leaf.device for leaf in own.values()), torch.device("cpu"))
    try:
        obs = Observation(
            model=_in_modes(structure_of(model), facts["training"]),
            params=params,
            update=update,
            x_shape=tuple(facts["x_shape"]),
            constants=constants,
            classes=facts["classes"],
            loss=loss or _named_loss(path, facts["loss"]),
            client=client or _named_client(path, facts["client"]),
            domain=Domain.of((facts["domain"]["mean"], facts["domain"]["std"])),
            labels=None if labels is None else labels.to(device),
            statistics=map_tree(lambda leaf: leaf.to(device), statistics) if statistics else None,
            draws=_known_layers(path, model, facts["draws"]),
        )
        _require_fitting_batch(obs)
    except InvalidCapture:
        raise
    except InvalidInput as error:
        raise InvalidCapture(f"{path} is a capture, but not a usable one: {error}") from error
    return obs


def _fitting_groups(path: Path, tensors: Tree, model: str, own: Tree) -> list[dict[str, Tensor]]:
    """Parameters, constants and update, on the devices and in the order of the model's ``own`` tensors."""
    params, constants, update = groups = [_group(tensors, group) for group in _GROUPS]
    strange = [name for name in tensors if name.partition("/")[0] not in _GROUPS + _EXTRAS]
    strange += [name for name in params if name in constants]
    if strange:
        _refuse(path, f"its tensors have names of no meaning, or mean two things: {', '.join(strange)}")
    try:
        check_fit("capture's tensors", {**params, **constants}, own)
        check_fit("update's entries", update, params)
    except InvalidInput as error:
        raise InvalidCapture(f"{path} was made from another model than {model}: {error}") from error
    # The file has no order, and a sum in another order ends in other bits.
    return [{name: group[name].to(t.device) for name, t in own.items() if name in group} for group in groups]


def _in_modes(structure: nn.Module, training: Sequence[str]) -> nn.Module:
    for name, module in structure.named_modules():
        module.training = name in training  # not .train(), which would reach the children too
    return keep_no_statistics(structure)


def _known_layers(path: Path, model: nn.Module, draws: Sequence[str]) -> tuple[str, ...]:
    unknown = set(draws) - {name for name, _ in model.named_modules()}
    if unknown:
        _refuse(path, f"it says that {', '.join(sorted(unknown))} drew at random, which the model has not")
    return tuple(draws)


def _require_fitting_batch(obs: Observation) -> None:
    with undisturbed(obs.like.device):
        # Two records say as much about the shape as the whole batch, which a description may exaggerate.
        few = (min(obs.batch_size, 2), *obs.x_shape[1:])  # one is too few for a BatchNorm in train mode
        count_classes(obs.task, obs.params, few, obs.classes)


def read_capture(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The JSON facts and the tensors of a capture, after every claim of its header has been checked."""
    content = _content(path)
    header = _checked_header(path, content)
    facts = _checked_facts(path, header)
    try:
        # The library lends tensors the file's own bytes; an observation owns what it holds.
        return facts, detached(dict(sorted(safetensors.torch.load(content).items())))
    except Exception as error:
        # The library raises its own type and several others; any of them means the same.
        _refuse(path, f"its tensors cannot be read ({error})")


def _content(path: Path) -> bytes:
    """The whole file, of which nothing is read before it looks like one of ours."""
    try:
        # Not open() first, which waits for a writer where the path is a pipe.
        if path.exists() and not path.is_file():
            _refuse(path, "it is no regular file")
        with path.open("rb") as file:
            first = file.read(8)
            if len(first) < 8 or int.from_bytes(first, "little") > min(
                _LONGEST_HEADER, path.stat().st_size - 8
            ):
                _refuse(path, "it is no safetensors file, or it was cut off")
            return first + file.read()
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidCapture):
            raise
        raise InvalidCapture(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _checked_header(path: Path, content: bytes) -> dict[str, Any]:
    # The library checks offsets too. What it lets pass, or would first allocate for, is refused here.
    length = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + length], object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        _refuse(path, f"its header is no JSON object ({error})")
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__", {}), dict):
        _refuse(path, "its header is no JSON object")
    claimed = 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
        if offsets is None or not _is_pair_of_counts(offsets):
            _refuse(path, f"its header says nothing usable about '{name}'")
        claimed = max(claimed, offsets[1])
    if claimed != len(content) - 8 - length:
        held = len(content) - 8 - length
        _refuse(path, f"its header claims {claimed:,} bytes of tensors, and it holds {held:,}")
    return header


def _checked_facts(path: Path, header: Mapping[str, Any]) -> dict[str, Any]:
    text = header.get("__metadata__", {}).get("gradleak")
    if not isinstance(text, str):
        _refuse(path, "it is a safetensors file, but it holds no capture")
    try:
        facts = json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        _refuse(path, f"its description is no JSON ({error})")
    if not isinstance(facts, dict) or facts.get("format") != _FORMAT:
        _refuse(path, "its description is not that of a capture")
    if facts.get("version") != _VERSION:
        _refuse(path, f"it is of version {facts.get('version')}, and this gradleak reads version {_VERSION}")
    for key, fits in _SCHEMA.items():
        if key not in facts or not fits(facts[key]):
            _refuse(path, f"its description has no usable '{key}'")
    return facts


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_pair_of_counts(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_count, value))


def _is_shape(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) >= 2
        and all(_is_count(n) and n > 0 for n in value)
        and math.prod(value) <= _MOST_PIXELS
        and math.prod(value[1:]) <= _MOST_RECORD_PIXELS
    )


def _is_domain(value: object) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"mean", "std"}
        and all(isinstance(v, list) and all(map(_is_number, v)) for v in value.values())
    )


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


_SCHEMA: dict[str, Callable[[Any], bool]] = {
    "x_shape": _is_shape,
    "classes": lambda value: value is None or (_is_count(value) and 0 < value <= _MOST_CLASSES),
    "loss": lambda value: isinstance(value, str),
    "client": lambda value: isinstance(value, dict) and isinstance(value.get("name"), str),
    "domain": _is_domain,
    "training": _is_names,
    "draws": _is_names,
}


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise ValueError(f"the key '{key}' stands twice")
        seen[key] = value
    return seen


def _client_facts(client: Client) -> dict[str, Any]:
    name = type(client).__name__
    if CLIENTS.get(name) is not type(client):
        return {"name": name, "fields": None}
    fields = {f: _plain(getattr(client, f)) for f in _told_fields(CLIENTS[name])}
    return {"name": name, "fields": fields}


def _told_fields(kind: type) -> list[str]:
    """Those that the client shows of itself: a defense's dice, and what it held back, stay behind."""
    return [f.name for f in dataclasses.fields(kind) if f.repr]


def _plain(value: Any) -> Any:
    """A client inside a client, as in a sum, is written as one."""
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return _client_facts(value) if callable(value) else value


def _named_client(path: Path, facts: Mapping[str, Any], depth: int = 0) -> Client:
    fields = facts.get("fields")
    if facts["name"] not in CLIENTS or not isinstance(fields, dict):
        _refuse(
            path, f"its client is '{facts['name']}', which is not one of gradleak's; pass client=... to load"
        )
    if depth > _DEEPEST:
        _refuse(path, "its client is a sum of sums of sums without end")
    kind = CLIENTS[facts["name"]]
    strange = [name for name in fields if name not in _told_fields(kind)]
    if strange:
        _refuse(path, f"its client has settings that {kind.__name__} does not know: {', '.join(strange)}")
    try:
        client: Client = kind(**{n: _built(path, v, depth) for n, v in fields.items()})
    except TypeError as error:
        _refuse(path, f"its client cannot be built ({error})")
    return client


def _built(path: Path, value: Any, depth: int) -> Any:
    if isinstance(value, list):
        return [_built(path, one, depth + 1) if isinstance(one, dict | list) else one for one in value]
    if isinstance(value, dict):
        named = value if isinstance(value.get("name"), str) else {"name": "?"}
        return _named_client(path, named, depth + 1)
    return value


def _loss_name(loss: Loss) -> str:
    name = getattr(loss, "__name__", "custom")
    # Someone's own loss may have the name of one of ours, and would be loaded as it.
    return f"your own {name}" if name in _NAMED_LOSSES and _NAMED_LOSSES[name] is not loss else name


def _named_loss(path: Path, name: str) -> Loss:
    if name not in _NAMED_LOSSES:
        _refuse(path, f"its loss is '{name}', which is not one of gradleak's; pass loss=... to load")
    return _NAMED_LOSSES[name]


def _group(tensors: Tree, group: str) -> dict[str, Tensor]:
    prefix = f"{group}/"
    return {name.removeprefix(prefix): leaf for name, leaf in tensors.items() if name.startswith(prefix)}


def _refuse(path: Path, why: str) -> NoReturn:
    raise InvalidCapture(f"{path} is not a capture that gradleak can read: {why}.")
