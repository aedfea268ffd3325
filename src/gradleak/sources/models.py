"""From ``module:callable`` to a model."""

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any

import safetensors.torch
import torch
from torch import nn

from gradleak.errors import GradleakError, InvalidInput, InvalidModel
from gradleak.randomness import generator

_LONGEST = 300  # letters of what torch says of weights that do not fit


def build(
    spec: str,
    arguments: Mapping[str, Any],
    seed: int | None,
    *,
    fit: Mapping[str, Any] = MappingProxyType({}),
) -> nn.Module:
    """Call what ``spec`` names; with a seed, initialisation depends on that alone.

    ``fit`` is what the pictures are like, of which a builder is handed what it takes and was not told.
    """
    call = builder(spec)
    arguments = {name: value for name, value in fit.items() if name in takes(spec)} | dict(arguments)
    if seed is not None:
        generator(seed)  # refuses what no generator takes
    try:
        with torch.random.fork_rng(devices=[]):
            if seed is not None:
                torch.manual_seed(seed)
            model = call(**arguments)
    except GradleakError:
        raise
    except Exception as error:  # it is someone else's code, and may raise anything
        raise InvalidInput(
            f"{spec} could not be called with {arguments or 'no arguments'}: {cause(error)}"
        ) from error
    if not isinstance(model, nn.Module):
        raise InvalidModel(f"expected {spec} to return a torch.nn.Module; it returned {type(model).__name__}")
    return model


def takes(spec: str) -> set[str]:
    """The names that what ``spec`` names can be handed."""
    try:
        return set(inspect.signature(builder(spec)).parameters)
    except (TypeError, ValueError):  # some callables do not say
        return set()


def load_weights(model: nn.Module, path: Path | None) -> None:
    """From safetensors; what is missing, left over or of another shape is named."""
    if path is None:
        return
    if not path.is_file():
        what = "it is a folder" if path.is_dir() else "there is no such file"
        raise InvalidModel(f"expected weights as a safetensors file; {what}: {path}")
    try:
        weights = safetensors.torch.load_file(path)
    except Exception as error:
        raise InvalidModel(
            f"expected weights as safetensors; {path} cannot be read: {error}. In Python, "
            "safetensors.torch.save_model(model, path) makes such a file."
        ) from error
    try:
        model.load_state_dict(weights)
    except Exception as error:  # several lines of torch's, the first of which says nothing
        words = " ".join(str(error).split()).partition(": ")[2]
        raise InvalidModel(
            f"the weights in {path} do not fit the model, {type(model).__name__}: {words[:_LONGEST]}"
        ) from error


def usable(name: str) -> torch.device:
    """The device of that name, once something could be computed there."""
    try:
        torch.empty(1, device=name).cpu()  # "meta" makes tensors, but nothing can be read back from them
    except (RuntimeError, AssertionError) as error:
        raise InvalidInput(f"the device '{name}' cannot be used: {str(error).splitlines()[0]}") from error
    return torch.device(name)


def builder(spec: str) -> Any:
    require_spec(spec)
    if spec in _known():
        return _known()[spec]
    module, _, name = spec.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a model beside the place where the command is called
    try:
        imported = importlib.import_module(module)
    except Exception as error:  # importing runs it
        raise InvalidInput(
            f"cannot import {module or 'a module without a name'}: {cause(error)}. "
            "Is it installed, or in this folder?"
        ) from error
    found = getattr(imported, name, None)
    if found is None:
        raise InvalidInput(f"{module} has no '{name}'")
    if not callable(found):
        raise InvalidInput(f"{spec} is no callable, but {type(found).__name__}")
    return found


def require_spec(spec: str) -> None:
    """Whether a model of the zoo is named, or a callable; what it names is not imported."""
    known = _known()
    if ":" not in spec and spec not in known:
        near = get_close_matches(spec, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InvalidInput(f"expected module:callable or one of {', '.join(known)}; came '{spec}'{hint}")


def _known() -> dict[str, Callable[..., nn.Module]]:
    """The models of the zoo."""
    from gradleak.zoo import MODELS, TEXT_MODELS

    return MODELS | TEXT_MODELS


def cause(error: Exception) -> str:
    """In one line, and with its kind where the words alone say little."""
    kind = type(error).__name__
    return f"{error}" if isinstance(error, (TypeError, ImportError)) and str(error) else f"{kind}: {error}"


def arguments(pairs: tuple[str, ...]) -> dict[str, Any]:
    """From NAME=VALUE; numbers, true, false and none are understood."""
    return dict(_pair(pair) for pair in pairs)


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidInput(f"expected --arg NAME=VALUE; came '{text}'")
    words = {"true": True, "false": False, "none": None}
    if value.lower() in words:
        return name, words[value.lower()]
    for number in (int, float):
        try:
            return name, number(value)
        except ValueError:
            continue
    return name, value
