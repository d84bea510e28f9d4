"""Results of template tests as JUnit's XML, which CI systems show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

from ops.templates.testing.cases import CaseResult


def junit(results: Mapping[str, Sequence[CaseResult]]) -> bytes:
    """Return an XML document with a suite for each template."""
    root = Element("testsuites")
    for template, verdicts in results.items():
        failed = sum(not one.passed for one in verdicts)
        suite = SubElement(
            root, "testsuite", name=template, tests=str(len(verdicts)), failures=str(failed)
        )
        for one in verdicts:
            case = SubElement(suite, "testcase", classname=template, name=one.case.name)
            if not one.passed:
                failure = SubElement(case, "failure", message="it is not as expected")
                failure.text = "\n".join(one.difference)
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + tostring(root) + b"\n"
