"""Who may see and do what: people sign in, scripts send a key as Bearer token; each has a role.

Every page and every call of the API is behind `needs` or `bearer`, which name its permission.
"""

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
from app.domain.roles import Permission, Role, may
from app.services.sessions import Person, Way
from app.web.known import known_as, remember
from app.web.local import is_demo
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
    """The count of wrong keys and passwords by address, of the running application."""
    found: WrongTries = current_app.extensions["wrong_tries"]
    return found


def account_tries() -> WrongTries:
    """The count of wrong passwords by account, of the running application."""
    found: WrongTries = current_app.extensions["account_tries"]
    return found


def sign_in(key: str) -> bool:
    """Begin a browser session for the owner of a key; any session before it ends.

    Raises Forbidden if another site sent the form, and TooManyRequests.
    """
    refuse_other_sites()
    begun = _tried(lambda: services().sessions.begin(key))
    return begin_session(begun)


def sign_in_with_password(email: str, password: str) -> bool:
    """Begin a browser session for a user; any session before it ends.

    Raises Forbidden if another site sent the form, TooManyRequests, and BusyHashing.
    """
    refuse_other_sites()
    account = services().users.account(email)
    user_id = tried_password(account, lambda: services().users.check_password(email, password))
    if user_id is None or not begin_session(services().sessions.begin_for(user_id, Way.PASSWORD)):
        return False
    remember(account)
    return True


def refuse_other_sites() -> None:
    """Raise Forbidden if another site sent the form: it could sign a person in as somebody else.

    Browsers say so since 2023: https://www.w3.org/TR/fetch-metadata/.
    """
    if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
        raise Forbidden(
            "Another site has sent this form. Open the sign-in page here and try again."
        )


def begin_session(begun: str | None) -> bool:
    """Give the browser a session that has begun, and end the one before; False if there is none."""
    if begun is None:
        return False
    sign_out()
    session[SESSION_ID] = begun
    return True


def tried_password(account: str, look: Callable[[], R | None]) -> R | None:
    """Check a password, and count it as wrong until it has proved right. Raises TooManyRequests.

    Strangers who guess at an account from many addresses wait for one another; a browser in which
    its owner has signed in before does not wait for them (OWASP's device cookies).
    """
    place = known_as(account)
    seconds = max(wrong_tries().wait(request.remote_addr), account_tries().wait(place))
    if seconds:
        words = f"Too many wrong passwords were tried. Try again in {seconds} s."
        raise TooManyRequests(words, retry_after=seconds)
    # Counted before the look, which takes long: many tries at once are many tries.
    wrong_tries().note(request.remote_addr)
    account_tries().note(place)
    found = look()
    if found is not None:
        wrong_tries().take_back(request.remote_addr)
        account_tries().take_back(place)
    return found


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
    """The person who is signed in; only in a view that `needs` guards."""
    found: Person = g.person
    return found


def i_may(permission: str) -> bool:
    """Whether the person who is signed in may do an act; False if nobody is."""
    person: Person | None = g.get("person")
    return person is not None and may(person.role, Permission(permission))


def needs(permission: Permission) -> Callable[[Callable[P, R]], Callable[P, R | WerkzeugResponse]]:
    """Open a view to people who are signed in with a role that may; forms carry the session's token."""

    def decorate(view: Callable[P, R]) -> Callable[P, R | WerkzeugResponse]:
        @wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R | WerkzeugResponse:
            g.person = _found_person()
            if g.person is None:
                session.pop(SESSION_ID, None)
                return redirect(url_for("dashboard.sign_in_page"), 303)
            if request.method == "POST":
                _check_csrf()
            if me().must_choose and permission is not Permission.OWN_ACCOUNT:
                return redirect(url_for("account.show"), 303)
            _refuse_role(me().role, permission)
            return view(*args, **kwargs)

        guarded.permission = permission  # type: ignore[attr-defined]
        return guarded

    return decorate


def _found_person() -> Person | None:
    person = services().sessions.find(session.get(SESSION_ID))
    if person is not None and person.way is Way.DEMO and not _demo_is_open():
        person = None
    if person is None and request.method == "GET" and _demo_is_open():
        session[SESSION_ID] = begun = services().sessions.begin_demo()
        person = services().sessions.find(begun)
    return person


def _demo_is_open() -> bool:
    return services().settings.demo_sign_in and is_demo(request)


def _check_csrf() -> None:
    given = request.form.get("csrf", "")
    if not hmac.compare_digest(given.encode("utf-8", "replace"), me().csrf.encode()):
        raise BadRequest("This form is out of date. Go back, reload the page, try again.")


def _refuse_role(role: Role, permission: Permission) -> None:
    if not may(role, permission):
        raise Forbidden(
            f"Your role, {role}, does not allow this. An admin can give you another one."
        )


def bearer_role() -> Role | None:
    """The role of the key that the request carries as Bearer token; None if it is not valid.

    Raises TooManyRequests.
    """
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    return _tried(lambda: services().keys.role(key.strip()))


def bearer(permission: Permission) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Open an API view to calls with `Authorization: Bearer <key>` whose key has a role that may."""

    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        @wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            role = bearer_role()
            if role is None:
                raise Unauthorized("Send a valid key as Authorization: Bearer <key>.")
            if not may(role, permission):
                raise Forbidden(f"The role of this key, {role}, does not allow this.")
            return view(*args, **kwargs)

        guarded.permission = permission  # type: ignore[attr-defined]
        return guarded

    return decorate
