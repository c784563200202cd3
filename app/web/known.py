"""Browsers in which a user has signed in before: strangers who guess do not make them wait."""

from __future__ import annotations

import secrets
from datetime import timedelta

from flask import after_this_request, current_app, request
from itsdangerous import BadData, URLSafeTimedSerializer
from werkzeug.wrappers import Response

LASTS = timedelta(days=180)
NAME = "known"


def known_as(account: str) -> str:
    """Under which name this browser's wrong passwords for an account are counted."""
    cookie = request.cookies.get(_name(), "")
    try:
        owner, number = _signer().loads(cookie, max_age=int(LASTS.total_seconds()))
    except (BadData, TypeError, ValueError):
        return account
    return f"{account} {number}" if owner == account else account


def remember(account: str) -> None:
    """Let this browser be known for an account from now on."""
    # A number of its own: another browser's wrong passwords are not counted for it.
    value = _signer().dumps([account, secrets.token_urlsafe(8)])

    @after_this_request
    def _set(response: Response) -> Response:
        response.set_cookie(
            _name(), value, max_age=LASTS, httponly=True, samesite="Lax",
            secure=bool(current_app.config["SESSION_COOKIE_SECURE"]),
        )  # fmt: skip
        return response


def _name() -> str:
    return f"__Host-{NAME}" if current_app.config["SESSION_COOKIE_SECURE"] else NAME


def _signer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(str(current_app.config["SECRET_KEY"]), salt="known browser")
