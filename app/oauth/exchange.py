"""Calls a provider's OAuth endpoints through requests-oauthlib and sorts their answers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import requests
import urllib3
from oauthlib.oauth2 import OAuth2Error
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session

from app.domain.errors import CrmError, RetryLater, Unauthorized, Unreadable
from app.outbound.deadline import Call
from app.outbound.reply import MOST_TOKEN_BYTES, parse, seconds_asked
from app.outbound.wire import bound, bounded_session
from config.providers import Provider
from config.settings import is_loopback

DEAD_GRANT = {"invalid_grant", "BAD_REFRESH_TOKEN", "BAD_HUB", "BAD_AUTH_CODE"}
NOT_DONE = (requests.ConnectTimeout, requests.exceptions.SSLError, requests.TooManyRedirects)
"""Failures after which the provider has certainly not carried out the request."""
PASSING = (408, 421, 423, 425, 429, 477)
"""Statuses from 400 to 499 that mean nothing about a grant or about this service."""
LONGEST_LIFE = 366 * 86_400
"""The longest life of an access token in seconds; a longer one is no sensible answer."""
Token = dict[str, Any]


class SetupError(Exception):
    """The provider refuses this service itself (client id or secret), not the customer's grant."""


class AnswerLost(RetryLater):
    """A request may have been carried out although its answer never came."""


def exchange_code(
    provider: Provider, code: str, verifier: str | None, redirect_uri: str, timeout: float
) -> Token:
    """Trade a code for tokens. Raises Unauthorized, SetupError or RetryLater."""
    extra = {"code_verifier": verifier} if verifier else {}
    return _post(provider, redirect_uri, timeout, code=code, **extra)


def refresh(provider: Provider, refresh_token: str, timeout: float) -> Token:
    """Trade a refresh token for a new access token.

    Raises Unauthorized if the grant is dead, SetupError if the provider refuses this service,
    AnswerLost if the answer never came and RetryLater for every temporary failure.
    """
    return _post(provider, None, timeout, refresh_token=refresh_token)


def revoke(provider: Provider, token: str, timeout: float) -> None:
    """Tell the provider that a refresh token is no longer used (RFC 7009).

    An unknown token is a success there. Raises RetryLater or SetupError.
    """
    answer = _call(provider, provider.revoke_url, token, "refresh_token", timeout)
    if answer.status_code in (400, 401, 403):
        raise _setup_error(provider, f"answer {answer.status_code} to a revocation")
    if answer.status_code >= 300:
        raise RetryLater(f"{provider.title} answered {answer.status_code} to the revocation.")


def introspect(provider: Provider, access_token: str, timeout: float) -> Mapping[str, Any]:
    """What the provider says about an access token (RFC 7662); empty if it says nothing."""
    if not provider.introspect_url:
        return {}
    try:
        answer = _call(provider, provider.introspect_url, access_token, "access_token", timeout)
        body = parse(answer.content) if answer.status_code == 200 else {}
    except RetryLater:
        return {}
    return body if isinstance(body, Mapping) and body.get("active") else {}


def seconds_left(introspection: Mapping[str, Any], now: datetime) -> int | None:
    """Seconds until an access token expires, by its introspection's `exp`; None without one."""
    try:
        left = int(introspection["exp"]) - int(now.timestamp())
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return left if 0 < left < LONGEST_LIFE else None


def _call(provider: Provider, url: str, token: str, hint: str, timeout: float) -> requests.Response:
    auth, fields = _credentials(provider)
    body = {"token": token, "token_type_hint": hint, **fields}
    with Call(timeout) as call, bounded_session(most_bytes=MOST_TOKEN_BYTES) as session:
        try:
            answer = session.post(url, data=body, auth=auth, timeout=timeout, allow_redirects=False)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise _no_answer(provider, error) from None
    if call.over:
        # The part that came until then looks like an answer.
        raise AnswerLost(f"{provider.title} did not answer within {timeout:.0f} seconds.")
    return answer


def _post(provider: Provider, redirect_uri: str | None, timeout: float, **grant: str) -> Token:
    if is_loopback(provider.token_url):
        # oauthlib refuses plain http; on loopback (sandbox, tests) nothing crosses a wire.
        os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"
    session = OAuth2Session(provider.client_id, redirect_uri=redirect_uri)
    bound(session, most_bytes=MOST_TOKEN_BYTES)
    # A redirect could carry code, secret or token to another host.
    session.max_redirects = 0
    for hook in ("access_token_response", "refresh_token_response"):
        session.register_compliance_hook(hook, lambda answer: _check(provider, answer))
    auth, fields = _credentials(provider)
    arguments: dict[str, Any] = {**grant, **fields, "auth": auth, "timeout": timeout}
    secret = fields.get("client_secret")
    if "code" in grant:
        arguments.pop("client_secret", None)
        arguments.pop("client_id", None)
        if secret:
            arguments |= {"client_secret": secret, "include_client_id": True}
    trade = session.refresh_token if "refresh_token" in grant else session.fetch_token
    try:
        with Call(timeout) as call:
            trade(provider.token_url, **arguments)
    except (CrmError, SetupError):
        raise
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise _no_answer(provider, error) from None
    except OAuth2Error as error:
        raise AnswerLost(
            f"{provider.title}'s token answer is not usable ({error.error})."
        ) from None
    except Exception as error:
        # The provider has answered: the new tokens may have replaced the stored ones.
        raise AnswerLost(
            f"{provider.title}'s token answer is not readable ({type(error).__name__})."
        ) from None
    if call.over:
        raise AnswerLost(f"{provider.title} did not answer within {timeout:.0f} seconds.")
    token = dict(session.token)
    if str(token.get("token_type", "bearer")).lower() != "bearer":
        # RFC 6749, 7.1: a token of an unknown type must not be used.
        raise RetryLater(f"{provider.title}'s token is of an unknown type.")
    return {**token, "scope": read_scopes(token)}


