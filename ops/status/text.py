"""The text of `segrelay status`: lines and tables, with problems in red."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ops.status.health.problem import counted, line_of, reason_of
from ops.status.totals import KINDS
from ops.terminal.console import say, say_wrapped, table
from ops.terminal.tables import TableColumns, count_columns, number_columns, text_columns

_EXPLAINED: Final = frozenset({"paused", "stopped", "refused", "waits", "failed", "interrupted"})
"""States that are shown with their reason."""


class StatusTable(NamedTuple):
    """A table of the status: its columns, its rows by subject, and the ill subjects, drawn red."""

    columns: TableColumns
    rows: Mapping[str, Sequence[str]]
    ill: Container[str]


def tell(document: Mapping[str, Any]) -> None:
    """Print the status: fitted to a terminal, plain text elsewhere."""
    for line in lines(document):
        say_wrapped(line)
    for line in problems(document):
        say_wrapped(line, is_ill=True)
    for section in sections(document):
        say("")
        ill = {number for number, name in enumerate(section.rows) if name in section.ill}
        table(section.columns, [(name, *cells) for name, cells in section.rows.items()], ill)


def sum_of(document: Mapping[str, Any], rates: Mapping[str, float] | None = None) -> str:
    """Return the six counts as a sum, with their growth."""
    accepted, *others = (f"{kind} {document[kind]:,}" for kind in KINDS)
    told = f"{accepted} = {' + '.join(others)}"
    if rates is None:
        return told
    grown = (f"{kind} {rates[kind]:,.0f}" for kind in ("accepted", "delivered"))
    return f"{told}; a second: {', '.join(grown)}"


def problems(document: Mapping[str, Any]) -> list[str]:
    """Return the problems, the ill ones first."""
    return [line_of(each) for each in document["problems"]]


def _ill(document: Mapping[str, Any], *kinds: str) -> frozenset[str]:
    """Return the subjects of problems of these kinds, which are drawn red."""
    return frozenset(p["subject"] for p in document["problems"] if p["name"].startswith(kinds))


def lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the status above its tables."""
    yield sum_of(document)
    for kind in ("skipped", "dead"):
        if document[f"{kind}_by_reason"]:
            yield f"{kind}: {counted(document[f'{kind}_by_reason'])}"
    oldest = document["oldest_waiting_seconds"]
    if oldest is not None:
        yield f"the oldest waits for {oldest:,.0f} s"
    yield (
        f"requests {document['requests']:,}, unanswered {document['unanswered']:,}, "
        f"deliveries sent again {document['resent']:,}, open notes {document['open_notes']:,}"
    )
    if document["quarantined"]:
        yield f"quarantined {document['quarantined']:,}: `segrelay quarantine list`"
    if document["too_large_requests"]:
        yield (
            f"requests refused as too large {document['too_large_requests']:,}: Lytics dropped "
            "their events; make its batches smaller, or raise producer.webhook.max_bytes"
        )
    yield from _changing_partitions(document["partitions"])
    for name, people in document["renamed_people"].items():
        yield (
            f"people of {name} renamed by themselves {people['renamed']:,}, waiting"
            f" {people['waiting']:,}, refused {people['refused']:,}"
        )
    if document["dropped_fields"]:
        yield f"fields left out: {counted(document['dropped_fields'])}"


def _changing_partitions(changing: Mapping[str, Any]) -> Iterator[str]:
    if "changing_to" in changing:
        yield (
            f"partitions {changing['count']:,}, being changed to {changing['changing_to']:,}:"
            f" {changing['profiles']:,} profiles, {changing['deliveries']:,} deliveries and"
            f" {changing['letters']:,} letters carried over so far"
        )


def sections(document: Mapping[str, Any]) -> Iterator[StatusTable]:
    """Yield the tables of destinations, triggers, jobs and processes."""
    yield _destinations(document)
    yield _triggers(document)
    if document["jobs"]:
        yield _jobs(document)
    if document["processes"]:
        yield _processes(document)


def _destinations(document: Mapping[str, Any]) -> StatusTable:
    rows = {
        name: (d["state"], f"{d['rate']:,.0f}", f"{d['factor']:.0%}", reason_of(d))
        for name, d in document["destinations"].items()
    }
    columns = (*number_columns("rate/min", "factor"), *text_columns("reason"))
    return StatusTable(("destination", "state", *columns), rows, _ill(document, "destination_"))


def _triggers(document: Mapping[str, Any]) -> StatusTable:
    found = document["triggers"].items()
    rows = {name: (_state(t), *_six(t), _template(t)) for name, t in found}
    ill = _ill(document, "trigger_", "template_", "live_", "dead_")
    ill |= {name for name, t in found if t["state"] == "orphaned"}
    columns = (*text_columns("state"), *count_columns(*KINDS), *text_columns("template"))
    return StatusTable(("trigger", *columns), rows, ill)


def _jobs(document: Mapping[str, Any]) -> StatusTable:
    rows = {name: (_state(job), *_six(job)) for name, job in document["jobs"].items()}
    columns = (*text_columns("state"), *count_columns(*KINDS))
    return StatusTable(("job", *columns), rows, _ill(document, "job_"))


def _processes(document: Mapping[str, Any]) -> StatusTable:
    found = {f"{p['host']}:{p['pid']}": p for p in document["processes"]}
    rows = {name: (p["version"] or "-", _config(p)) for name, p in found.items()}
    ill = {
        name
        for name, p in found.items()
        if not p["current"] or p["doubted"] or p["refused_messages"]
    }
    return StatusTable(("worker", "version", *text_columns("configuration")), rows, ill)


def _six(counts: Mapping[str, Any]) -> Iterator[str]:
    return (f"{counts[kind]:,}" for kind in KINDS)


def _config(process: Mapping[str, Any]) -> str:
    text = f"{process['config']}{'' if process['current'] else ' (another than this)'}"
    for name, count in process["doubted"].items():
        text += f"; the compiled form of {name} is off (it differed from Jsonnet {count:,} times)"
    if process["refused_messages"]:
        text += f"; {process['refused_messages']:,} messages of the broker were refused"
    return text


def _template(trigger: Mapping[str, Any]) -> str:
    """Describe a trigger's template: its version, other versions, canary, and refused changes."""
    text = trigger["version"] or "-"
    for worker, versions in trigger["other_versions"].items():
        text += f"; {worker} still has {', '.join(versions)}"
    use = trigger["engine_use"]
    if use["asked"]:
        share = f"{100 * use['asked'] / use['events']:.0f} % of the last {use['events']:,} events"
        text += f"; {share} needed the Jsonnet engine, mostly for {next(iter(use['by_reason']))}"
    canary = trigger["canary"]
    if canary and canary["left"]:
        gone = canary["of"] - canary["left"]
        text += f"; its canary goes: {gone:,} of {canary['of']:,}"
    if trigger["refused"]:
        text += f"; the file was changed and is broken, so this one is kept: {trigger['refused']}"
    return text


def _state(trigger: Mapping[str, Any]) -> str:
    reason = reason_of(trigger)
    if reason and trigger["state"] in _EXPLAINED:
        return f"{trigger['state']}: {reason}"
    return str(trigger["state"])
