"""The endpoints for machines: alive, ready, metrics. The database counts for all processes."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Blueprint, Response, current_app, jsonify
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.bootstrap import Services
from app.services.counts import count_all
from app.services.redis_client import explain, probe
from app.store.engine import utcnow

blueprint = Blueprint("health", __name__)
DATABASE_REASON = "The database takes no writes. `flask --app app doctor` says why."
"""Not the reason itself: strangers may read this page, and the reason names hosts and users."""


@blueprint.get("/healthz")
def healthz() -> Response:
    """Report that the process answers."""
    return jsonify(status="ok")


@blueprint.get("/readyz")
def readyz() -> tuple[Response, int]:
    """Report whether the database takes webhooks; a Redis that takes no write is only mentioned."""
    services: Services = current_app.extensions["services"]
    checks, reasons = {"database": "ok", "redis": "ok"}, {}
    try:
        services.store.check()
    except (DBAPIError, PoolTimeout, OSError):
        checks["database"], reasons["database"] = "down", DATABASE_REASON
    try:
        probe(services.waker.redis)
    except (RedisError, OSError) as error:
        checks["redis"], reasons["redis"] = "down", explain(error)
    if checks["database"] == "ok":
        # A web process takes webhooks without a worker: this is only mentioned.
        checks["workers"] = "ok" if services.processes.workers().alive else "none"
    ready = checks["database"] == "ok"
    status = "ready" if ready else "not ready"
    return jsonify(status=status, checks=checks, reasons=reasons), 200 if ready else 503


@blueprint.get("/metrics")
def metrics() -> Response:
    """Return the metrics as Prometheus text."""
    registry = CollectorRegistry()
    registry.register(_Counts(current_app.extensions["services"]))
    return Response(generate_latest(registry), content_type="text/plain; version=0.0.4")


class _Counts:
    """Reads the numbers on each request."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterator[Metric]:
        """Events by status, deliveries by CRM and state, connections by status."""
        counts = count_all(self._services.store)
        family = GaugeMetricFamily(
            "bridge_oldest_due_seconds",
            "Seconds since the oldest waiting booking of a working connection became due",
            labels=["provider", "connection"],
        )
        for (provider, number), age in counts.oldest_due.items():
            family.add_metric([provider, str(number)], age)
        yield family
        yield from self._workers()
        family = GaugeMetricFamily("bridge_events", "Webhooks stored", labels=["status"])
        for status, number in counts.events.items():
            family.add_metric([status], number)
        yield family
        labels = ["provider", "connection", "state"]
        words = "Bookings that are not in a CRM as they should be"
        family = GaugeMetricFamily("bridge_deliveries", words, labels=labels)
        for (provider, number, state), found in counts.deliveries.items():
            family.add_metric([provider, str(number), state], found)
        yield family
        yield from self._sources()
        labels = ["provider", "status"]
        family = GaugeMetricFamily("bridge_connections", "CRM accounts", labels=labels)
        for (provider, status), number in counts.connections.items():
            family.add_metric([provider, status], number)
        yield family

    def _workers(self) -> Iterator[Metric]:
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
        family = GaugeMetricFamily("bridge_source", words, labels=["source", "status"])
        for view in views:
            family.add_metric([view.name, view.status], 1)
        yield family
        words = "Webhooks that wait until meetergo confirms them"
        family = GaugeMetricFamily("bridge_source_waiting", words, labels=["source"])
        for view in views:
            family.add_metric([view.name], view.waiting)
        yield family
