"""meetergo's REST API: appointments to check and to catch up with, webhooks to register."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

import requests
import urllib3

from app.domain.errors import (
    CrmError,
    Gone,
    InvalidRecord,
    MissingScope,
    RateLimited,
    RetryLater,
    Unauthorized,
    Unreadable,
)
from app.domain.rate_limits import RateLimit, RateLimiter
from app.domain.text import one_line
from app.outbound.deadline import Call
from app.outbound.reply import a_list, an_object, parse, part, seconds_asked
from app.outbound.wire import bounded_session

CALLS = RateLimit("minute", 100, 60.0)
"""The limit for each key. https://developer.meetergo.com"""
PAGE_SIZE = 100
"""The most appointments on a page that meetergo gives."""
MOST_WEBHOOKS = 6
"""The most webhooks that a company may have."""


@dataclass(frozen=True)
class Page:
    """A page of appointments, and the number of all appointments."""

    appointments: tuple[Mapping[str, Any], ...]
    total: int


class MeetergoClient:
    """The client for one API key of one company. https://developer.meetergo.com"""

    def __init__(
        self,
        base: str,
        api_key: str,
        user_id: str,
        timeout: float,
        gate: RateLimiter | None = None,
    ) -> None:
        """`timeout`: seconds for one call. `gate`: keeps all processes together within the limit."""
        self._base = base.rstrip("/")
        self._timeout = timeout
        self._gate = gate or RateLimiter()
        self._http = bounded_session(self._gate)
        self._http.headers["Authorization"] = f"Bearer {api_key}"
        if api_key.startswith("ak_live") and user_id:
            self._http.headers["x-meetergo-api-user-id"] = user_id
        self._usable = bool(api_key)

    def appointment(self, appointment_id: str) -> Mapping[str, Any]:
        """One appointment. Raises Gone if meetergo no longer has it, which does not mean cancelled.

        Raises RetryLater if the answer holds no appointment, or another one.
        """
        document = self._call("GET", f"/v4/appointment/{quote(appointment_id, safe='')}")
        if not isinstance(document, Mapping) or one_line(document.get("id")) is None:
            raise RetryLater("meetergo's answer holds no appointment.")
        if one_line(document["id"]) != appointment_id:
            raise RetryLater("meetergo's answer holds another appointment than the one asked for.")
        return document

    def meeting_type(self, type_id: str) -> Mapping[str, Any]:
        """One meeting type. Raises Gone if meetergo does not show it.

        https://developer.meetergo.com/api-reference/meeting-type-v4/get-meeting-type-information
        """
        document = self._call("GET", f"/v4/meeting-type/{quote(type_id, safe='')}")
        if not isinstance(document, Mapping) or one_line(document.get("id")) != type_id:
            raise RetryLater("meetergo's answer holds no meeting type.")
        return document

    def meeting_types(self) -> list[Mapping[str, Any]]:
        """The meeting types of the user for whom the key acts."""
        document = self._call("GET", "/v4/meeting-type")
        if isinstance(document, Mapping):
            document = document.get("meetingTypes")
        return [row for row in a_list(document) if isinstance(row, Mapping)]

    def whoami(self) -> Mapping[str, Any]:
        """The user for whom the key acts. https://developer.meetergo.com/api-reference/authentication"""
        return an_object(self._call("GET", "/v4/user/me"))

    def appointments(
        self,
        page: int,
        sort: str,
        descending: bool = False,
        start: datetime | None = None,
        end: datetime | None = None,
        size: int = PAGE_SIZE,
    ) -> Page:
        """A page of appointments, from 0; `start` and `end` limit the starts of the meetings (UTC).

        `sort` is start or createdAt. There is no filter by change. `size`: appointments on a page.
        """
        query: dict[str, Any] = {
            "page": page,
            "pageSize": size,
            "sortBy": f"appointment.{sort}",
            "sortDirection": "DESC" if descending else "ASC",
        }
        query |= {k: v.isoformat() for k, v in (("start", start), ("end", end)) if v}
        document = self._call("GET", "/v4/appointment/paginated", params=query)
        if not isinstance(document, Mapping) or not isinstance(document.get("appointments"), list):
            raise RetryLater("meetergo's answer is no page of appointments.")
        rows = tuple(row for row in document["appointments"] if isinstance(row, Mapping))
        total = document.get("total")
        return Page(rows, total if type(total) is int else len(rows))

    def webhooks(self) -> list[Mapping[str, Any]]:
        """The webhooks of the company."""
        document = self._call("GET", "/webhooks")
        return [row for row in a_list(document) if isinstance(row, Mapping)]

    def register(self, url: str, events: list[str]) -> Mapping[str, Any]:
        """Make a webhook. Raises InvalidRecord with meetergo's words if it is refused."""
        body = {"endpoint": url, "eventTypes": events, "description": "CRM bridge"}
        document = self._call("POST", "/webhooks", json=body)
        part(document, "id")
        return an_object(document)

    def change(self, webhook_id: str, url: str, events: list[str]) -> None:
        """Change a webhook's address or events; any 2xx answer means success."""
        path = f"/webhooks/{quote(webhook_id, safe='')}"
        self._call("PATCH", path, json={"endpoint": url, "eventTypes": events}, read=False)

    def remove(self, webhook_id: str) -> None:
        """Delete a webhook; one that is gone already is no error."""
        with suppress(Gone):
            self._call("DELETE", f"/webhooks/{quote(webhook_id, safe='')}", read=False)

    def _call(self, method: str, path: str, read: bool = True, **kwargs: Any) -> Any:
        if not self._usable:
            raise Unauthorized("There is no meetergo API key.")
        self._gate.enter(CALLS)
        try:
            with Call(self._timeout) as call:
                answer = self._http.request(
                    method,
                    self._base + path,
                    timeout=self._timeout,
                    allow_redirects=False,
                    **kwargs,
                )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise RetryLater(f"meetergo could not be reached ({type(error).__name__}).") from None
        if call.over:
            # The part that came until then looks like an answer.
            raise RetryLater(f"meetergo did not answer within {self._timeout:.0f} seconds.")
        if not 200 <= answer.status_code < 300:
            raise _refusal(answer)
        if not read:
            return None
        try:
            return parse(answer.content)
        except Unreadable:
            raise RetryLater("meetergo's answer is not JSON.") from None


def _refusal(answer: requests.Response) -> CrmError:
    status = answer.status_code
    if status == 429:
        wait = seconds_asked(answer.headers.get("Retry-After"))
        return RateLimited("meetergo's rate limit is used up.", wait or 60.0)
    if status == 401:
        return Unauthorized("meetergo refuses the API key.")
    if not _is_json(answer):
        # An HTML page comes from a server in between: it says nothing about an appointment.
        return RetryLater(f"meetergo answered {status} with no JSON.")
    kinds = {
        403: MissingScope(f"meetergo does not let the API key do this: {_words(answer)}"),
        404: Gone("meetergo has no such appointment for this key."),
        **dict.fromkeys(
            (400, 409, 422), InvalidRecord(f"meetergo refuses the request: {_words(answer)}")
        ),
    }
    return kinds.get(status) or RetryLater(f"meetergo answered {status}.")


def _is_json(answer: requests.Response) -> bool:
    try:
        parse(answer.content)
    except Unreadable:
        return False
    return True


def _words(answer: requests.Response) -> str:
    """meetergo's `message`, which may be a text or a list of texts."""
    try:
        message = an_object(parse(answer.content)).get("message", "")
    except Unreadable:
        message = ""
    words = "; ".join(map(str, message)) if isinstance(message, list) else str(message)
    return words[:300]
