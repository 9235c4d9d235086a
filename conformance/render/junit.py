"""The report that a CI service reads: JUnit XML, one test case a clause."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from embconform.conformance.render.wording import clean, happened, numbers, one_line
from embconform.conformance.report import BROKEN, ClauseResult, Report, Status


def render(reports: Sequence[Report]) -> str:
    """Write reports as JUnit XML, one suite a target.

    What doesn't count against the target (a known deviation, a broken SHOULD clause, an
    unsupported clause) is skipped with its reason, so that CI is red where the verdict is.

    Parameters
    ----------
    reports : sequence of Report

    Returns
    -------
    str
    """
    root = ET.Element("testsuites", name="embconform")
    for report in reports:
        root.append(_suite(report))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=False) + "\n"


def _suite(report: Report) -> ET.Element:
    """Write one target."""
    cases = [_case(report, result) for result in report.clauses]
    suite = ET.Element(
        "testsuite",
        name=clean(report.target),
        tests=str(len(cases)),
        failures=str(sum(case.find("failure") is not None for case in cases)),
        errors=str(sum(case.find("error") is not None for case in cases)),
        skipped=str(sum(case.find("skipped") is not None for case in cases)),
        time=f"{report.seconds:.3f}",
    )
    properties = ET.SubElement(suite, "properties")
    facts = {
        "verdict": report.verdict,
        "profile": report.profile.value,
        "device": report.device,
        "seed": str(report.seed),
        "budget": report.budget,
        "cases": str(report.cases),
        "replay": report.replay,
        **report.environment,
    }
    for name, value in facts.items():
        ET.SubElement(properties, "property", name=clean(name), value=clean(str(value)))
    suite.extend(cases)
    return suite


def _case(report: Report, result: ClauseResult) -> ET.Element:
    """Write one clause."""
    clause = result.clause
    case = ET.Element(
        "testcase",
        classname=f"{clean(report.target)}.{clause.group}",
        name=clause.id,
        time=f"{result.seconds:.3f}",
    )
    kind, message = _outcome(report, result)
    if kind:
        element = ET.SubElement(case, kind, message=message)
        if kind != "skipped":
            element.set("type", f"{clause.level.value} {result.status.value}")
            element.text = _body(result)
    return case


def _outcome(report: Report, result: ClauseResult) -> tuple[str, str]:
    """Choose the element and its message; no element for a pass."""
    message = happened(result)
    counted = report.counts_against(result)
    match result.status:
        case Status.PASS:
            return "", ""
        case Status.UNSUPPORTED:
            return "skipped", f"unsupported: {message}"
        case Status.DEVIATION:
            known = result.deviation
            told = f"{one_line(known.reason)} ({one_line(known.link)})" if known else message
            return "skipped", f"known deviation: {told}"
        case Status.UNEXPECTED_PASS:
            told = "declared as broken, but held; take the row out of the deviations"
            return ("failure", told) if counted else ("", "")
    kind = "failure" if result.status is Status.FAIL else "error"
    if not counted:
        return "skipped", f"{result.clause.level.value}, {result.status.value}: {message}"
    return kind, f"{result.status.value}: {message}" if kind == "error" else message


def _body(result: ClauseResult) -> str:
    """Write what a person needs to see of a failure."""
    lines = [result.clause.sentence, happened(result)]
    lines += [f"{name:<7}{value}" for name, value in numbers(result)]
    if result.status in BROKEN and result.failure and result.failure.call:
        lines += ["", clean(result.failure.call)]
    return "\n".join(lines)
