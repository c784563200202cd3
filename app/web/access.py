"""Who may see and do what: people sign in with an API key, scripts send it as a Bearer token."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from flask import Flask, Request, current_app, g, redirect, request, session, url_for
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from werkzeug.exceptions import BadRequest, Forbidden, TooManyRequests, Unauthorized
from werkzeug.wrappers import Response as WerkzeugResponse

from app.bootstrap import Services
from app.services.sessions import Person
from app.web.tries import WrongTries

P = ParamSpec("P")
R = TypeVar("R")
SESSION_ID = "id"
"""The cookie's only content: a random id that names a row."""


class Cookies(SecureCookieSessionInterface):
    """Flask's signed cookies; a cookie of another shape counts as none."""

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        """The session in a cookie, or an empty one."""
        if "HTTP_COOKIE" not in request.environ:
            # A webhook has no cookie, and need not wait for the tools that read one.
            return self.session_class()
        try:
            return super().open_session(app, request)
        except Exception:
            # It is signed with our key but is not ours: whatever it holds, it signs nobody in.
            return self.session_class()


def services() -> Services:
    """The services of the running application."""
    found: Services = current_app.extensions["services"]
    return found


def wrong_tries() -> WrongTries:
    """The count of wrong keys of the running application."""
    found: WrongTries = current_app.extensions["wrong_tries"]
    return found


def sign_in(key: str) -> bool:
    """Begin a browser session for the owner of a key; any session before it ends.

    Raises Forbidden if another site sent the form: it could sign a person in as somebody else.
    Browsers say so since 2023: https://www.w3.org/TR/fetch-metadata/. Raises TooManyRequests.
    """
    if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
        raise Forbidden(
            "Another site has sent this form. Open the sign-in page here and try again."
        )
    begun = _tried(lambda: services().sessions.begin(key))
    if begun is None:
        return False
    sign_out()
    session[SESSION_ID] = begun
    return True


def _tried(look: Callable[[], R | None]) -> R | None:
    """Look a key up, and count it if it is wrong. Raises TooManyRequests after too many of these."""
    seconds = wrong_tries().wait(request.remote_addr)
    if seconds:
        words = f"Too many wrong keys came from your address. Try again in {seconds} s."
        raise TooManyRequests(words, retry_after=seconds)
    found = look()
    if found is None:
        wrong_tries().note(request.remote_addr)
    return found


def sign_out() -> None:
    """End the browser's session, here and in the database."""
    before = services().sessions.find(session.get(SESSION_ID))
    if before is not None:
        services().sessions.end(before.session_id)
    session.clear()


def me() -> Person:
    """The person who is signed in; only in a view that `signed_in` guards."""
    found: Person = g.person
    return found


def signed_in(view: Callable[P, R]) -> Callable[P, R | WerkzeugResponse]:
    """Open a view only to people who are signed in; forms must carry the session's token."""

    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R | WerkzeugResponse:
        g.person = services().sessions.find(session.get(SESSION_ID))
        if g.person is None:
            session.clear()
            return redirect(url_for("dashboard.sign_in_page"), 303)
        if request.method == "POST":
            given = request.form.get("csrf", "")
            if not hmac.compare_digest(given.encode("utf-8", "replace"), me().csrf.encode()):
                raise BadRequest("This form is out of date. Go back, reload the page, try again.")
        return view(*args, **kwargs)

    return guarded


def bearer_name() -> str | None:
    """The name of the key that the request carries as Bearer token; None if it is not valid.

    Raises TooManyRequests.
    """
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    return _tried(lambda: services().keys.name_of(key.strip()))


def bearer(view: Callable[P, R]) -> Callable[P, R]:
    """Open an API view only to calls with `Authorization: Bearer <key>`."""

    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        if bearer_name() is None:
            raise Unauthorized("Send a valid key as Authorization: Bearer <key>.")
        return view(*args, **kwargs)

    return guarded
