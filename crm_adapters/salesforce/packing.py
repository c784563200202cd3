"""Cuts a plan into graphs that hold together, and fills calls with them up to the API's limits."""

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
"""In one call; more than 14 failed ones halt the rest."""
MOST_FAILED = 14
MAX_PARTS = 25
"""Of a plain composite call, which is one all-or-nothing group:
https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_composite_composite.htm"""
FIRST_NODES = 125
"""In the first call, of which nobody knows yet how long it takes."""
LEAST_NODES = 25
LONG_CALL = 1.5
"""Seconds. A call cannot be cut: one that takes longer is followed by smaller ones."""


class Pace:
    """How many nodes a call may have, so that a live booking need not wait long for its end."""

    def __init__(self) -> None:
        self.nodes = FIRST_NODES

    def took(self, seconds: float) -> None:
        """Learn from a call."""
        if seconds > LONG_CALL:
            self.nodes = max(LEAST_NODES, self.nodes // 2)
        elif seconds < LONG_CALL / 2:
            self.nodes = min(MAX_NODES, self.nodes * 2)


def connected(changes: list[Change], known: set[Ref]) -> list[list[Change]]:
    """Group changes that refer to each other's new records: a graph cannot see another's.

    Each group keeps the order of the plan: who comes first in a booking is made first.
    """
    place = {change.ref: number for number, change in enumerate(changes)}
    group: dict[Ref, list[Change]] = {}
    for change in changes:
        mine = [change]
        near = [ref for ref in change.links_after if ref in group and ref not in known]
        for ref in near:
            # Two of them may have come into one group a moment ago.
            joined = group[ref]
            if joined is not mine:
                joined.extend(mine)
                group |= dict.fromkeys((member.ref for member in mine), joined)
                mine = joined
        group[change.ref] = mine
    groups = {id(members): members for members in group.values()}.values()
    return [sorted(members, key=lambda change: place[change.ref]) for members in groups]


def _size(change: Change) -> int:
    """The most nodes that a change takes: itself, and a row for everybody whom it links or unlinks."""
    if change.ref.object not in JOINS:
        return 1
    people = sum(ref.object is ObjectName.CONTACT for ref in change.links_after)
    rows = people * (2 if change.record_id else 1) + len(change.links_to_remove)
    return 1 + rows - (change.ref.object is ObjectName.MEETING and not change.record_id)


def small_enough(changes: list[Change], report: Report) -> list[Change]:
    """The changes that one call can make; of the others it is noted that Salesforce takes no such."""
    for change in changes:
        if _size(change) > MAX_NODES:
            words = f"The {change.ref.object} has more people than Salesforce links in one call."
            report.problems[change.ref] = InvalidRecord(words)
    return [change for change in changes if change.ref not in report.problems]


def fitting(graph: list[Change], most: int = MAX_NODES) -> int:
    """How many of a graph's changes fit into one call; each comes after what it hangs on."""
    sizes = itertools.accumulate(map(_size, graph))
    return sum(size <= most for size in sizes)


def by_headers(
    graph: list[Change], needs: Callable[[Change], bool]
) -> tuple[bool, list[Change], list[Change]]:
    """Whether a group goes by a call that takes headers, what of it goes now, and what waits."""
    first = next((number for number, change in enumerate(graph) if needs(change)), None)
    if first is None:
        fits = fitting(graph)
        return False, graph[:fits], graph[fits:]
    fits = fitting(graph, MAX_PARTS)
    if fits < len(graph) and first:
        # What needs none goes ahead: whom the others hang on has its id then.
        fits = min(first, fitting(graph))
        return False, graph[:fits], graph[fits:]
    return True, graph[:fits], graph[fits:]


def packed(graphs: list[list[Change]], most: Callable[[], int]) -> Iterable[list[list[Change]]]:
    """Fill calls with graphs up to the limits of nodes and graphs; a graph goes in one piece.

    `most` says how many nodes the next call may have.
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
