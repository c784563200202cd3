"""Whatever the answer to any call: only declared errors come out, and no record is invented."""

from __future__ import annotations

import copy
import functools
import gzip
import itertools
import json
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.crm.changes import WriteOutcome
from app.crm.port import Report
from app.domain.errors import (
    AccountMoved,
    Conflict,
    CrmError,
    Gone,
    InvalidRecord,
    RetryLater,
    ThereAlready,
)
from app.domain.rate_limits import NotOurs
from app.meetergo.client import MeetergoClient
from app.oauth import exchange
from app.oauth.exchange import SetupError
from config.providers import Provider, load_providers
from config.settings import CONFIG_DIR
from sandbox.meetergo import API_KEY, MeetergoSandbox
from sandbox.oauth import Grant
from sandbox.serve import load_sandbox
from tests.between import Asked, Between, Right, parted, reply
from tests.bridge import PROVIDERS, sample
from tests.contract.calls import Step, World, world

EXAMPLES = int(os.environ.get("ANSWERS_EXAMPLES", "60"))
"""The number of random answers per test; a nightly run may use thousands."""
drawn = settings(max_examples=EXAMPLES, derandomize="ANSWERS_EXAMPLES" not in os.environ,
                 suppress_health_check=list(HealthCheck))  # fmt: skip
Make = Callable[[Right], bytes]
"""Turns the right answer into the answer that the test sends."""
HTML = b"<!doctype html><html><body>We'll be back soon</body></html>"


def said(body: bytes, status: int = 200, **headers: str) -> Make:
    """Return this answer, whatever the request."""
    return lambda right: reply(status, body, {n.replace("_", "-"): v for n, v in headers.items()})


