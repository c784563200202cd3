"""meetergo as a sandbox: its REST API for appointments and webhooks, and a sender of webhooks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flask import Flask, Response, request

from sandbox.core import Record, Window, make

API_KEY = "ak_live:sandbox"


class MeetergoSandbox:
    """One company's appointments."""

    name, title = "meetergo", "meetergo"

    def __init__(self) -> None:
        self.appointments: dict[str, Record] = {}
        self.webhooks: dict[int, Record] = {}
        self.window = Window(200, 120.0)
        self.refused = 0
        """Calls that were answered with 429."""
        self.down = False
        self.app = Flask("sandbox.meetergo")
        self.app.before_request(self._guard)
        add = self.app.add_url_rule
        add("/v4/appointment/paginated", "pages", self._pages)
        add("/v4/appointment/<appointment_id>", "one", self._one)
        add("/webhooks", "webhooks", self._webhooks, methods=["GET", "POST"])
        add("/webhooks/<int:number>", "webhook", self._webhook, methods=["PATCH", "DELETE"])

    def book(self, payload: Record) -> None:
        """Know an appointment, in the REST shape: the link is in hostingInfo there."""
        info = payload.get("meetingInfo")
        rest: Record = {k: v for k, v in payload.items() if k not in ("webhookType", "meetingInfo")}
        self.appointments[str(payload["id"])] = {**rest, "hostingInfo": info}

    def _guard(self) -> Response | None:
        if request.headers.get("Authorization") != f"Bearer {API_KEY}":
            return _error(401, "Unauthorized")
        if not request.headers.get("x-meetergo-api-user-id"):
            return _error(401, "x-meetergo-api-user-id is missing")
        if self.down:
            return _error(503, "Service Unavailable")
        if self.window.take():
            return None
        self.refused += 1
        return _error(429, "Too Many Requests")

    def _pages(self) -> Response:
        page, size = request.args.get("page", type=int), request.args.get("pageSize", type=int)
        if page is None or size is None or not 0 < size <= 100:
            return _error(400, ["page and pageSize are required", "pageSize is at most 100"])
        sort, direction = request.args.get("sortBy", "appointment.start"), request.args.get("sortDirection", "ASC")  # fmt: skip
        if sort not in ("appointment.start", "appointment.createdAt") or direction not in ("ASC", "DESC"):  # fmt: skip
            return _error(400, ["sortBy or sortDirection is not one of the allowed values"])
        field = sort.partition(".")[2]
        rows = sorted(self.appointments.values(), key=lambda row: _moment(row.get(field)))
        rows = rows[::-1] if direction == "DESC" else rows
        if request.args.get("start"):
            since = _moment(request.args["start"])
            rows = [row for row in rows if _moment(row["start"]) >= since]
        if request.args.get("end"):
            until = _moment(request.args["end"])
            rows = [row for row in rows if _moment(row["start"]) <= until]
        part = rows[page * size : (page + 1) * size]
        return make(200, {"appointments": part, "total": len(rows)})

    def _one(self, appointment_id: str) -> Response:
        found = self.appointments.get(appointment_id)
        return make(200, found) if found else _error(404, "Not found")

    def _webhooks(self) -> Response:
        if request.method == "GET":
            return make(200, list(self.webhooks.values()))
        if len(self.webhooks) >= 6:
            return _error(400, "A company can have at most 6 webhooks")
        number = len(self.webhooks) + 1
        self.webhooks[number] = {"id": number, **(request.get_json(silent=True) or {})}
        return make(201, self.webhooks[number])

    def _webhook(self, number: int) -> Response:
        if number not in self.webhooks:
            return _error(404, "Not found")
        if request.method == "DELETE":
            return make(200, self.webhooks.pop(number))
        self.webhooks[number].update(request.get_json(silent=True) or {})
        return make(200, self.webhooks[number])


def _moment(value: Any) -> datetime:
    """A time; what is none comes after all others, as NULL does in PostgreSQL."""
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _error(status: int, message: Any) -> Response:
    return make(status, {"statusCode": status, "message": message, "error": "Error"})
