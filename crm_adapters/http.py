"""The HTTP edge that all adapters share: bounded calls, token renewal, what an answer's status means."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Executor, wait
from functools import partial
from typing import Any, TypeVar

import requests
import structlog
import urllib3

from app.crm.port import Access, ApiFacts
from app.domain.errors import (
    AccountMoved,
    CrmError,
    FreshTokenRefused,
    RateLimited,
    RetryLater,
    Unreadable,
)
from app.domain.rate_limits import NotOurs, RateLimit
from app.outbound.deadline import Call
from app.outbound.reply import Reply, header_number, lowered, seconds_asked
from app.outbound.wire import bounded_session

log = structlog.get_logger(__name__)
Answer = TypeVar("Answer")
Item = TypeVar("Item")
MAX_MESSAGE = 300
"""Characters of a CRM's own words that are kept."""
PATIENCE = 3.0
"""Seconds of a pause that a CRM asks for and that is waited for in the middle of a batch."""
RENEWALS = 2
"""How often one call may renew: a token that lives for seconds may die on its way to the CRM."""
MOST_PAGES = 200
"""Pages of a list that are read: an account has fewer; whoever names a next page for ever lies."""
_QUOTED_SECRET = re.compile(r"[A-Za-z0-9_\-.!]{40,}")
_EMAIL = re.compile(r"[^\s@\"'<>]+@[^\s@\"'<>]+")


class RefusedToken(Exception):
    """The CRM answered that the access token is expired or unknown."""


class Redirected(Exception):
    """The CRM answered that what was asked for is elsewhere. Nobody follows: the token would go too."""


class OwnFault(Exception):
    """What this service itself could not do while it called: no word of the CRM's."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(type(cause).__name__)
        self.cause = cause


def with_token(
    access: Access, call: Callable[[str], Answer], allowance: RateLimit | None = None
) -> Answer:
    """Make a call with a token; where the token is refused, renew it and call again.

    `allowance`: what the call waits for, before it takes a token: one that lives for seconds would
    die in the queue. Raises Unauthorized where the grant or the key is dead, FreshTokenRefused where
    renewed tokens are refused as well, and AccountMoved where the CRM answers with a redirect.
    """
    refused: list[str] = []
    for _ in range(RENEWALS + 1):
        if allowance:
            access.enter(allowance)
        token = _own(access.tokens.token)
        if token in refused:
            token = _own(partial(access.tokens.renewed, refused[-1]))
        try:
            return _patiently(access, partial(call, token))
        except RefusedToken as error:
            refused.append(token)
            why = error
        except Redirected:
            # The next token answer names the account's address, where it has another one by now.
            _own(partial(access.tokens.look_for_address, token))
            raise AccountMoved("The CRM answers with a redirect instead of an answer.") from None
    raise FreshTokenRefused(f"The CRM refuses a fresh access token: {why}")


def _own(action: Callable[[], Answer]) -> Answer:
    """Do something of this service's own, whose faults are not the CRM's."""
    try:
        return action()
    except (CrmError, NotOurs):
        raise
    except Exception as error:
        raise OwnFault(error) from error


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


def exchange(access: Access, allowance: RateLimit, send: Callable[[], Reply]) -> Reply:
    """Make one call, bounded in time, and give its answer where it is one of 200 to 499.

    Raises RetryLater for what is out of order, RateLimited with the seconds to wait, Redirected, and
    Unreadable for an answer that no API gives.
    """
    try:
        with Call(access.timeout) as call:
            try:
                reply = send()
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                raise too_slow(access) if call.over else unreachable(error) from None
            if call.over:
                raise too_slow(access)
    except Unreadable:
        access.meter.count_nonsense()
        raise
    access.answered(allowance, reply.headers)
    try:
        raise_for_outage(reply, access.facts)
    except RateLimited:
        access.gate.refused(allowance)
        raise
    return reply


class ApiSession:
    """A requests session for one account: keep-alive, a deadline for every call, calls counted."""

    def __init__(self, access: Access, at_once: int = 1) -> None:
        """`at_once`: how many threads call together."""
        self.access = access
        self.http = bounded_session(access.gate, at_once)

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        allowance: RateLimit,
        **kwargs: Any,
    ) -> Reply:
        """Call the API and give the answer, whatever its status from 200 to 499 but 429.

        Raises like `exchange`.
        """

        def send() -> Reply:
            response = self.http.request(
                method,
                self.access.api_base + path,
                headers=dict(headers),
                timeout=self.access.timeout,
                allow_redirects=False,
                **kwargs,
            )
            return Reply(response.status_code, lowered(response.headers), response.content)

        return exchange(self.access, allowance, send)


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


def too_slow(access: Access) -> RetryLater:
    """The error for a call that was ended since it took too long."""
    return RetryLater(f"The CRM did not answer within {access.timeout:.0f} seconds.")


def raise_for_outage(reply: Reply, facts: ApiFacts) -> None:
    """Raise for the answers that mean 'not now', and for those that no API gives; else return."""
    status, after = reply.status, seconds_asked(reply.headers.get("retry-after"))
    if status == 429:
        reset = header_number(reply.headers.get(facts.reset_header))
        if after is None and reset is not None:
            after = float(min(reset, 3600))
        raise RateLimited(f"Too many calls: {shorten(reply.text)}", after)
    if status in facts.busy:
        words, seconds = facts.busy[status]
        raise RetryLater(f"{words}: {shorten(reply.text)}", after or seconds)
    if 500 <= status < 600 or status in (408, 425):
        raise RetryLater(f"The CRM answered {status}: {shorten(reply.text)}", after)
    if 300 <= status < 400:
        raise Redirected
    if not 200 <= status < 500:
        raise Unreadable(f"The CRM answered with the status {status}, which means nothing.")


def refusal_of(reply: Reply) -> Any:
    """The JSON of an answer of 400 to 499. Raises Unreadable where a page stands in its place.

    A page comes from something in between: a proxy, a firewall, a sign-in. It is no word on a record.
    """
    try:
        return reply.json()
    except Unreadable:
        words = shorten(reply.text)
        raise Unreadable(f"The CRM answered {reply.status} with no JSON: {words}") from None


def shorten(text: str) -> str:
    """A CRM's own words in one short line, with what looks like a credential or a person hidden."""
    text = text[:20_000]
    plain = re.sub(r"<[^>]+>", " ", text) if re.search(r"<(?:html|!doctype)", text, re.I) else text
    plain = _EMAIL.sub("[e-mail]", _QUOTED_SECRET.sub("[hidden]", " ".join(plain.split())))
    plain = "".join(char for char in plain if char.isprintable())
    return plain[:MAX_MESSAGE] or "(no text)"
