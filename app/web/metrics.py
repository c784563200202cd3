"""The metrics for Prometheus: what waits, what failed, and what each connection has done so far.

The database counts for all processes. What is done is never counted on a request: the totals are
written with the work.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from flask import Blueprint, Response, current_app, request
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from werkzeug.exceptions import Unauthorized

from app.bootstrap import Services
from app.services.counts import ConnectionCounts, count_all
from app.store.engine import utcnow
from app.store.totals import BOUNDS, LONGER, KnownTotal, TotalKind
from app.web.access import bearer_role
from app.web.local import is_local
from config.version import VERSION

blueprint = Blueprint("metrics", __name__)
PLACE = ["provider", "connection"]
COUNTERS = {
    TotalKind.ATTEMPTS: ("bridge_attempts", "Attempts to sync a booking, by how they ended"),
    TotalKind.CALLS: ("bridge_calls", "Calls to the CRM, by their result"),
    TotalKind.BATCHES: ("bridge_batches", "Batches of bookings that were worked on"),
    TotalKind.REFRESHES: ("bridge_refreshes", "Renewals of the access token, by their result"),
}


@blueprint.get("/metrics")
def metrics() -> Response:
    """Return the metrics as Prometheus text."""
    if not is_local(request) and bearer_role() is None:
        raise Unauthorized("Send an API key as Authorization: Bearer <key>.")
    registry = CollectorRegistry()
    registry.register(_Metrics(current_app.extensions["services"]))
    return Response(generate_latest(registry), content_type="text/plain; version=0.0.4")


class _Metrics:
    """Reads the numbers on each request."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterator[Metric]:
        """Every metric."""
        words = "The version of the service"
        yield _gauge("bridge_build_info", words, ["version"], {(VERSION,): 1})
        counts = count_all(self._services.store)
        words = "Webhooks that are not done, by status"
        yield _gauge(
            "bridge_events", words, ["status"], {(k,): n for k, n in counts.events.items()}
        )
        yield from _connections(counts.connections)
        yield from _totals(counts.totals)
        yield from self._processes()
        yield from self._sources()

    def _processes(self) -> Iterator[Metric]:
        """The workers at work, and the webhooks that wait for one."""
        found, now = self._services.processes.workers(), utcnow()
        words = "Worker processes that have reported within a minute"
        yield GaugeMetricFamily("bridge_workers", words, value=found.alive)
        words = "Webhooks that no worker has processed"
        yield GaugeMetricFamily("bridge_inbox_waiting", words, value=found.stored)
        age = (now - found.stored_since).total_seconds() if found.stored_since else 0.0
        words = "Seconds since the oldest webhook came that no worker has processed"
        yield GaugeMetricFamily("bridge_inbox_oldest_seconds", words, value=max(0.0, age))

    def _sources(self) -> Iterator[Metric]:
        """The state of each meetergo workspace, and how many of its webhooks wait for meetergo."""
        views = self._services.sources.views()
        words = "Whether meetergo answers a source: 1 for its present status"
        statuses = {(view.name, view.status): 1.0 for view in views}
        yield _gauge("bridge_source", words, ["source", "status"], statuses)
        words = "Webhooks that wait until meetergo confirms them"
        waiting = {(view.name,): float(view.waiting) for view in views}
        yield _gauge("bridge_source_waiting", words, ["source"], waiting)


def _connections(found: list[ConnectionCounts]) -> Iterator[Metric]:
    """What waits in each connection, and its state."""
    words = "Whether a CRM account works: 1 for its present status"
    statuses = {(*_place(c), c.status): 1.0 for c in found}
    yield _gauge("bridge_connections", words, [*PLACE, "status"], statuses)
    words = "Bookings that are not in the CRM as they should be, by state"
    states = {(*_place(c), state): float(n) for c in found for state, n in c.unfinished.items()}
    yield _gauge("bridge_deliveries", words, [*PLACE, "state"], states)
    words = "Seconds since the oldest waiting booking of a working connection became due"
    ages = {_place(c): c.oldest_due for c in found}
    yield _gauge("bridge_oldest_due_seconds", words, PLACE, ages)
    words = "Calls left of the account's day after the last batch, if the CRM tells"
    left = {_place(c): float(c.calls_left) for c in found if c.calls_left is not None}
    yield _gauge("bridge_calls_left", words, PLACE, left)


def _totals(found: list[KnownTotal]) -> Iterator[Metric]:
    """What each connection has done so far."""
    for kind, (name, words) in COUNTERS.items():
        mine = [total for total in found if total.kind is kind]
        labels = [*PLACE] if kind is TotalKind.BATCHES else [*PLACE, "result"]
        family = CounterMetricFamily(name, words, labels=labels)
        for total in mine:
            place = [total.provider, str(total.connection_id)]
            family.add_metric([*place, total.label] if total.label else place, total.value)
        yield family
    yield _sync_seconds(found)


def _sync_seconds(found: list[KnownTotal]) -> Metric:
    """How long live bookings took from due to synced, as a histogram."""
    words = "Seconds from when a live booking became due until it was in the CRM"
    family = HistogramMetricFamily("bridge_sync_seconds", words, labels=PLACE)
    times: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    sums: dict[tuple[str, str], float] = {}
    for total in found:
        place = (total.provider, str(total.connection_id))
        if total.kind is TotalKind.SYNC_TIMES:
            times[place][total.label] = total.value
        elif total.kind is TotalKind.SYNC_SECONDS:
            sums[place] = total.value
    for place, by_bound in times.items():
        so_far, buckets = 0.0, []
        for bound in (*(f"{bound:g}" for bound in BOUNDS), LONGER):
            so_far += by_bound.get(bound, 0.0)
            buckets.append((bound, so_far))
        family.add_metric(list(place), buckets, sums.get(place, 0.0))
    return family


def _place(counts: ConnectionCounts) -> tuple[str, str]:
    return counts.provider, str(counts.connection_id)


def _gauge(
    name: str, words: str, labels: list[str], values: Mapping[Any, float]
) -> GaugeMetricFamily:
    """A metric with a value for each tuple of labels."""
    family = GaugeMetricFamily(name, words, labels=labels)
    for key, value in values.items():
        family.add_metric(list(key), value)
    return family
