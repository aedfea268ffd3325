import re

import pytest

from gradleak import attacks, labels
from gradleak.references import REFERENCES, cite


def balanced(text: str) -> bool:
    depth = 0
    for letter in text:
        depth += (letter == "{") - (letter == "}")
        if depth < 0:
            return False
    return depth == 0


@pytest.mark.parametrize("entry", REFERENCES.values(), ids=REFERENCES.keys())
def test_an_entry_is_bibtex(entry: str) -> None:
    assert balanced(entry)
    match = re.fullmatch(r"@(inproceedings|article|misc|book)\{([a-z0-9]+),\n(.*)\n\}", entry, re.DOTALL)
    assert match is not None
    fields = re.findall(r"^  (\w+) *= \{", match[3], re.MULTILINE)
    assert len(fields) == len(set(fields))
    assert {"title", "author", "year"} <= set(fields)
    assert re.search(r"year *= \{(19|20)\d\d\}", entry)
    # All fields but the last end with a comma, so that a reader does not swallow the next.
    lines = [line for line in match[3].splitlines() if not line.startswith("   ")]
    assert len(lines) == len(fields)
    assert "\\\\" not in entry


def test_keys_are_unique() -> None:
    keys = [re.match(r"@\w+\{(\w+),", entry)[1] for entry in REFERENCES.values()]  # type: ignore[index]
    assert len(set(keys)) == len(keys)


def test_every_key_that_is_used_exists() -> None:
    used = [labels.known(), labels.idlg(), labels.joint(), labels.inferred()]
    used += [build() for build in attacks.ATTACKS.values()]
    for method in used:
        assert set(method.citations) <= set(REFERENCES)


def test_cite_names_each_once_and_in_order() -> None:
    class Twice:
        citations = ("idlg", "dlg", "idlg")

    assert cite(Twice()) == f"{REFERENCES['idlg']}\n\n{REFERENCES['dlg']}"
    assert cite(labels.known()) == ""
