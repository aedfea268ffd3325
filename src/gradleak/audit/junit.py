"""What a gate found, as JUnit XML, which most build servers show."""

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from gradleak.audit.limits import FAULTS, Judged
from gradleak.cases.record import Record

# What XML 1.0 cannot hold at all; names come from files and models of others.
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(record: Record, judged: Sequence[Judged]) -> bytes:
    """A test for every way of training and limit. A broken limit is a failure, one of the ``FAULTS`` an
    error, and a limit with nothing to judge is skipped. No pictures are in it.
    """
    errors = [one for one in judged if not one.holds and one.limit in FAULTS]
    failures = [one for one in judged if not one.holds and one.limit not in FAULTS]
    skipped = [one for one in judged if one.value is None]
    counts = {
        "name": _text(record.title),
        "tests": str(len(judged)),
        "failures": str(len(failures)),
        "errors": str(len(errors)),
        "time": f"{record.seconds:.3f}",
    }
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", counts | {"skipped": str(len(skipped))})
    for one in judged:
        _test(suite, one)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _test(suite: ElementTree.Element, one: Judged) -> None:
    said = _text(one.sentence)
    about = {"classname": _text(one.way), "name": one.limit, "time": "0"}
    test = ElementTree.SubElement(suite, "testcase", about)
    if not one.holds:
        kind = "error" if one.limit in FAULTS else "failure"
        ElementTree.SubElement(test, kind, {"type": one.limit, "message": said}).text = said
    elif one.value is None:
        ElementTree.SubElement(test, "skipped", {"message": said})
    else:
        ElementTree.SubElement(test, "system-out").text = said


def _text(said: str) -> str:
    return _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", said)
