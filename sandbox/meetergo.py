"""meetergo as a sandbox: its REST API for appointments and webhooks, and a sender of webhooks."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from flask import Flask, Response, request

from sandbox.answers import Record, make
from sandbox.limits import Window

API_KEY = "ak_live:sandbox"
PAGE_PARAMETERS = {
    "page", "pageSize", "start", "end", "status", "meetingTypeId", "userId", "sortBy",
    "sortDirection",
}  # fmt: skip
PAGE_PATHS = ("/v4/appointment", "/v4/meeting-type", "/webhooks")
"""The resources that the permissions of a key are named after."""


class MeetergoSandbox:
    """One company's appointments. https://developer.meetergo.com/api-reference"""

    name, title = "meetergo", "meetergo"

    def __init__(self) -> None:
        self.appointments: dict[str, Record] = {}
        self.meeting_types: dict[str, Record] = {}
        self.webhooks: dict[int, Record] = {}
        self.window = Window(200, 120.0)
        self.key = API_KEY
        """The valid key; setting another one ends the earlier key."""
        self.user_id = ""
        """The only user that the key may act as; empty: any user."""
        self.shown: Counter[str] = Counter()
        """Appointment -> how often it was read alone."""
        self.refused = 0
        """Calls that were answered with 429."""
        self.down = False
        self.answers: list[tuple[int, str]] = []
        """Status and body that replace the next answers."""
        self.broken: set[str] = set()
        """Appointments that give 500: alone, and on any page with one of them."""
        self.late: dict[str, float] = {}
        """Appointment -> the time.monotonic() after which it can be read alone."""
        self.forbidden: set[str] = set()
        """Those of PAGE_PATHS for which the key has no permission."""
        self.tells_total = True
        self.silent_changes = False
        """Whether PATCH is answered without a body."""
        self.calls: Counter[str] = Counter()
        """Method and path, without ids, of every answered call."""
        self.app = Flask("sandbox.meetergo")
        self.app.before_request(self._guard)
        add = self.app.add_url_rule
        add("/v4/appointment/paginated", "pages", self._pages)
        add("/v4/appointment/<appointment_id>", "one", self._one)
        add("/v4/meeting-type", "types", lambda: make(200, list(self.meeting_types.values())))
        add("/v4/meeting-type/<type_id>", "type", self._type)
        add("/v4/user/me", "me", lambda: make(200, {"id": self.user_id or "u1"}))
        add("/webhooks", "webhooks", self._webhooks, methods=["GET", "POST"])
        add("/webhooks/<int:number>", "webhook", self._webhook, methods=["PATCH", "DELETE"])

    def book(self, payload: Record, late: float = 0.0) -> None:
        """Store an appointment in the REST API's shape; it can be read alone `late` seconds from
        now.

        It has no meetingType: meetingInfo has name and channel, hostingInfo has the link, and the
        type is named by its id only.
        """
        data = payload.get("data", payload)
        info, kind = data.get("meetingInfo") or {}, data.get("meetingType") or {}
        link, about = info.get("meetingLink"), kind.get("meetingInfo") or {}
        hosting: Record = {
            "mainHost": next(iter(data.get("hostIds") or ()), None),
            "meetingLink": link,
        }
        if "zoom.us/j/" in str(link):
            hosting["zoomMeetingId"] = int(str(link).rpartition("/")[2])
        left_out = ("webhookType", "meetingInfo", "meetingType")
        self.appointments[str(data["id"])] = {
            **{k: v for k, v in data.items() if k not in left_out},
            "meetingInfo": {**about, "channel": info.get("channel")},
            "hostingInfo": hosting,
        }
        if kind.get("id"):
            self.meeting_types[str(kind["id"])] = {
                "id": kind["id"], "slug": kind.get("slug"), "meetingInfo": about,
                "metadata": kind.get("metadata") or {},
            }  # fmt: skip
        if late:
            self.late[str(data["id"])] = time.monotonic() + late

    def _guard(self) -> Response | None:
        path = request.path
        if request.headers.get("Authorization") != f"Bearer {self.key}":
            return _error(401, "Invalid API key")
        user = request.headers.get("x-meetergo-api-user-id")
        if self.key.startswith("ak_live") and not user and path != "/v4/user/me":
            return _error(400, "x-meetergo-api-user-id header is required")
        if user and (not self.key.startswith("ak_live") or self.user_id not in ("", user)):
            return _error(403, "The user is not one of this key's")
        if any(path.startswith(name) for name in self.forbidden):
            return _error(403, "Missing permission: " + path.strip("/").split("/")[-1])
        if self.down:
            return _error(503, "Service Unavailable")
        if not self.window.take():
            self.refused += 1
            return _error(429, "Too Many Requests")
        place = path if path.count("/") < 3 or path.endswith(("paginated", "me")) else path.rpartition("/")[0] + "/…"  # fmt: skip
        self.calls[f"{request.method} {place}"] += 1
        if self.answers:
            status, body = self.answers.pop(0)
            return Response(body, status, content_type="application/json")
        return None

    def _pages(self) -> Response:
        page, size = request.args.get("page", type=int), request.args.get("pageSize", type=int)
        unknown = sorted(set(request.args) - PAGE_PARAMETERS)
        if unknown:
            return _error(400, [f"property {name} should not exist" for name in unknown])
        if page is None or size is None or not 0 < size <= 100 or page < 0:
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
        if any(str(row["id"]) in self.broken for row in part):
            return _error(500, "Internal server error")
        total = {"total": len(rows)} if self.tells_total else {}
        return make(200, {"appointments": part, **total})

    def _one(self, appointment_id: str) -> Response:
        if appointment_id in self.broken:
            return _error(500, "Internal server error")
        found = self.appointments.get(appointment_id)
        if found is None or time.monotonic() < self.late.get(appointment_id, 0.0):
            return _error(404, "Not found")
        self.shown[appointment_id] += 1
        return make(200, found)

    def _type(self, type_id: str) -> Response:
        found = self.meeting_types.get(type_id)
        return make(200, found) if found else _error(404, "Not found")

    def _webhooks(self) -> Response:
        if request.method == "GET":
            return make(200, list(self.webhooks.values()))
        if len(self.webhooks) >= 6:
            return _error(400, "A company can have at most 6 webhooks")
        number = max(self.webhooks, default=0) + 1
        self.webhooks[number] = {"id": number, **(request.get_json(silent=True) or {})}
        return make(201, self.webhooks[number])

    def _webhook(self, number: int) -> Response:
        if number not in self.webhooks:
            return _error(404, "Not found")
        if request.method == "DELETE":
            return make(200, self.webhooks.pop(number))
        self.webhooks[number].update(request.get_json(silent=True) or {})
        if self.silent_changes:
            return Response(status=200)
        return make(200, self.webhooks[number])


def _moment(value: Any) -> datetime:
    """Return a time; other values come after all times, as NULL does in PostgreSQL."""
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _error(status: int, message: Any) -> Response:
    return make(status, {"statusCode": status, "message": message, "error": "Error"})
