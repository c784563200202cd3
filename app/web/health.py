"""The endpoints for machines: alive and ready."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, jsonify
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.bootstrap import Services
from app.services.redis_client import explain, probe

blueprint = Blueprint("health", __name__)
DATABASE_REASON = "The database takes no writes. `bridge doctor` says why."
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
