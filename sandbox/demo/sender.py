"""meetergo's side of the demo: it knows its bookings and posts a signed webhook for each change."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import requests

from app.security.signatures import sign_body
from sandbox.meetergo import MeetergoSandbox
from sandbox.webhooks import Payload, cancelled, moved


class NotAccepted(Exception):
    """The service did not accept a webhook; the message says what it answered."""


class Sender:
    """Posts webhooks as meetergo does, and keeps the newest state of each booking."""

    def __init__(self, web: str, secret: str, meetergo: MeetergoSandbox) -> None:
        self._address = f"{web}/webhooks/meetergo"
        self._secret, self._meetergo = secret, meetergo
        self._lock = threading.Lock()
        self.bookings: dict[str, Payload] = {}
        """Id -> the newest webhook of the booking; the booking made last comes last."""

    def send(self, payload: Payload) -> str:
        """Post the webhook of a booking; return the word of the answer. Raises NotAccepted."""
        with self._lock:
            known = self.bookings.get(payload["id"])
            if known is None or known["updatedAt"] <= payload["updatedAt"]:
                self.bookings[payload["id"]] = payload
        self._meetergo.book(payload)
        return self.send_body(payload)

    def send_body(self, body: Any, signed: bool = True) -> str:
        """Post any body, as a booking is posted, or without a valid signature."""
        text = json.dumps(body).encode()
        secret = self._secret if signed else f"not-{self._secret}"
        headers = {"Content-Type": "application/json",
                   "X-Meetergo-Signature": sign_body(secret, text)}  # fmt: skip
        try:
            answer = requests.post(self._address, data=text, headers=headers, timeout=30)
        except requests.RequestException as error:
            raise NotAccepted(f"The bridge does not answer ({type(error).__name__}).") from None
        if answer.status_code != 202:
            raise NotAccepted(f"The bridge answered {answer.status_code}.")
        return str(answer.json().get("status"))

    def move(self, booking_id: str) -> str:
        """Move a booking to the next day. Raises KeyError for an unknown one, NotAccepted."""
        known = self.bookings[booking_id]
        return self.send(moved(known, self._after(known), timedelta(days=1)))

    def cancel(self, booking_id: str) -> str:
        """Cancel a booking. Raises KeyError for an unknown one, NotAccepted."""
        known = self.bookings[booking_id]
        return self.send(cancelled(known, self._after(known)))

    @staticmethod
    def _after(known: Payload) -> datetime:
        """Return now, but later than the booking's last change: the story's day runs ahead."""
        last = datetime.fromisoformat(known["updatedAt"])
        return max(datetime.now(UTC), last + timedelta(seconds=1))
