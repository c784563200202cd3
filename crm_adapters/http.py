"""The HTTP edge that all adapters share: one session, timeouts, token renewal, error classes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Executor, wait
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, TypeVar

import requests
import structlog

from app.domain.allowance import Allowance
from app.domain.errors import RateLimited, RetryLater, Unauthorized
from crm_adapters.base import Access
from crm_adapters.wire import WatchedTransport

log = structlog.get_logger(__name__)
Answer = TypeVar("Answer")
Item = TypeVar("Item")
MAX_MESSAGE = 300
"""Characters of a CRM's own words that are kept."""
PATIENCE = 3.0
"""Seconds of a pause that a CRM asks for and that is waited for in the middle of a batch."""
RENEWALS = 2
"""How often one call may renew: a token that lives for seconds may die on its way to the CRM."""
_QUOTED_SECRET = re.compile(r"[A-Za-z0-9_\-.!]{40,}")
_EMAIL = re.compile(r"[^\s@\"'<>]+@[^\s@\"'<>]+")


class RefusedToken(Exception):
    """The CRM answered that the access token is expired or unknown."""


def with_token(
    access: Access, call: Callable[[str], Answer], allowance: Allowance | None = None
) -> Answer:
    """Make a call with a token; where the token is refused, renew it and call again.

    `allowance`: what the call waits for, before it takes a token: one that lives for seconds would
    die in the queue. Raises Unauthorized where renewed tokens are refused as well.
    """
    refused: list[str] = []
    for _ in range(RENEWALS + 1):
        if allowance:
            access.enter(allowance)
        token = access.tokens.token()
        if token in refused:
            token = access.tokens.renewed(refused[-1])
        try:
            return _patiently(access, partial(call, token))
        except RefusedToken as error:
            refused.append(token)
            why = error
    raise Unauthorized(f"The CRM refuses a fresh access token: {why}")


def _patiently(access: Access, call: Callable[[], Answer]) -> Answer:
    """Make a call; where the CRM asks for a short pause, make it once more after that.

    What a batch has read so far would be lost otherwise, and read again, and refused again.
    """
    try:
        return call()
    except RateLimited as error:
        if not error.after or error.after > PATIENCE:
            raise
        access.gate.rest(error.after)
    access.meter.count()
    return call()


class ApiSession:
    """A requests session for one account: keep-alive, a timeout on every call, calls counted."""

    def __init__(self, access: Access, at_once: int = 1) -> None:
        """`at_once`: how many threads call together."""
        self.access = access
        self.http = requests.Session()
        for scheme in ("https://", "http://"):
            self.http.mount(scheme, WatchedTransport(access.gate, at_once))

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        allowance: Allowance,
        **kwargs: Any,
    ) -> Any:
        """Call the API and give the response, whatever its status below 500 and other than 429.

        Raises RetryLater for what is out of order and RateLimited with the seconds to wait.
        """
        try:
            response = self.http.request(
                method,
                self.access.api_base + path,
                headers=dict(headers),
                timeout=self.access.timeout,
                allow_redirects=False,
                **kwargs,
            )
        except requests.RequestException as error:
            raise unreachable(error) from None
        self.access.answered(allowance, response.headers)
        raise_for_outage(response.status_code, response.headers, response.text)
        self.access.meter.count(answered=True)
        return response


def together(pool: Executor, work: Callable[[Item], Answer], items: Iterable[Item]) -> list[Answer]:
    """Do the same for many at once; give the results in order.

    Where one raises, no further one is begun, those under way are waited for, and it is raised.
    """
    futures = [pool.submit(work, item) for item in items]
    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    if any(future.exception() for future in done):
        for future in futures:
            future.cancel()
        wait(futures)
    return [future.result() for future in futures if not future.cancelled()]


def unreachable(error: Exception) -> RetryLater:
    """The error for a call that got no answer; addresses and tokens stay out of its text."""
    return RetryLater(f"The CRM could not be reached ({type(error).__name__}).")


def raise_for_outage(status: int, headers: Mapping[str, str], body: str) -> None:
    """Raise RateLimited or RetryLater for the answers that mean 'not now'; else return."""
    after = retry_after(headers)
    if status == 429:
        reset = {key.lower(): value for key, value in headers.items()}.get("x-ratelimit-reset", "")
        if after is None and reset.isdigit():
            after = float(reset)
        raise RateLimited(f"Too many calls: {shorten(body)}", after)
    if status == 423:
        # HubSpot: the account is locked by a long operation; wait at least 2 seconds.
        raise RetryLater(f"The account is busy: {shorten(body)}", after or 2.0)
    if status == 477:
        # HubSpot: the account is being moved to another data centre.
        raise RetryLater("The account is being migrated.", after or 3600.0)
    if status >= 500 or status in (408, 0):
        raise RetryLater(f"The CRM answered {status}: {shorten(body)}", after)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date; None where it has none."""
    lowered = {key.lower(): value for key, value in headers.items()}
    value = lowered.get("retry-after", "").strip()
    if value.isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (TypeError, ValueError, IndexError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def shorten(text: str) -> str:
    """A CRM's own words in one short line, with what looks like a credential or a person hidden."""
    plain = re.sub(r"<[^>]+>", " ", text) if "<html" in text.lower() else text
    plain = _EMAIL.sub("[e-mail]", _QUOTED_SECRET.sub("[hidden]", " ".join(plain.split())))
    return plain[:MAX_MESSAGE] or "(no text)"