def _credentials(provider: Provider) -> tuple[HTTPBasicAuth | None, dict[str, str]]:
    if provider.client_auth == "basic":
        return HTTPBasicAuth(provider.client_id, provider.client_secret), {}
    return None, {"client_id": provider.client_id, "client_secret": provider.client_secret}


def _no_answer(provider: Provider, error: Exception) -> RetryLater:
    message = f"{provider.title} could not be reached ({type(error).__name__})."
    refused = "NewConnectionError" in repr(error.args) or "NameResolution" in repr(error.args)
    return RetryLater(message) if isinstance(error, NOT_DONE) or refused else AnswerLost(message)


def _check(provider: Provider, answer: requests.Response) -> requests.Response:
    """Raise the error for any answer that is not good; runs before oauthlib parses it."""
    status = answer.status_code
    try:
        body = parse(answer.content)
    except Unreadable:
        body = None
    moved = 300 <= status < 400
    if status in PASSING or moved or not 200 <= status < 500 or not isinstance(body, Mapping):
        words = f"{provider.title}'s token endpoint answered {status}."
        after = seconds_asked(answer.headers.get("Retry-After"))
        # A provider that answers 200 with something else may have carried out the request anyway.
        raise AnswerLost(words, after) if 200 <= status < 300 else RetryLater(words, after)
    if status < 300:
        answer._content = json.dumps(_usable(provider, body)).encode()
        return answer
    codes = {str(body.get("error", "")), str(body.get("status", ""))} - {""}
    words = clean_words(body.get("error_description") or body.get("message"))
    reason = ": ".join(part for part in (max(codes, default=str(status))[:60], words) if part)
    if codes & DEAD_GRANT:
        raise Unauthorized(
            f"{provider.title} no longer accepts the grant ({reason}).{_mend(words)}"
        )
    raise _setup_error(provider, reason)


def _usable(provider: Provider, body: Mapping[str, Any]) -> Token:
    """A token answer in the shape of RFC 6749, 5.1, without any values that do not fit it."""
    token = body.get("access_token")
    if not isinstance(token, str) or not token or not token.isascii():
        raise AnswerLost(f"{provider.title}'s token answer has no access token.")
    told = dict(body)
    lifetime = told.pop("expires_in", None)
    good = isinstance(lifetime, (int, float, str)) and not isinstance(lifetime, bool)
    try:
        seconds = int(float(lifetime)) if good and lifetime is not None else 0
    except (ValueError, OverflowError):
        seconds = 0
    if 0 < seconds < LONGEST_LIFE:
        told["expires_in"] = seconds
    told.pop("expires_at", None)
    refresh_token = told.get("refresh_token")
    if not isinstance(refresh_token, str) or not refresh_token:
        told.pop("refresh_token", None)
    if not isinstance(told.get("scope"), str):
        # Some providers send a list; read_scopes reads it.
        told["scopes"] = told.pop("scope", None) or told.get("scopes")
    return told


def _mend(words: str) -> str:
    """What to do about a grant that died for a reason that the provider names."""
    plain = words.lower()
    if "inactive user" in plain:
        return " The user who connected it is inactive: activate that user, or connect as another."
    if "inactive org" in plain:
        return " The org itself is inactive: it has to be reactivated first."
    if "expired access/refresh token" in plain:
        return (
            " Salesforce keeps five grants per user and app: each further connect ends the oldest."
        )
    return ""


def clean_words(text: object) -> str:
    """A provider's own words, as one short line of plain characters."""
    words = " ".join(str(text or "")[:2000].split())
    words = "".join(char for char in words if char.isprintable() and char not in "<>")
    return words[:200]


def _setup_error(provider: Provider, what: str) -> SetupError:
    name = provider.name.upper()
    return SetupError(
        f"{provider.title} refuses this service ({what[:280]}): check {name}_CLIENT_ID,"
        f" {name}_CLIENT_SECRET and the redirect address of the app."
    )


def read_scopes(token: Mapping[str, Any]) -> list[str]:
    """The granted scopes, in whichever form they came: a list, with blanks or with commas."""
    raw = token.get("scopes") or token.get("scope") or ()
    some = raw if isinstance(raw, (list, tuple)) else ()
    text = raw if isinstance(raw, str) else " ".join(str(item) for item in some)
    return sorted(set(text.replace(",", " ").split()))
