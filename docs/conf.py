"""How the documentation is built: ``make docs``. The pages load nothing from any network."""

import re
from typing import Any

import gradleak

project = "gradleak"
author = "The gradleak authors"
project_copyright = author
version = release = gradleak.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80

html_theme = "furo"
html_title = f"gradleak {release}"
html_show_sphinx = False
html_copy_source = False


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", _bars_are_bars)
    app.connect("autodoc-process-signature", _defaults_are_python)


def _bars_are_bars(_app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """|x| is a formula in our docstrings, never a substitution, and [*shape] no emphasis; Python's own
    sentence says nothing."""
    said = [line.replace("|", "\\|") for line in lines if line != "Call self as a function."]
    lines[:] = [re.sub(r"(?<=[\[ ])\*(?=\w+[\],])", r"\\*", line) for line in said]


def _defaults_are_python(
    _app: Any, _what: str, _name: str, _object: Any, _options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Sphinx lays out only what it can parse, which "<factory>" and "<function f>" are not."""
    if signature is not None:
        signature = re.sub(r"<function (\w+)>", r"\1", signature.replace("<factory>", "..."))
    return signature, returns