def cut(right: Right) -> bytes:
    """Return the right answer, cut in the middle."""
    whole = right()
    return whole[: len(whole) - max(1, len(parted(whole)[2]) // 2)]


NONSENSE: dict[str, Make] = {
    # No API answers like this: a server that does is out of order and has done nothing.
    "object": said(b"{}"),
    "list": said(b"[]"),
    "null": said(b"null"),
    "a text": said(b'"ok"'),
    "a number": said(b"1e999"),
    "NaN": said(b'{"id": NaN, "results": [], "data": {"id": NaN}, "records": []}'),
    "page": said(HTML, Content_Type="text/html"),
    "page as refusal": said(HTML, 404),
    "page as conflict": said(HTML, 409),
    "teapot": said(HTML, 418),
    "deep": said(b"[" * 100_000),
    "many": said(b"[" + b"[]," * 300_000 + b"[]]"),
    "digits": said(b'{"id": ' + b"9" * 5000 + b"}"),
    "half a character": said(b'{"a": "\xff\xfe'),
    "brotli": said(b"{}", Content_Encoding="br"),
    "no gzip": said(b"{}", Content_Encoding="gzip"),
    "half a gzip": said(gzip.compress(b"x" * 9000)[:30], Content_Encoding="gzip"),
    "lying length": said(b"{}", Content_Length="5000"),
    "no length": said(b"{", Content_Length="-5"),
    "no chunk": said(b"zz\r\n{}\r\n0\r\n\r\n", Transfer_Encoding="chunked"),
    "switching": said(b"{}", 101),
    "unknown": said(b"{}", 999),
    "unknown refusal": said(b"{}", 600),
    "broken": said(b"{}", 500),
    "locked": said(b"{}", 423, Retry_After="²"),
    "too many": said(b"{}", 429, Retry_After="9" * 5000),
    "ended early": cut,
    "only a head": lambda right: b"HTTP/1.1 200 OK\r\n",
    "no HTTP": lambda right: b"\x16\x03\x01 220 mail.example ESMTP\r\n",
    "nothing": lambda right: b"",
}
NAMES = tuple(NONSENSE)
LOCATIONS = ("https://evil.example/", "http://[", "\xff\xfe", "", "//x:y@z:99999/", "/\x7f?#")
REFUSALS = (InvalidRecord, Conflict, Gone, ThereAlready)


def points(of: World) -> Iterator[tuple[Step, int]]:
    """Return every call of every step."""
    return ((step, number) for step in of.steps for number in range(step.calls))


def noting(make: Make, same: list[bool]) -> Make:
    """An answer, and a note of whether it is the very one that the CRM gives."""

    def made(right: Right) -> bytes:
        usual = right()
        given = make(lambda: usual)
        same.append(_gist(given) == _gist(usual))
        return given

    return made


def _gist(answer: bytes) -> tuple[int, bytes]:
    status, _, body = parted(answer)
    return status, body.strip()


def strike(of: World, step: Step, place: int, make: Make) -> tuple[Report, CrmError | None]:
    """Run a step while one of its calls gets another answer; that call never reaches the sandbox.

    Returns the report and the declared error. Any other error is raised.
    """
    of.restore(step.state)
    report, error = Report(), None

    def instead(asked: Asked, right: Right) -> bytes | None:
        if asked.number != place:
            return None

        def without_effect() -> bytes:
            kept = of.state()
            answer = right()
            of.restore(kept)
            return answer

        return make(without_effect)

    adapter = of.adapter(step)
    with of.between.answering(instead):
        try:
            step.do(adapter, report)
        except (CrmError, NotOurs) as caught:
            error = caught if isinstance(caught, CrmError) else None
    assert all(isinstance(problem, CrmError) for problem in report.problems.values())
    return report, error


@pytest.mark.parametrize("provider", PROVIDERS)
def test_no_call_takes_nonsense_for_an_answer(provider: str) -> None:
    """Nonsense as the answer to any call means 'retry later': nothing is refused or recorded as done."""
    of, kinds = world(provider), itertools.cycle(NAMES)
    taken = []
    for step, place in points(of):
        for name in itertools.islice(kinds, 2):
            same: list[bool] = []
            report, error = strike(of, step, place, noting(NONSENSE[name], same))
            if any(same):
                continue  # To this call it is no nonsense.
            made = {
                r.record_id for r in report.results.values() if r.outcome is WriteOutcome.CREATED
            }
            refused = [p for p in report.problems.values() if isinstance(p, REFUSALS)]
            if not isinstance(error, RetryLater) or refused or not made <= of.ids():
                taken.append((step.name, place, name, error, refused))
    assert taken == []


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_write_that_was_answered_with_an_empty_object_is_not_done(provider: str) -> None:
    """A write whose last answer is {}, [] or a page is not done: it must be tried again."""
    of, taken = world(provider), []
    for step in of.steps:
        if step.name.startswith(("find", "check", "describe", "whoami", "directory")):
            continue
        for place, name in itertools.product(range(step.calls), ("object", "list", "page")):
            same: list[bool] = []
            _, error = strike(of, step, place, noting(NONSENSE[name], same))
            if not isinstance(error, RetryLater) and not any(same):
                taken.append((step.name, place, name, error))
    assert taken == []


@pytest.mark.parametrize("provider", PROVIDERS)
def test_nobody_follows_a_redirect(provider: str) -> None:
    """No adapter follows a redirect: 301 to 308 mean that the account has moved, not a refusal."""
    of = world(provider)
    moved = itertools.cycle(itertools.product((300, 301, 302, 303, 304, 307, 308), LOCATIONS))
    for step, place in points(of):
        status, location = next(moved)
        make = said(b"{}" if status != 304 else b"", status, Location=location)
        report, error = strike(of, step, place, make)
        # The step does without the calls that it does not need.
        assert error is None or isinstance(error, (AccountMoved, RetryLater)), (step.name, error)
        assert not [p for p in report.problems.values() if isinstance(p, InvalidRecord)]


# Random answers

NUMBERS = st.sampled_from([0, -1, 1, 10**30, -(10**30), 1e308, -0.0, float("inf"), float("nan")])
DEEP: Any = functools.reduce(lambda inner, _: [{"a": inner}], range(60), None)
VALUES = st.one_of(
    st.sampled_from([None, [], {}, [[]], [None], [1], [{}], {"id": None}, {"data": {}}, DEEP]),
    st.sampled_from(["", " ", "\x00", "²", "x" * 70, "9" * 5000, "\ud800", "true", "@{n0.id}"]),
    st.booleans(),
    NUMBERS,
)
TEXTS = st.sampled_from(
    ["", "0", "1", "-1", "1.5", "²", "٣", "1e999", "9" * 20, "9" * 5000, "99999999999", "nan", "abc",
     "Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 0000 23:59:59 -2400", "Thu, 01 Jan 1970 00:00:00",
     "api-usage=1/2", "api-usage=²/³", "api-usage=" + "9" * 5000 + "/1", "=/=", "x" * 60_000,
     "identity", "gzip", "deflate", "br", "gzip, br", "chunked", "text/html; charset=nonsense"]
)  # fmt: skip
HEADERS = st.dictionaries(
    st.sampled_from([
        "Retry-After", "X-RateLimit-Remaining", "X-RateLimit-Limit", "X-RateLimit-Reset",
        "X-HubSpot-RateLimit-Remaining", "X-HubSpot-RateLimit-Max", "X-HubSpot-RateLimit-Daily",
        "X-HubSpot-RateLimit-Daily-Remaining", "X-HubSpot-RateLimit-Interval-Milliseconds",
        "X-Daily-RateLimit-Token-Remaining", "Sforce-Limit-Info", "Content-Length",
        "Content-Encoding", "Content-Type", "Transfer-Encoding", "Location", "Set-Cookie",
        "Connection", "Date",
    ]),
    TEXTS, max_size=3,
)  # fmt: skip
STATUSES = st.one_of(
    st.sampled_from([200, 201, 204, 206, 207, 400, 401, 403, 404, 409, 422, 429, 500, 503]),
    st.integers(100, 599),
)


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Return the path to every part of a JSON value."""
    yield path
    if isinstance(value, (dict, list)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places_in(part, (*path, key))


def bent(value: Any, where: int, instead: Any, drop: bool) -> Any:
    """Return a JSON value with one part replaced or removed."""
    instead = copy.deepcopy(instead)  # The pool's own value must stay as it is.
    *way, last = list(places_in(value))[where % sum(1 for _ in places_in(value))] or (None,)
    if last is None:
        return instead
    inside = value
    for key in way:
        inside = inside[key]
    if drop:
        del inside[last]
    else:
        inside[last] = instead
    return value


@st.composite
def answers(draw: st.DrawFn) -> Make:
    """Draw an answer: the right one distorted, or any content, with any status and headers."""
    bends = draw(st.lists(st.tuples(st.integers(0, 500), VALUES, st.booleans()), max_size=3))
    other = draw(st.one_of(st.none(), st.binary(max_size=40), VALUES.map(dumped)))
    status, headers = draw(st.one_of(st.none(), STATUSES)), draw(HEADERS)
    packed = draw(st.sampled_from(["", "", "", "gzip", "deflate"]))

    def make(right: Right) -> bytes:
        usual, _, body = parted(right())
        if other is not None:
            body = other
        elif body:
            value = json.loads(body)
            for where, instead, drop in bends:
                value = bent(value, where, instead, drop)
            body = dumped(value)
        if packed:
            body = gzip.compress(body) if packed == "gzip" else zlib.compress(body)
        encoding = {"Content-Encoding": packed} if packed else {}
        # Headers contain only bytes.
        sent = {name: value.encode() for name, value in headers.items()}
        return reply(status or usual, body, {**encoding, **sent})

    return make


def dumped(value: Any) -> bytes:
    """Return JSON as a careless server writes it, with NaN and lone surrogates."""
    return json.dumps(value).encode()


@pytest.mark.parametrize("provider", PROVIDERS)
@drawn
@given(data=st.data())
def test_only_declared_errors_come_out_of_an_adapter(provider: str, data: st.DataObject) -> None:
    """Any answer to any adapter call gives a CrmError or a plausible result."""
    of = world(provider)
    every = list(points(of))
    step, place = every[data.draw(st.integers(0, len(every) - 1))]
    report, _ = strike(of, step, place, data.draw(answers()))
    for result in report.results.values():
        assert result.record_id and len(result.record_id) <= 64


# Tokens

ENTRIES = load_providers(CONFIG_DIR / "providers.yaml", {})
CODE, VERIFIER = "a-code", "v" * 43


class TokenEnd:
    """The OAuth endpoints of one provider, behind a server that replaces their answers."""

    def __init__(self, provider: str) -> None:
        self.between = Between(load_sandbox(provider)())
        where = self.between.environment()
        self.entry: Provider = load_providers(CONFIG_DIR / "providers.yaml", where)[provider]

    def calls(self) -> dict[str, Callable[[], object]]:
        """Return every call to a token endpoint."""
        self.between.sandbox.grants = [Grant(["api"], "r1", {"t1": 1e12})]
        return {
            "exchange": lambda: exchange.exchange_code(
                self.entry, CODE, VERIFIER, "http://127.0.0.1/back", 2.0
            ),
            "refresh": lambda: exchange.refresh(self.entry, "r1", 2.0),
            "revoke": lambda: exchange.revoke(self.entry, "r1", 2.0),
            "introspect": lambda: exchange.introspect(self.entry, "t1", 2.0),
        }


@functools.cache
def token_end(provider: str) -> TokenEnd:
    """Return the endpoints of a provider; they are made once."""
    return TokenEnd(provider)


def ask_tokens(end: TokenEnd, name: str, make: Make) -> object:
    """Answer one call; return the declared error, or the accepted result."""
    call = end.calls()[name]
    with end.between.answering(lambda asked, right: make(right)):
        try:
            return call()
        except (CrmError, SetupError) as error:
            return error


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("name", ["exchange", "refresh", "revoke", "introspect"])
def test_nonsense_ends_no_grant(provider: str, name: str) -> None:
    """Nonsense from a token endpoint means 'retry later': no grant ends and no token is accepted."""
    end = token_end(provider)
    told = {kind: ask_tokens(end, name, make) for kind, make in NONSENSE.items()}
    # Introspection and revocation need no JSON answer.
    fine = {"revoke": None, "introspect": {}}.get(name, RetryLater)
    taken = {k: found for k, found in told.items() if not isinstance(found, RetryLater)}
    assert {k: found for k, found in taken.items() if found != fine} == {}


@pytest.mark.parametrize("provider", PROVIDERS)
@drawn
@given(data=st.data())
def test_only_declared_errors_come_out_of_a_token_endpoint(
    provider: str, data: st.DataObject
) -> None:
    """Any answer of a token endpoint gives a CrmError, a SetupError or a token as in RFC 6749."""
    name = data.draw(st.sampled_from(["exchange", "refresh", "revoke", "introspect"]))
    outcome = ask_tokens(token_end(provider), name, data.draw(answers()))
    if name in ("exchange", "refresh") and not isinstance(outcome, Exception):
        assert isinstance(outcome, dict) and isinstance(outcome["access_token"], str)
        assert isinstance(outcome.get("refresh_token", ""), str)
        assert 0 < outcome.get("expires_in", 1) < exchange.LONGEST_LIFE


# meetergo

MEETERGO = Between(MeetergoSandbox())


def meetergo_calls() -> dict[str, Callable[[], object]]:
    """Return every call to meetergo."""
    company = MEETERGO.sandbox
    company.appointments.clear()
    company.webhooks = {1: {"id": 1, "endpoint": "https://x.example"}}
    company.book(sample("booking_created"))
    api = MeetergoClient(MEETERGO.url, API_KEY, "user", 2.0)
    number = str(sample("booking_created")["id"])
    return {
        "appointment": lambda: api.appointment(number),
        "appointments": lambda: api.appointments(0, "start"),
        "webhooks": api.webhooks,
        "register": lambda: api.register("https://y.example", ["booking_created"]),
        "change": lambda: api.change("1", "https://y.example", ["booking_created"]),
        "remove": lambda: api.remove("1"),
        "meeting type": lambda: api.meeting_type("mt1"),
        "meeting types": api.meeting_types,
        "whoami": api.whoami,
    }


def ask_meetergo(name: str, make: Make) -> object:
    """Answer one call; return the declared error, or the accepted result."""
    MEETERGO.sandbox.window.limit = 10**9
    call = meetergo_calls()[name]
    with MEETERGO.answering(lambda asked, right: make(right)):
        try:
            return call()
        except CrmError as error:
            return error


@pytest.mark.parametrize("name", sorted(meetergo_calls()))
def test_meetergo_out_of_order_is_no_word_on_a_booking(name: str) -> None:
    """Nonsense from meetergo means 'retry later': no booking counts as empty, gone or refused."""
    # meetergo may have no webhook and no type; for a change and a removal the status is enough.
    refusals = ("page as refusal", "page as conflict", "teapot", "switching")
    unread = tuple(kind for kind in NONSENSE if kind not in refusals)
    fine = {"webhooks": ("list",), "meeting types": ("list",), "whoami": ("object",),
            "change": unread, "remove": unread}.get(name, ())  # fmt: skip
    told = {kind: ask_meetergo(name, make) for kind, make in NONSENSE.items() if kind not in fine}
    assert {k: outcome for k, outcome in told.items() if not isinstance(outcome, RetryLater)} == {}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", LOCATIONS)
def test_no_key_follows_a_redirect(status: int, location: str) -> None:
    """A redirect from meetergo or a token endpoint means 'retry later', wherever it points."""
    make = said(b"{}", status, Location=location)
    outcomes = [ask_meetergo(name, make) for name in meetergo_calls()]
    outcomes += [ask_tokens(token_end("pipedrive"), name, make) for name in ("exchange", "refresh")]
    outcomes += [ask_tokens(token_end("hubspot"), "revoke", make)]
    assert [found for found in outcomes if not isinstance(found, RetryLater)] == []
    assert ask_tokens(token_end("hubspot"), "introspect", make) == {}


@drawn
@given(data=st.data())
def test_only_declared_errors_come_out_of_meetergo(data: st.DataObject) -> None:
    """Any answer to any meetergo call gives a CrmError or a plausible result."""
    ask_meetergo(data.draw(st.sampled_from(sorted(meetergo_calls()))), data.draw(answers()))
