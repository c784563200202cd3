"""HTTP calls for all adapters: time limits, token renewal, and the meaning of statuses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Executor, wait
from functools import partial
from typing import Any, TypeVar

import requests
import structlog
import urllib3

from app.crm.port import Access, ApiFacts, CallResult
from app.domain.errors import (
    AccountMoved,
    CrmError,
    FreshTokenRefused,
    RateLimited,
    RetryLater,
    Unreadable,
)
from app.domain.rate_limits import NotOurs, RateLimit
from app.domain.refusals import redacted
from app.outbound.deadline import Call
from app.outbound.reply import Reply, header_number, lowered, seconds_asked
from app.outbound.wire import bounded_session

log = structlog.get_logger(__name__)
Answer = TypeVar("Answer")
Item = TypeVar("Item")
MAX_MESSAGE = 300
"""Most characters that are kept of a CRM's message."""
PATIENCE = 3.0
"""The longest pause, in seconds, that a batch waits for when a CRM asks for one."""
RENEWALS = 2
"""Token renewals per call: a token that lives for seconds may expire on its way to the CRM."""
MOST_PAGES = 200
"""Most pages that are read of a list: an account has fewer, so a longer list is an endless one."""


class RefusedToken(Exception):
    """The CRM answered that the access token has expired or is unknown."""


class Redirected(Exception):
    """The CRM answered with a redirect. It is not followed: the token would be sent there too."""


class OwnFault(Exception):
    """An error of this service itself during a call: the CRM did not report it."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(type(cause).__name__)
        self.cause = cause


def with_token(
    access: Access, call: Callable[[str], Answer], allowance: RateLimit | None = None
) -> Answer:
    """Make a call with a token; if the token is refused, renew it and call again.

    `allowance`: the limit that the call waits for before it takes a token, since a short-lived
    token would expire in the queue. Raises Unauthorized if the grant or the key is dead,
    FreshTokenRefused if renewed tokens are refused as well, and AccountMoved if the CRM answers
    with a redirect.
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
            # The next token answer contains the account's address, in case it has changed.
            _own(partial(access.tokens.look_for_address, token))
            raise AccountMoved("The CRM answers with a redirect to another address.") from None
    raise FreshTokenRefused(f"The CRM refuses a fresh access token: {why}")


def _own(action: Callable[[], Answer]) -> Answer:
    """Do something of this service's own: its errors are not the CRM's."""
    try:
        return action()
    except (CrmError, NotOurs):
        raise
    except Exception as error:
        raise OwnFault(error) from error


def _patiently(access: Access, call: Callable[[], Answer]) -> Answer:
    """Make a call; if the CRM asks for a short pause, wait and make the call once more.

    Otherwise all that the batch has read so far would be lost, read again and perhaps refused
    again.
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
    """Make one call with a time limit, and return its answer if the status is 200 to 499.

    Raises RetryLater for an outage, RateLimited with the seconds to wait, Redirected, and
    Unreadable for an answer that no API gives.
    """
    result: CallResult | None = None
    try:
        reply = _reply_to(access, send)
        access.answered(allowance, reply.headers)
        raise_for_outage(reply, access.facts)
        result = _result_of(reply.status)
    except RateLimited:
        result = CallResult.LIMITED
        access.gate.refused(allowance)
        raise
    except (RetryLater, Redirected, Unreadable):
        result = CallResult.OUTAGE
        raise
    finally:
        # A call that this service itself held back says nothing of the CRM.
        if result is not None:
            access.meter.note(result)
    return reply


def _reply_to(access: Access, send: Callable[[], Reply]) -> Reply:
    try:
        with Call(access.timeout) as call:
            try:
                reply = send()
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                raise too_slow(access) if call.over else unreachable(error) from None
            if call.over:
                raise too_slow(access)
            return reply
    except Unreadable:
        access.meter.count_nonsense()
        raise


def _result_of(status: int) -> CallResult:
    if status == 401:
        return CallResult.UNAUTHORIZED
    return CallResult.OK if status < 400 else CallResult.REFUSED


class ApiSession:
    """A requests session for one account: keep-alive, a time limit and a count for every call."""

    def __init__(self, access: Access, at_once: int = 1) -> None:
        """`at_once`: the number of threads that call at the same time."""
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
        """Call the API and return the answer with any status from 200 to 499 except 429.

        Raises the same errors as `exchange`.
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
    """Do the same for many items at once; return the results in order.

    If one call raises, no further call starts, the running ones are waited for, and the error is
    raised.
    """
    futures = [pool.submit(work, item) for item in items]
    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    if any(future.exception() for future in done):
        for future in futures:
            future.cancel()
        wait(futures)
    return [future.result() for future in futures if not future.cancelled()]


def unreachable(error: Exception) -> RetryLater:
    """Return the error for a call without an answer; its text contains no address and no token."""
    return RetryLater(f"The CRM could not be reached ({type(error).__name__}).")


def too_slow(access: Access) -> RetryLater:
    """Return the error for a call that was ended because it took too long."""
    return RetryLater(f"The CRM did not answer within {access.timeout:.0f} seconds.")


def raise_for_outage(reply: Reply, facts: ApiFacts) -> None:
    """Raise for answers that mean 'not now' and for those that no API gives; otherwise return."""
    status, after = reply.status, seconds_asked(reply.headers.get("retry-after"))
    if status == 429:
        reset = header_number(reply.headers.get(facts.reset_header))
        if after is None and reset is not None:
            after = float(min(reset, 3600))
        raise RateLimited(_with_words("The CRM allows no more calls for now", reply.text), after)
    if status in facts.busy:
        words, seconds = facts.busy[status]
        raise RetryLater(_with_words(words, reply.text), after or seconds)
    if 500 <= status < 600 or status in (408, 425):
        sentence = f"The CRM is out of order at present (it answered {status})"
        raise RetryLater(_with_words(sentence, reply.text), after)
    if 300 <= status < 400:
        raise Redirected
    if not 200 <= status < 500:
        raise Unreadable(f"The CRM answered with the status {status}, which has no meaning.")


def refusal_of(reply: Reply) -> Any:
    """Return the JSON of an answer of 400 to 499. Raises Unreadable for a web page instead of JSON.

    A page comes from a proxy, a firewall or a sign-in in between. It says nothing about a record.
    """
    try:
        return reply.json()
    except Unreadable:
        sentence = f"The CRM answered {reply.status} with no JSON"
        raise Unreadable(_with_words(sentence, reply.text)) from None


def shorten(text: str, most: int = MAX_MESSAGE) -> str:
    """Return a CRM's message as one short line, and hide what looks like a credential or a person."""
    text = text[:20_000]
    plain = re.sub(r"<[^>]+>", " ", text) if re.search(r"<(?:html|!doctype)", text, re.I) else text
    return redacted(plain)[:most] or "(no text)"


def _with_words(sentence: str, text: str) -> str:
    """Return a sentence, followed by the CRM's own words if it sent any."""
    words = shorten(text)
    return f"{sentence}." if words == "(no text)" else f"{sentence}: {words}"
