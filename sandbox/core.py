"""What every sandbox CRM is made of: state behind a lock, OAuth, counted calls, faults, a page."""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from typing import Any
from urllib.parse import urlencode

from flask import Flask, Response, jsonify, redirect, render_template_string, request

from sandbox.account import Account, Fault, User

Record = dict[str, Any]
CLIENT_ID, CLIENT_SECRET = "sandbox-client", "sandbox-secret-for-tests"
CODE_LIFETIME = 300.0
"""Seconds that an authorization code lives."""


@dataclass
class Grant:
    """One consent: who may use which tokens until when."""

    scopes: list[str]
    refresh_token: str
    access_tokens: dict[str, float] = field(default_factory=dict)
    """Token -> time.monotonic() at which it dies."""
    dead: bool = False


@dataclass
class Contact:
    """A person, as the tests of all CRMs see one."""

    id: str
    email: str | None
    phone: str | None
    first: str | None
    last: str | None
    company_id: str | None
    owner: str | None


@dataclass
class Company:
    """A company, likewise."""

    id: str
    name: str | None
    domain: str | None


@dataclass
class Deal:
    """A deal, likewise."""

    id: str
    title: str | None
    stage: str | None
    contact_ids: list[str]
    company_id: str | None
    booking: str | None
    owner: str | None


@dataclass
class Meeting:
    """A meeting, likewise."""

    id: str
    title: str | None
    start: str
    minutes: int
    cancelled: bool
    link: str | None
    body: str
    contact_ids: list[str]
    deal_id: str | None
    owner: str | None


@dataclass
class View:
    """Everything in a CRM in one neutral shape, so that one suite can look at all of them."""

    contacts: list[Contact]
    companies: list[Company]
    deals: list[Deal]
    meetings: list[Meeting]


