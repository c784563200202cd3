"""The base of every sandbox CRM: state behind a lock, counted calls, hooks for the differences."""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from flask import Flask, Response, jsonify, request

from sandbox import oauth, pages
from sandbox.account import Account, User
from sandbox.answers import Record, make
from sandbox.faults import REFUSED, Fault, next_fault, reads
from sandbox.oauth import Grant
from sandbox.view import View


class Sandbox:
    """A CRM as a small server with state. Subclasses add the API."""

    name = ""
    title = ""
    pkce = False
    rotates = False
    client_auth = "body"
    scope_separator = " "
    lifetime = 1800.0
    """The lifetime of an access token in seconds; 0: it never expires, and there is no refresh token."""
    authorize_path = "/oauth/authorize"
    token_path = "/oauth/token"
    revoke_path = "/oauth/revoke"
    """Empty: this CRM has no revocation."""
    introspect_path = ""
    """Empty: this CRM has no introspection."""
    revoke_needs_client = True
    """Whether revocation needs the client's credentials."""
    key_header, key_prefix = "Authorization", "Bearer "
    account_id, account_name = "1", "Acme"
    fixed_scopes: tuple[str, ...] = ()
    """Scopes that are set in the app instead of requested."""
    api_paths: tuple[str, ...] = ("/",)
    """Parts of a path that mark it as an API path, not an OAuth path."""
    record_pages: ClassVar[Mapping[str, str]] = {}
    """Object (contact, company, deal, meeting) -> path of a record's page for people, as the CRM has
    it: with <record_id>, also behind a #, and perhaps <account>."""
    free_paths: tuple[str, ...] = ("/oauth", "/_sandbox", "/favicon")
    dresses: ClassVar[Mapping[str, Callable[[Any], None]]] = {}
    """Kind of sandbox.accounts.KINDS, except plain -> the function that turns a new account into it."""
    no_state = frozenset({"app", "lock", "rules", "account", "org", "portal", "faults"})
    """Attributes that are not contents of the CRM: a copy of its state omits them."""

    def __init__(self, users: dict[str, str] | None = None) -> None:
        """`users`: e-mail -> name of the CRM's users."""
        self.lock = threading.RLock()
        self.users = users or {"john@acme.example": "John Smith", "mary@acme.example": "Mary Major"}
        self.grants: list[Grant] = []
        self.keys: dict[str, list[str]] = {}
        """Hand-made key -> its scopes."""
        self.withheld: set[str] = set()
        """Scopes that this account does not grant, even if they are requested."""
        self.calls_to_token = 0
        self.revocations = 0
        self.codes: dict[str, Record] = {}
        self.calls: Counter[str] = Counter()
        self.log: list[str] = []
        self.written: deque[str] = deque(maxlen=20)
        """The last calls that may have changed something, with their bodies."""
        self.forbidden_names: set[str] = set()
        """Last names that an admin's rule refuses."""
        self.refused = 0
        """Calls that were answered with 429."""
        self.faults: list[Fault] = []
        self.next_id = 1000
        self.changes: list[pages.Change] = []
        """The history of the records, if `pages.keep_history` notes it."""
        self.account = Account(self)
        """The account with the switches of the tests."""
        self.app = Flask(f"sandbox.{self.name}", template_folder=str(pages.TEMPLATES))
        self.app.before_request(self._before)
        self.app.after_request(self._after)
        oauth.add_routes(self)
        pages.add_pages(self)
        add = self.app.add_url_rule
        add("/_sandbox/calls", "calls", self._calls)
        add("/_sandbox/faults", "faults", self._set_faults, methods=["POST", "DELETE"])
        self.routes()

    def routes(self) -> None:
        """Add the CRM's API to self.app."""
        raise NotImplementedError

    def view(self) -> View:
        """Return the records in the neutral shape."""
        raise NotImplementedError

    def fields_of(self, name: str, record_id: str) -> Record | None:
        """Return a record's fields by the CRM's own names, for its page; None: those of the view."""
        return None

    def delete_meetings(self) -> None:
        """Delete every meeting, as a person does."""
        raise NotImplementedError

    def drop_booking_fields(self) -> None:
        """Remove the booking-id fields, as an admin does who deletes or never allowed them."""
        raise NotImplementedError

    def guard(self, scopes: list[str]) -> Response | None:
        """Check scopes and rate limits of an API call; return a response to refuse it."""
        raise NotImplementedError

    def token_answer(self, answer: Record) -> Record:
        """Add this CRM's own keys to a token answer."""
        return answer

    def introspection(self, grant: Grant, left: float) -> Record:
        """Return this CRM's introspection of a valid access token; `left`: its remaining seconds."""
        scope = self.scope_separator.join(grant.scopes)
        return {"active": True, "scope": scope, "exp": int(time.time() + left)}

    def refuse_token(self) -> Response:
        """Return the CRM's answer to a dead access token."""
        raise NotImplementedError

    def dead_grant(self) -> Response:
        """Return the CRM's answer to a dead refresh token."""
        return make(400, {"error": "invalid_grant", "error_description": "expired"})

    def take_user(self, user: User) -> None:
        """Give a user of `account.user` an id in this CRM."""
        raise NotImplementedError

    def user_left(self, email: str) -> None:
        """Do what this CRM does when users with this address are deactivated."""

    def user_back(self, email: str) -> None:
        """Do what this CRM does when users with this address are activated again."""

    def new_id(self) -> int:
        """Return the next record id."""
        self.next_id += 1
        return self.next_id

    @property
    def total_calls(self) -> int:
        """Return the number of API calls so far, without token calls."""
        return sum(self.calls.values())

    def writes(self) -> int:
        """Return the number of API calls that changed or may have changed something."""
        return sum(number for call, number in self.calls.items() if not reads(call))

    def become(self, account_id: str, account_name: str) -> None:
        """Act as another account from now on."""
        self.account_id, self.account_name = account_id, account_name

    def make_key(self, *scopes: str) -> str:
        """Create a key by hand, as a person does in the CRM's settings."""
        key = f"{self.name}-key-{secrets.token_urlsafe(16)}"
        self.keys[key] = list(scopes)
        return key

    def expire_access_tokens(self) -> None:
        """End every access token now."""
        with self.lock:
            for grant in self.grants:
                grant.access_tokens.clear()

    def kill_grants(self) -> None:
        """Uninstall the app: access and refresh tokens end."""
        with self.lock:
            self.expire_access_tokens()
            for grant in self.grants:
                grant.dead = True

    # Requests

    def _before(self) -> Response | None:
        # Before any lock: a client that stops in the middle of a request blocks no other.
        request.get_data()
        path = request.path
        if str(request.endpoint).startswith(pages.PREFIX) or path.startswith("/_sandbox"):
            return None
        with self.lock:
            fault = next_fault(self.faults, path, request.method)
        if fault:
            fault.until.wait(fault.latency)
            if fault.status and not fault.garbled:
                return Response(fault.answer(), fault.status, fault.headers)
            request.environ["sandbox.drop"] = fault.drop_after_commit
            request.environ["sandbox.garbled"] = fault if fault.garbled else None
        if oauth.is_path(self, path):
            return None
        with self.lock:
            call = f"{request.method} {path}"
            self.log.append(call)
            scopes = oauth.scopes_of_call(self)
            refusal = self.refuse_token() if scopes is None else self.guard(self._left(scopes))
            # A call refused by the guard has changed nothing.
            self.calls[f"{REFUSED} {call}" if refusal else call] += 1
            if not refusal and not reads(call):
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
            # The work is done; the connection breaks before the answer.
            connection = request.environ.get("werkzeug.socket")
            if connection is not None:
                connection.close()
            response.status_code = 500
        garbled = request.environ.get("sandbox.garbled")
        if garbled:
            return Response(garbled.answer(), garbled.status, garbled.headers)
        return response

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
