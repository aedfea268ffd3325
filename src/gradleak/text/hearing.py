"""What the first two layers of a transformer have read: their spans, or why these say nothing."""

import torch

from gradleak.observe import Observation
from gradleak.text.adapters import adapter_span
from gradleak.text.architecture import Anatomy, Sent
from gradleak.text.defended import defended_span, is_blurred
from gradleak.text.span import Span, span

_CHANCE = 0.1  # of random vectors may pass a test that says something
_SLACK = 10  # where words may sink in noise


def refusal_of(obs: Observation) -> str:
    """Why no layer can be listened to; empty where they can."""
    if obs.like.dtype not in (torch.float32, torch.float64):
        return (
            f"numbers of {obs.like.dtype} are too coarse for a span; the client must send float32 or float64"
        )
    if obs.draws:
        return (
            f"{', '.join(obs.draws)} drew at random, so that the layers read no vectors that can be computed"
        )
    if obs.gradient is None:
        return (
            "what the client sends is no gradient, such as signs or a step of Adam: its rows do not lie in "
            "the span of what was read"
        )
    if obs.steps != 1:
        return f"the update is the work of {obs.steps} steps, between which what the layers read has moved"
    return ""


def listen(obs: Observation, parts: Anatomy, miss: float) -> tuple[Anatomy, tuple[Span, Span]] | str:
    """The spans, with for the second that which has heard more: between the blocks, or midway in the first.

    Where noise drowns words in one of them, it may not in the other; and in a last layer only one word asks.
    """
    first = _nth(obs, parts, 0, miss)
    if isinstance(first, str):
        return f"in the first layer, {first}"
    second, closer = _nth(obs, parts, 1, miss), _nth(obs, parts.midway, 1, miss)
    if isinstance(second, Span) and (isinstance(closer, str) or not closer.hears_more(second)):
        return parts, (first, second)
    if isinstance(closer, str):
        return f"in the second layer, {second}"
    return parts.midway, (first, closer)


def _nth(obs: Observation, parts: Anatomy, layer: int, miss: float) -> Span | str:
    """A layer's span; or why it says nothing, since vectors that nobody has read would pass."""
    dtype = obs.like.dtype
    found = _span(parts.sent[layer], dtype, parts.rounding(dtype)[layer])
    if isinstance(found, str):
        return found
    if bool((found.test(parts.made_up()[layer]) <= found.bound(miss)).double().mean() > _CHANCE):
        return "the gradient fills all dimensions that words have: too many of them, or too much noise"
    return found


def _span(sent: Sent, dtype: torch.dtype, rounding: float) -> Span | str:
    if sent.deviations and is_blurred(sent.blocks, sent.deviations, dtype):
        return defended_span(sent.blocks, sent.deviations, dtype, rounding)
    found = span(sent.blocks, dtype, rounding)
    if sent.adapters and isinstance(found, str):
        through = adapter_span(sent.adapters, dtype, rounding)
        return f"{found}; and {through}" if isinstance(through, str) else through
    return found


def slack(span: Span) -> float:
    """Times the bound, for words that are only proposed."""
    return _SLACK if span.noisy else 1