class Sandbox:
    """A CRM as a small stateful server. Subclasses add the API."""

    name = ""
    title = ""
    pkce = False
    rotates = False
    client_auth = "body"
    scope_separator = " "
    lifetime = 1800.0
    """Seconds that an access token lives."""
    authorize_path = "/oauth/authorize"
    token_path = "/oauth/token"
    revoke_path = "/oauth/revoke"
    introspect_path = ""
    """Empty: this CRM has no introspection."""
    revoke_needs_client = True
    """Whether revocation wants the client's credentials."""
    key_header, key_prefix = "Authorization", "Bearer "
    account_id, account_name = "1", "Acme"
    fixed_scopes: tuple[str, ...] = ()
    """Scopes that are set in the app instead of asked for."""
    api_paths: tuple[str, ...] = ("/",)
    """What the paths of the API hold, and those of OAuth do not."""
    free_paths: tuple[str, ...] = ("/oauth", "/_sandbox", "/favicon")
    no_state = frozenset({"app", "lock", "rules", "account", "org", "portal", "faults"})
    """Attributes that are no part of what the CRM holds: a copy of its state leaves them out."""

    def __init__(self, users: dict[str, str] | None = None) -> None:
        """`users`: e-mail -> name of the people who work with this CRM."""
        self.lock = threading.RLock()
        self.users = users or {"john@acme.example": "John Smith", "mary@acme.example": "Mary Major"}
        self.grants: list[Grant] = []
        self.keys: dict[str, list[str]] = {}
        """Key that was made by hand -> its scopes."""
        self.withheld: set[str] = set()
        """Scopes that this account does not grant, asked or not."""
        self.calls_to_token = 0
        self.revocations = 0
        self.codes: dict[str, Record] = {}
        self.calls: Counter[str] = Counter()
        self.log: list[str] = []
        self.written: deque[str] = deque(maxlen=20)
        """The last calls that may have changed something, with what they said."""
        self.forbidden_names: set[str] = set()
        """Last names that an admin's rule refuses."""
        self.refused = 0
        """Calls that were answered with 429."""
        self.faults: list[Fault] = []
        self.next_id = 1000
        self.account = Account(self)
        """What this account is like: the switches of the tests."""
        self.app = Flask(f"sandbox.{self.name}")
        self.app.before_request(self._before)
        self.app.after_request(self._after)
        add = self.app.add_url_rule
        add(self.authorize_path, "authorize", self._authorize, methods=["GET", "POST"])
        add(self.token_path, "token", self._token, methods=["POST"])
        add(self.revoke_path, "revoke", self._revoke, methods=["POST"])
        if self.introspect_path:
            add(self.introspect_path, "introspect", self._introspect, methods=["POST"])
        add("/", "page", self._page)
        add("/_sandbox/calls", "calls", self._calls)
        add("/_sandbox/faults", "faults", self._set_faults, methods=["POST", "DELETE"])
        self.routes()

    def routes(self) -> None:
        """Add the CRM's API to self.app."""
        raise NotImplementedError

    def view(self) -> View:
        """The records in the neutral shape."""
        raise NotImplementedError

    def delete_meetings(self) -> None:
        """Do what a person does who deletes every meeting."""
        raise NotImplementedError

    def drop_booking_fields(self) -> None:
        """Do what an admin does who deletes the booking-id fields, or never allowed them."""
        raise NotImplementedError

    def guard(self, scopes: list[str]) -> Response | None:
        """Check scopes and rate limits of an API call; a response refuses it."""
        raise NotImplementedError

    def token_answer(self, answer: Record) -> Record:
        """Add what this CRM's token answers carry beside the tokens."""
        return answer

    def refuse_token(self) -> Response:
        """The CRM's answer to a dead access token."""
        raise NotImplementedError

    def dead_grant(self) -> Response:
        """The CRM's answer to a dead refresh token."""
        return make(400, {"error": "invalid_grant", "error_description": "expired"})

    def take_user(self, user: User) -> None:
        """Let a user of `account.user` work with this CRM: it gets an id."""
        raise NotImplementedError

    def user_left(self, email: str) -> None:
        """Do what this CRM does when users with an address are deactivated."""

    def user_back(self, email: str) -> None:
        """Do what this CRM does when they are activated again."""

    def new_id(self) -> int:
        """The next record id."""
        self.next_id += 1
        return self.next_id

    @property
    def total_calls(self) -> int:
        """API calls so far, those for tokens not counted."""
        return sum(self.calls.values())

    def writes(self) -> int:
        """API calls that changed or may have changed something."""
        return sum(number for call, number in self.calls.items() if not _reads(call))

    def become(self, account_id: str, account_name: str) -> None:
        """Be another account from now on."""
        self.account_id, self.account_name = account_id, account_name

    def make_key(self, *scopes: str) -> str:
        """Make a key by hand, as a person does in the CRM's settings."""
        key = f"{self.name}-key-{secrets.token_urlsafe(16)}"
        self.keys[key] = list(scopes)
        return key

    def expire_access_tokens(self) -> None:
        """Let every access token die now."""
        with self.lock:
            for grant in self.grants:
                grant.access_tokens.clear()

    def kill_grants(self) -> None:
        """Uninstall the app: access and refresh tokens are dead."""
        with self.lock:
            self.expire_access_tokens()
            for grant in self.grants:
                grant.dead = True

    # Requests

    def _before(self) -> Response | None:
        # Before any lock: a client that stands still in the middle of a request holds nobody up.
        request.get_data()
        path = request.path
        if path == "/" or path.startswith("/_sandbox"):
            return None
        fault = self._strike(path)
        if fault:
            fault.until.wait(fault.latency)
            if fault.status and not fault.garbled:
                return Response(fault.answer(), fault.status, fault.headers)
            request.environ["sandbox.drop"] = fault.drop_after_commit
            request.environ["sandbox.garbled"] = fault if fault.garbled else None
        if path in (
            self.authorize_path, self.token_path, self.revoke_path, self.introspect_path,
        ):  # fmt: skip
            return None
        with self.lock:
            call = f"{request.method} {path}"
            self.log.append(call)
            scopes = self._scopes_of_key()
            if scopes is None:
                grant = self._grant_of(request.headers.get("Authorization", ""))
                scopes = None if grant is None else grant.scopes
            refusal = self.refuse_token() if scopes is None else self.guard(self._left(scopes))
            # What is turned away at the door has changed nothing.
            self.calls[f"{REFUSED} {call}" if refusal else call] += 1
            if not refusal and not _reads(call):
                self.written.append(f"{call} {request.get_data(as_text=True)[:2000]}")
            return refusal

    def _left(self, scopes: list[str]) -> list[str]:
        return [scope for scope in scopes if scope not in self.account.lost_scopes]

    def _after(self, response: Response) -> Response:
        for path, usual, instead in self.account.other_success:
            if path in request.path and response.status_code == usual:
                response.status_code = instead
        self.refused += response.status_code == 429
        if request.environ.get("sandbox.drop"):
            # The work is done; the line goes dead before the answer.
            connection = request.environ.get("werkzeug.socket")
            if connection is not None:
                connection.close()
            response.status_code = 500
        garbled = request.environ.get("sandbox.garbled")
        if garbled:
            return Response(garbled.answer(), garbled.status, garbled.headers)
        return response

    def _strike(self, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.strikes(path, request.method):
                    fault.struck += 1
                    if fault.times is not None:
                        fault.times -= 1
                        if fault.times <= 0:
                            self.faults.remove(fault)
                    return fault
        return None

    def _scopes_of_key(self) -> list[str] | None:
        sent = request.headers.get(self.key_header, "")
        if self.key_prefix and not sent.startswith(self.key_prefix):
            return None
        return self.keys.get(sent.removeprefix(self.key_prefix))

    def _grant_of(self, header: str) -> Grant | None:
        token = header.removeprefix("Bearer ")
        for grant in self.grants:
            if grant.access_tokens.get(token, 0.0) > time.monotonic():
                return grant
        return None

    # OAuth

    def _authorize(self) -> Response | str:
        given = request.values
        scopes = given.get("scope", "").split() or list(self.fixed_scopes)
        scopes = [s for s in (*scopes, *given.get("optional_scope", "").split())
                  if s not in self.withheld]  # fmt: skip
        if given.get("client_id") != CLIENT_ID or given.get("response_type") != "code":
            return make(400, {"error": "invalid_request"})
        if self.pkce and given.get("code_challenge_method") != "S256":
            return make(400, {"error": "invalid_request", "error_description": "PKCE is missing"})
        if request.method == "GET":
            return render_template_string(
                CONSENT, title=self.title, scopes=scopes, fields=given.to_dict()
            )
        if request.form.get("decision") != "allow":
            query = {"error": "access_denied", "state": given.get("state", "")}
            return redirect(f"{given['redirect_uri']}?{urlencode(query)}", 302)
        code = secrets.token_urlsafe(16)
        with self.lock:
            self.codes[code] = {
                "challenge": given.get("code_challenge"),
                "redirect_uri": given["redirect_uri"],
                "scopes": scopes,
                "until": time.monotonic() + CODE_LIFETIME,
            }
        query = {"code": code, "state": given.get("state", "")}
        return redirect(f"{given['redirect_uri']}?{urlencode(query)}", 302)

    def _token(self) -> Response:
        with self.lock:
            self.calls_to_token += 1
        if request.mimetype != "application/x-www-form-urlencoded" or request.args:
            return make(400, {"error": "invalid_request"})
        if not self._client_is_known():
            return make(401, {"error": "invalid_client"})
        with self.lock:
            if request.form.get("grant_type") == "authorization_code":
                return self._trade_code()
            if request.form.get("grant_type") == "refresh_token":
                return self._trade_refresh()
        return make(400, {"error": "unsupported_grant_type"})

    def _client_is_known(self) -> bool:
        if self.client_auth == "basic":
            raw = request.headers.get("Authorization", "").removeprefix("Basic ")
            return raw == base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        form = request.form
        return (form.get("client_id"), form.get("client_secret")) == (CLIENT_ID, CLIENT_SECRET)

    def _trade_code(self) -> Response:
        entry = self.codes.pop(request.form.get("code", ""), None)
        if not entry or entry["until"] < time.monotonic():
            return make(400, {"error": "invalid_grant", "error_description": "bad code"})
        if entry["redirect_uri"] != request.form.get("redirect_uri"):
            return make(400, {"error": "invalid_grant", "error_description": "redirect_uri"})
        if self.pkce:
            digest = hashlib.sha256(request.form.get("code_verifier", "").encode()).digest()
            if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != entry["challenge"]:
                return make(400, {"error": "invalid_grant", "error_description": "PKCE"})
        grant = Grant(entry["scopes"], secrets.token_urlsafe(32))
        self.grants.append(grant)
        return self._issue(grant)

    def _trade_refresh(self) -> Response:
        for grant in self.grants:
            if grant.refresh_token == request.form.get("refresh_token") and not grant.dead:
                if self.rotates:
                    grant.refresh_token = secrets.token_urlsafe(32)
                return self._issue(grant)
        return self.dead_grant()

    def _issue(self, grant: Grant) -> Response:
        token = f"{self.name}-{secrets.token_urlsafe(32)}"
        grant.access_tokens[token] = time.monotonic() + self.lifetime
        answer = {
            "access_token": token,
            "refresh_token": grant.refresh_token,
            "token_type": "bearer",
            "expires_in": int(self.lifetime),
            "scope": self.scope_separator.join(grant.scopes),
        }
        return make(200, self.token_answer(answer))

    def _introspect(self) -> Response:
        if not self._client_is_known():
            return make(401, {"error": "invalid_client"})
        now = time.monotonic()
        with self.lock:
            for grant in self.grants:
                left = grant.access_tokens.get(request.form.get("token", ""), 0.0) - now
                if left > 0:
                    return make(200, self.introspection(grant, left))
        return make(200, {"active": False})

    def introspection(self, grant: Grant, left: float) -> Record:
        """What this CRM tells of a living access token; `left`: seconds until it dies."""
        scope = self.scope_separator.join(grant.scopes)
        return {"active": True, "scope": scope, "exp": int(time.time() + left)}

    def _revoke(self) -> Response:
        if self.revoke_needs_client and not self._client_is_known():
            return make(401, {"error": "invalid_client"})
        with self.lock:
            self.revocations += 1
            for grant in self.grants:
                if grant.refresh_token == request.form.get("token"):
                    # Access tokens live on to their end, as at the real ones.
                    grant.dead = True
        return make(200, {})

    # For people and tests

    def _calls(self) -> Response:
        return jsonify(
            total=self.total_calls,
            writes=self.writes(),
            refused=self.refused,
            by_path=dict(self.calls),
        )

    def _set_faults(self) -> Response:
        with self.lock:
            if request.method == "DELETE":
                self.faults.clear()
            else:
                self.faults.append(Fault(**request.get_json()))
        return jsonify(faults=len(self.faults))

    def _page(self) -> str:
        with self.lock:
            view = self.view()
        names = {c.id: " ".join(filter(None, (c.first, c.last))) or c.email for c in view.contacts}
        return render_template_string(
            PAGE, title=self.title, view=view, names=names, calls=self.total_calls
        )


def make(status: int, body: Any, headers: dict[str, str] | None = None) -> Response:
    """A JSON response."""
    response = jsonify(body)
    response.status_code = status
    response.headers.update(headers or {})
    return response


class Index:
    """Finds the records that hold a value without looking at each of ten thousand."""

    def __init__(self, keys: Callable[[Record], list[str]]) -> None:
        """`keys`: the values under which a record is to be found."""
        self._keys = keys
        self._places: dict[str, set[str]] = {}

    def note(self, record_id: str, record: Record) -> None:
        """Know a record, or what has changed of it."""
        for value in self._keys(record):
            self._places.setdefault(value, set()).add(record_id)

    def find(self, table: dict[str, Record], value: str) -> list[Record]:
        """The records that hold a value now. Small tables are looked through, however they came."""
        places = list(table) if len(table) <= 200 else sorted(self._places.get(value, ()))
        return [table[i] for i in places if i in table and value in self._keys(table[i])]


REFUSED = "refused"
LONGEST_EMAIL = 80
"""Characters of an address that the sandboxes take; the rest is refused, as an admin's rule may."""


def java_length(text: str) -> int:
    """Length of text as Java and so HubSpot and Salesforce count it: in units of UTF-16."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _window_clock() -> float:
    return Window.clock()


class Window:
    """A rate limit: so many calls in so many seconds."""

    clock: Callable[[], float] = staticmethod(time.monotonic)

    def __init__(self, limit: int, seconds: float, now: Callable[[], float] | None = None) -> None:
        self.limit, self.seconds = limit, seconds
        self._now = now or _window_clock
        self._times: list[float] = []

    def take(self) -> bool:
        """Count a call; False where the limit is reached."""
        now = self._now()
        self._times = [moment for moment in self._times if now - moment < self.seconds]
        if len(self._times) >= self.limit:
            return False
        self._times.append(now)
        return True

    @property
    def left(self) -> int:
        """Calls left in this window."""
        return max(0, self.limit - len(self._times))


def plain(html: str) -> str:
    """Undo what as_html did, for comparing bodies."""
    text = html.replace("<br>", "\n")
    for char in "<>&":
        text = text.replace(escape(char), char)
    return text


CONSENT = """<!doctype html><html lang="en"><title>{{ title }}: allow access</title>
<body style="font-family:sans-serif;max-width:32rem;margin:3rem auto">
<h1>{{ title }} (sandbox)</h1><p><strong>meetergo CRM bridge</strong> asks for:</p>
<ul>{% for scope in scopes %}<li>{{ scope }}</li>{% endfor %}</ul>
<form method="post">{% for name, value in fields.items() %}<input type="hidden" name="{{ name }}" value="{{ value }}">{% endfor %}
<button name="decision" value="allow">Allow</button> <button name="decision" value="deny">Deny</button></form>"""

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{{ title }} sandbox</title>
<style>body{font:15px/1.5 sans-serif;margin:2rem;color:#222}table{border-collapse:collapse;width:100%}
th,td{border-bottom:1px solid #ddd;text-align:left;padding:.3rem .6rem;vertical-align:top}h2{margin-top:2rem}</style>
<h1>{{ title }} (sandbox)</h1><p>{{ calls }} API calls so far.</p>
<h2>Contacts ({{ view.contacts|length }})</h2><table><tr><th>Id</th><th>First</th><th>Last</th><th>E-mail</th><th>Phone</th><th>Company</th></tr>
{% for c in view.contacts %}<tr><td>{{ c.id }}</td><td>{{ c.first or '' }}</td><td>{{ c.last or '' }}</td><td>{{ c.email or '' }}</td><td>{{ c.phone or '' }}</td><td>{{ c.company_id or '' }}</td></tr>{% endfor %}</table>
<h2>Companies ({{ view.companies|length }})</h2><table><tr><th>Id</th><th>Name</th><th>Domain</th></tr>
{% for c in view.companies %}<tr><td>{{ c.id }}</td><td>{{ c.name }}</td><td>{{ c.domain or '' }}</td></tr>{% endfor %}</table>
<h2>Deals ({{ view.deals|length }})</h2><table><tr><th>Id</th><th>Title</th><th>Stage</th><th>People</th><th>Owner</th></tr>
{% for d in view.deals %}<tr><td>{{ d.id }}</td><td>{{ d.title }}</td><td>{{ d.stage }}</td><td>{% for i in d.contact_ids %}{{ names.get(i, i) }}{{ ', ' if not loop.last }}{% endfor %}</td><td>{{ d.owner or '' }}</td></tr>{% endfor %}</table>
<h2>Meetings ({{ view.meetings|length }})</h2><table><tr><th>Id</th><th>Title</th><th>Start</th><th>Minutes</th><th>State</th><th>People</th><th>Body</th></tr>
{% for m in view.meetings %}<tr><td>{{ m.id }}</td><td>{{ m.title }}</td><td>{{ m.start }}</td><td>{{ m.minutes }}</td><td>{{ 'cancelled' if m.cancelled else 'scheduled' }}</td><td>{% for i in m.contact_ids %}{{ names.get(i, i) }}{{ ', ' if not loop.last }}{% endfor %}</td><td style="white-space:pre-line">{{ m.body }}</td></tr>{% endfor %}</table>"""


def _reads(call: str) -> bool:
    """Whether a call, method and path, only looks."""
    return call.startswith(("GET", REFUSED)) or call.endswith(("/search", "/batch/read", "/query"))
