"""Cuts a plan into graphs of connected changes, and fills calls with them up to the API's limits."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

from app.crm.changes import Change
from app.crm.objects import ObjectName, Ref
from app.crm.port import Report
from app.domain.errors import InvalidRecord
from crm_adapters.salesforce.graph import JOINS

MAX_NODES = 500
"""https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_composite_graph_limits.htm"""
MAX_GRAPHS = 75
"""Graphs in one call; if more than 14 fail, the rest is halted."""
MOST_FAILED = 14
MAX_PARTS = 25
"""For a plain composite call, which is one all-or-nothing group:
https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_composite_composite.htm"""
FIRST_NODES = 125
"""Nodes in the first call, whose duration nobody can predict."""
LEAST_NODES = 25
LONG_CALL = 1.5
"""Seconds. A call cannot be interrupted: after a longer one, the next calls are smaller."""


class Pace:
    """Limits the nodes of a call, so that a live booking does not wait long for the call to end."""

    def __init__(self) -> None:
        self.nodes = FIRST_NODES

    def took(self, seconds: float) -> None:
        """Adjust the limit to the duration of a call."""
        if seconds > LONG_CALL:
            self.nodes = max(LEAST_NODES, self.nodes // 2)
        elif seconds < LONG_CALL / 2:
            self.nodes = min(MAX_NODES, self.nodes * 2)


def connected(changes: list[Change], known: set[Ref]) -> list[list[Change]]:
    """Group changes that refer to each other's new records: a graph cannot see another graph's records.

    Each group keeps the order of the plan: the first person of a booking is created first.
    """
    place = {change.ref: number for number, change in enumerate(changes)}
    group: dict[Ref, list[Change]] = {}
    for change in changes:
        mine = [change]
        near = [ref for ref in change.links_after if ref in group and ref not in known]
        for ref in near:
            # Two of the near refs may have joined one group a moment ago.
            joined = group[ref]
            if joined is not mine:
                joined.extend(mine)
                group |= dict.fromkeys((member.ref for member in mine), joined)
                mine = joined
        group[change.ref] = mine
    groups = {id(members): members for members in group.values()}.values()
    return [sorted(members, key=lambda change: place[change.ref]) for members in groups]


def _size(change: Change) -> int:
    """Return the most nodes that a change takes: its own, and a row for each link to make or remove."""
    if change.ref.object not in JOINS:
        return 1
    people = sum(ref.object is ObjectName.CONTACT for ref in change.links_after)
    rows = people * (2 if change.record_id else 1) + len(change.links_to_remove)
    return 1 + rows - (change.ref.object is ObjectName.MEETING and not change.record_id)


def small_enough(changes: list[Change], report: Report) -> list[Change]:
    """Return the changes that fit into one call; for each other one, note that it is too large."""
    for change in changes:
        if _size(change) > MAX_NODES:
            words = f"The {change.ref.object} has more people than Salesforce links in one call."
            report.problems[change.ref] = InvalidRecord(words)
    return [change for change in changes if change.ref not in report.problems]


def fitting(graph: list[Change], most: int = MAX_NODES) -> int:
    """Return how many of a graph's changes fit into one call; each comes after its link targets."""
    sizes = itertools.accumulate(map(_size, graph))
    return sum(size <= most for size in sizes)


def by_headers(
    graph: list[Change], needs: Callable[[Change], bool]
) -> tuple[bool, list[Change], list[Change]]:
    """Return whether a group needs a call with headers, its changes for now, and those that wait."""
    first = next((number for number, change in enumerate(graph) if needs(change)), None)
    if first is None:
        fits = fitting(graph)
        return False, graph[:fits], graph[fits:]
    fits = fitting(graph, MAX_PARTS)
    if fits < len(graph) and first:
        # Changes without headers go first: then the others have the ids of their link targets.
        fits = min(first, fitting(graph))
        return False, graph[:fits], graph[fits:]
    return True, graph[:fits], graph[fits:]


def packed(graphs: list[list[Change]], most: Callable[[], int]) -> Iterable[list[list[Change]]]:
    """Fill calls with graphs up to the limits of nodes and graphs; a graph is not split.

    `most` returns how many nodes the next call may have.
    """
    batch: list[list[Change]] = []
    size = 0
    for graph in graphs:
        nodes = sum(map(_size, graph))
        if batch and (size + nodes > most() or len(batch) >= MAX_GRAPHS):
            yield batch
            batch, size = [], 0
        batch.append(graph)
        size += nodes
    if batch:
        yield batch
