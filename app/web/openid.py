"""Signing in through the company's own server: the way there and back."""

from __future__ import annotations

import time
from typing import Any

from flask import Blueprint, redirect, render_template, request, session, url_for
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as WerkzeugResponse

from app.oauth.openid import Begun, OpenIdProblem
from app.services.company_sign_in import CALLBACK, CompanySignIn
from app.services.sessions import Way
from app.services.users import UserProblem
from app.web.access import begin_session, services

blueprint = Blueprint("openid", __name__)
Answer = WerkzeugResponse | tuple[str, int]
BEGUN = "openid"
"""The part of the browser's signed cookie that holds what was begun."""
LASTS = 600
"""Seconds within which a person has to come back."""


@blueprint.get("/sign-in/oidc")
def start() -> Answer:
    """Send the browser to the company's server."""
    try:
        address, begun = _company().begin()
    except OpenIdProblem as error:
        return _problem(error, 503)
    session[BEGUN] = {**begun.as_json(), "at": int(time.time())}
    return redirect(address, 303)


@blueprint.get(CALLBACK)
def callback() -> Answer:
    """Take the browser back from there, and begin a session."""
    company, begun = _company(), _begun(session.pop(BEGUN, None))
    try:
        if begun is None:
            raise OpenIdProblem(
                "This sign-in was begun in another browser or is over. Begin again."
            )
        user_id = company.finish(request.args.to_dict(), begun)
        if not begin_session(services().sessions.begin_for(user_id, Way.OIDC)):
            raise UserProblem("Your user is disabled here. An admin can enable it.")
    except (OpenIdProblem, UserProblem) as error:
        return _problem(error, 403 if isinstance(error, UserProblem) else 400)
    return redirect(url_for("dashboard.index"), 303)


def _company() -> CompanySignIn:
    company = services().company
    if company is None:
        raise NotFound(
            "People do not sign in through a company's server here: OIDC_ISSUER is not set."
        )
    return company


def _begun(kept: Any) -> Begun | None:
    """What the cookie holds of a sign-in that was begun lately; None for anything else."""
    try:
        begun = Begun(str(kept["state"]), str(kept["nonce"]), str(kept["verifier"]))
        return begun if 0 <= time.time() - kept["at"] < LASTS else None
    except (KeyError, TypeError):
        return None


def _problem(error: Exception, status: int) -> tuple[str, int]:
    return render_template("sign_in.html", problem=str(error), oidc=True), status
