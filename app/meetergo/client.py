"""Reads appointments from meetergo's REST API: what a webhook that nobody signed is checked by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import requests

from app.domain.errors import Gone, RateLimited, RetryLater, Unauthorized


class MeetergoClient:
    """One API key of one company. https://developer.meetergo.com"""

    def __init__(self, base: str, api_key: str, user_id: str, timeout: float) -> None:
        self._base = base.rstrip("/")
        self._timeout = timeout
        self._http = requests.Session()
        self._http.headers["Authorization"] = f"Bearer {api_key}"
        if api_key.startswith("ak_live") and user_id:
            self._http.headers["x-meetergo-api-user-id"] = user_id

    def appointment(self, appointment_id: str) -> Mapping[str, Any]:
        """One appointment. Raises Gone where meetergo no longer has it, which is not a cancel."""
        path = f"/v4/appointment/{quote(appointment_id, safe='')}"
        try:
            answer = self._http.get(self._base + path, timeout=self._timeout, allow_redirects=False)
        except requests.RequestException as error:
            raise RetryLater(f"meetergo could not be reached ({type(error).__name__}).") from None
        if answer.status_code == 429:
            raise RateLimited("meetergo's limit of calls is used up.", 60.0)
        if answer.status_code in (401, 403):
            raise Unauthorized("meetergo refuses MEETERGO_API_KEY.")
        if answer.status_code == 404:
            raise Gone("meetergo no longer has this appointment.", appointment_id)
        if answer.status_code != 200:
            raise RetryLater(f"meetergo answered {answer.status_code}.")
        document = answer.json()
        return document if isinstance(document, Mapping) else {}
