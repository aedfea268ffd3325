"""Tensors and facts in one file that holds no code."""

import json
from collections.abc import Mapping
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

_SAID = "gradleak"


def pack(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> bytes:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(plain, metadata={_SAID: json.dumps(facts, allow_nan=False)})


def unpack(content: bytes) -> dict[str, Tensor]:
    """The tensors; none from a file that is damaged."""
    try:
        return safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError):
        return {}


def said_in(content: bytes) -> dict[str, Any] | None:
    """The facts; None from a file that is damaged, or another's."""
    try:
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])
        facts = json.loads(header["__metadata__"][_SAID])
        ends = [one["data_offsets"][1] for name, one in header.items() if name != "__metadata__"]
        whole = len(content) >= 8 + size + max(ends, default=0)
    except (ValueError, KeyError, TypeError, IndexError):
        return None
    return dict(facts) if whole and isinstance(facts, dict) else None
