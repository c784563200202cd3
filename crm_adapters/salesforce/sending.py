"""Sends changes to Salesforce: as graphs, or as one composite call if rule headers are needed."""

from __future__ import annotations

from time import monotonic
from typing import Any

from app.crm.changes import Change
from app.crm.port import Report
from app.domain.errors import (
    CrmError,
    Gone,
    InvalidRecord,
    RetryLater,
    Unreadable,
)
from app.outbound.reply import Json, a_list, a_text, an_object, rows, some_objects, some_text
from crm_adapters.salesforce.client import (
    SOBJECTS,
    SalesforceClient,
    rule_headers,
    status_of,
)
from crm_adapters.salesforce.errors import error_of
from crm_adapters.salesforce.graph import Graph, Links
from crm_adapters.salesforce.packing import (
    MOST_FAILED,
    Pace,
)

EXACT = 200
"""Records that one call of the collections API accepts."""


class Sender:
    """Sends packed changes, and reports the result of each."""

    def __init__(self, api: SalesforceClient, pace: Pace, shares_events: bool) -> None:
        """`shares_events`: an event may have several people."""
        self._api, self._pace, self._shares_events = api, pace, shares_events

    def send_with_headers(
        self, changes: list[Change], links: Links, report: Report
    ) -> list[Change]:
        """Send changes in one composite call, all or nothing; return those to be sent again."""
        graph = Graph(0, changes, links, self._shares_events, headers=True)
        if not graph.nodes:
            graph.finish(report, {})
            return []
        began = monotonic()
        with report.sending(change.ref for change in changes):
            body: Json = {"allOrNone": True, "compositeRequest": graph.nodes}
            answer = self._api.post("composite", body)
        self._pace.took(monotonic() - began)
        parts = {a_text(part, "referenceId"): part for part in rows(answer, "compositeResponse")}
        if all(name in parts and status_of(parts[name]) < 300 for name in graph.names):
            graph.finish(report, parts)
            self._write_exactly(graph, links, report)
            return []
        stopped_by = graph.blame(report, parts, overrun=False)
        report.refused(change.ref for change in changes)
        if stopped_by:
            raise stopped_by
        return [change for change in changes if change.ref not in report.problems]

    def send(self, batch: list[list[Change]], links: Links, report: Report) -> list[Change]:
        """Send graphs in one call; return the changes that have to be sent again."""
        graphs = [
            Graph(number, changes, links, self._shares_events)
            for number, changes in enumerate(batch)
        ]
        busy = [graph for graph in graphs if graph.nodes]
        for graph in graphs:
            if not graph.nodes:
                graph.finish(report, {})
        if not busy:
            return []
        began = monotonic()
        with report.sending(change.ref for graph in busy for change in graph.changes):
            answer = self._api.post("composite/graph", {"graphs": [graph.body for graph in busy]})
        self._pace.took(monotonic() - began)
        by_id = {a_text(entry, "graphId"): entry for entry in rows(answer, "graphs")}
        entries = [an_object(by_id.get(graph.id)) for graph in busy]
        overrun = sum(entry.get("isSuccessful") is not True for entry in entries) > MOST_FAILED
        again: list[Change] = []
        halted = 0
        stopped_by: Exception | None = None
        for graph, entry in zip(busy, entries, strict=True):
            nodes = _nodes(entry)
            if entry.get("isSuccessful") is True:
                graph.finish(report, nodes)
                self._write_exactly(graph, links, report)
                continue
            stopped_by = graph.blame(report, nodes, overrun) or stopped_by
            # All or nothing: no record of a failed graph was created.
            report.refused(change.ref for change in graph.changes)
            halted += graph.halted
            again += [change for change in graph.changes if change.ref not in report.problems]
        if stopped_by:
            raise stopped_by
        if halted == len(busy):
            raise RetryLater("Salesforce halted the whole batch.")
        return again

    def _write_exactly(self, graph: Graph, links: Links, report: Report) -> None:
        """Write texts that look like references, by a call that has no references.

        Until then the record counts as not written, since it holds another text.
        """
        written = {ref: report.results.pop(ref) for ref in graph.exact if ref in report.results}
        refs = list(written)
        for start in range(0, len(refs), EXACT):
            some = refs[start : start + EXACT]
            records = [
                {
                    "attributes": {"type": SOBJECTS[ref.object]},
                    "id": links.ids[ref],
                    **graph.exact[ref],
                }
                for ref in some
            ]
            body: dict[str, Any] = {"allOrNone": False, "records": records}
            answers = a_list(
                self._api.post("composite/sobjects", body, "PATCH", rule_headers(assign=False))
            )
            if len(answers) != len(some):
                raise Unreadable("Salesforce's answer leaves a record out.")
            for ref, answer in zip(some, answers, strict=True):
                if an_object(answer).get("success") is True:
                    report.results[ref] = written[ref]
                    continue
                errors = [
                    {**error, "errorCode": some_text(error, "statusCode")}
                    for error in some_objects(answer, "errors")
                ]
                error = error_of(400, errors, SOBJECTS[ref.object])
                if not isinstance(error, CrmError) or isinstance(error, RetryLater):
                    raise error
                # The record was written a moment ago: the error is about another one.
                if isinstance(error, Gone):
                    error = InvalidRecord(error.message).because(error.refusal)
                report.problems[ref] = error


def _nodes(entry: Json) -> dict[str, Json]:
    """Return the answers of a graph's nodes by their names. Raises Unreadable."""
    response = an_object(entry.get("graphResponse"), "A graph's answer")
    return {a_text(node, "referenceId"): node for node in rows(response, "compositeResponse")}
