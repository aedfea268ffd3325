"""What a thing is, as a hash: its values, and the code that gives them their meaning."""

import hashlib
import inspect
import types
from collections.abc import Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_OURS = ("torch", "builtins", "gradleak", "collections", "functools")
"""Their code is told by their versions, which are part of a case's key."""


def identity(*things: Any) -> str:
    """Equal for equal things, in any process; other where a value or a line of their files has changed.

    Of a network these are its weights, all buffers, modes, what is trained, plain attributes, and the files
    that its classes are written in. What such a file imports from others is not looked at.
    """
    hashed = hashlib.sha256()
    for thing in things:
        for part in _parts(thing, ()):
            hashed.update(part)
            hashed.update(b"\0")
    return hashed.hexdigest()[:24]


def _parts(thing: Any, above: tuple[int, ...]) -> Iterator[bytes]:
    if id(thing) in above:
        yield b"again"
        return
    above = (*above, id(thing))
    if isinstance(thing, Tensor):
        yield from _tensor(thing)
    elif isinstance(thing, nn.Module):
        yield from _module(thing, above)
    elif isinstance(thing, partial):
        yield b"partial"
        yield from _parts((thing.func, thing.args, thing.keywords), above)
    elif isinstance(thing, types.MethodType):
        yield from _parts((thing.__func__, thing.__self__), above)
    elif isinstance(thing, types.FunctionType):
        yield from _function(thing, above)
    elif isinstance(thing, Mapping):
        yield f"mapping {len(thing)}".encode()
        for key, value in thing.items():
            yield from _parts(key, above)
            yield from _parts(value, above)
    elif isinstance(thing, list | tuple):
        yield f"{type(thing).__name__} {len(thing)}".encode()
        for one in thing:
            yield from _parts(one, above)
    elif isinstance(thing, type):
        yield _written(thing)
    elif hasattr(thing, "__dict__") and not isinstance(thing, types.BuiltinFunctionType | types.ModuleType):
        yield _written(type(thing))
        yield from _parts(vars(thing), above)
    else:
        yield f"{type(thing).__name__} {thing!r}".encode()


def _tensor(thing: Tensor) -> Iterator[bytes]:
    plain = thing.detach().cpu().contiguous()
    yield f"{plain.dtype} {list(plain.shape)} {thing.requires_grad}".encode()
    yield plain.reshape(-1).view(torch.uint8).numpy().tobytes()


def _module(thing: nn.Module, above: tuple[int, ...]) -> Iterator[bytes]:
    yield _written(type(thing))
    plain = {name: value for name, value in vars(thing).items() if not name.startswith("_")}
    own = {"_parameters": thing._parameters, "_buffers": thing._buffers, "_modules": thing._modules}
    hooks = {name: list(getattr(thing, name).values()) for name in _HOOKS if getattr(thing, name, None)}
    yield from _parts(plain | own | hooks, above)


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")


def _function(thing: types.FunctionType, above: tuple[int, ...]) -> Iterator[bytes]:
    yield f"{thing.__module__}.{thing.__qualname__}".encode()
    yield _file(inspect.getsourcefile(thing) if _is_foreign(thing.__module__) else None)
    code = thing.__code__
    yield code.co_code
    yield repr([one for one in code.co_consts if not isinstance(one, types.CodeType)]).encode()
    yield repr(code.co_names).encode()
    cells = [_content(cell) for cell in thing.__closure__ or ()]
    yield from _parts((cells, thing.__defaults__, thing.__kwdefaults__), above)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _written(kind: type) -> bytes:
    """A class by name, with the files that it and what it inherits from are written in."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    files = b"".join(_file_of(base) for base in kind.__mro__ if _is_foreign(base.__module__))
    return name.encode() + files


def _is_foreign(module: str | None) -> bool:
    return (module or "").partition(".")[0] not in _OURS


def _file_of(kind: type) -> bytes:
    try:
        return _file(inspect.getsourcefile(kind))
    except (TypeError, OSError):  # written at a prompt, or in C
        return b""


@cache
def _file(path: str | None) -> bytes:
    try:
        return hashlib.sha256(Path(path).read_bytes()).digest() if path else b""
    except OSError:
        return b""
