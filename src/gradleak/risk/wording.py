"""A rank report in one sentence."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the report asks for its own sentence
    from gradleak.risk.rank import LayerRank, RankReport

_NAMED = 3


def verdict(report: "RankReport") -> str:
    if report.breaks:
        return (
            f"not a chain: it branches, skips, or computes between layers in {_listed(report.breaks)}; the "
            "layer-by-layer argument does not apply, and the counts stand for each layer by itself"
        )
    if not report.ranked:
        return "nothing to rank: no layer has weights"
    deficient = report.deficient
    if deficient:
        said = _deficient(report, deficient)
    elif report.evidence == "counts":
        said = _counted(report)
    elif all(layer.deficit == 0 for layer in report.ranked):
        said = "recoverable layer by layer"
    else:
        said = "recoverable layer by layer as far as it was ranked"
    return said + _at(report) + _uncertain(report) + _phong(report)


def _deficient(report: "RankReport", layers: "tuple[LayerRank, ...]") -> str:
    if len(layers) > 1:
        each = ", ".join(f"{layer.path} ({layer.deficit} of {layer.unknowns})" for layer in layers)
        return (
            f"rank-deficient at {len(layers)} layers: so many dimensions of their inputs are not determined "
            f"by their own equations: {each}"
        )
    layer = layers[0]
    said = (
        f"rank-deficient at layer {layer.path}: {layer.deficit} dimensions are not determined by its own "
        "equations"
    )
    virtual = layer.virtual if layer.virtual_rank is None else layer.virtual_rank
    if not virtual:
        return f"{said}, and no earlier layer has virtual constraints to close that"
    could = "could close that" if virtual >= (layer.deficit or 0) else "are too few to close that"
    return f"{said}; {virtual} virtual constraints from {_wide(report, layer)} {could}"


def _wide(report: "RankReport", until: "LayerRank") -> str:
    """The layers before it that have more outputs than inputs."""
    before = report.ranked[: report.ranked.index(until)]
    return _listed([one.path for one in before if one.forward > one.unknowns]) or "earlier layers"


def _counted(report: "RankReport") -> str:
    short = [layer for layer in report.ranked if layer.index is not None and layer.index < 0]
    if short:
        each = ", ".join(f"{layer.path} (RA-i {layer.index})" for layer in short)
        return f"not recoverable layer by layer: too few equations, by counting, at {each}"
    first = report.ranked[0]
    if first.determined is not None and first.determined < first.unknowns:
        return (
            f"enough equations at each layer, but of the {first.unknowns} unknowns of the first one's input "
            f"at most {first.determined} are determined by all layers together, by counting"
        )
    return "recoverable layer by layer, as far as counting can tell: equations may repeat each other"


def _at(report: "RankReport") -> str:
    """Where units switch off, a rank is that of one input."""
    lossy = any(layer.role == "lossy" for layer in report.layers)
    return " (at a random stand-in input)" if lossy and report.evidence == "stand-in" else ""


def _uncertain(report: "RankReport") -> str:
    missing = [layer.path for layer in report.ranked if layer.deficit is None]
    return f"; only counted: {_listed(missing)}" if missing and report.evidence != "counts" else ""


def _phong(report: "RankReport") -> str:
    told = [note for layer in report.ranked for note in layer.notes if "Phong" in note]
    return f"; and {report.ranked[0].path} is {told[0]}" if told else ""


def _listed(names: "tuple[str, ...] | list[str]") -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
