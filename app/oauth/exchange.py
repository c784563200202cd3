"""Speaks to a provider's OAuth endpoints through requests-oauthlib and tells its answers apart."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import requests
from oauthlib.oauth2 import OAuth2Error
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session

from app.domain.errors import RetryLater, Unauthorized
from config.providers import Provider
from config.settings import is_loopback

DEAD_GRANT = {"invalid_grant", "BAD_REFRESH_TOKEN", "BAD_HUB", "BAD_AUTH_CODE"}
NOT_DONE = (requests.ConnectTimeout, requests.exceptions.SSLError, requests.TooManyRedirects)
"""Failures after which the provider has certainly not done what was asked."""
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

    Raises Unauthorized where the grant is dead, SetupError where this service is refused,
    AnswerLost where the answer never came and RetryLater for everything that passes.
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
    """What the provider says of an access token (RFC 7662); empty where it does not say."""
    if not provider.introspect_url:
        return {}
    try:
        answer = _call(provider, provider.introspect_url, access_token, "access_token", timeout)
        body = answer.json() if answer.status_code == 200 else {}
    except (RetryLater, ValueError):
        return {}
    return body if isinstance(body, Mapping) and body.get("active") else {}


def seconds_left(introspection: Mapping[str, Any], now: datetime) -> int | None:
    """Seconds that an access token lives on by its introspection's `exp`; None where it has none."""
    try:
        left = int(introspection["exp"]) - int(now.timestamp())
    except (KeyError, TypeError, ValueError):
        return None
    return left if left > 0 else None


def _call(provider: Provider, url: str, token: str, hint: str, timeout: float) -> requests.Response:
    auth, fields = _credentials(provider)
    body = {"token": token, "token_type_hint": hint, **fields}
    try:
        return requests.post(url, data=body, auth=auth, timeout=timeout, allow_redirects=False)
    except requests.RequestException as error:
        raise _no_answer(provider, error) from None


def _post(provider: Provider, redirect_uri: str | None, timeout: float, **grant: str) -> Token:
    if is_loopback(provider.token_url):
        # oauthlib refuses plain http; on loopback (sandbox, tests) nothing crosses a wire.
        os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"
    session = OAuth2Session(provider.client_id, redirect_uri=redirect_uri)
    # A redirect could carry code, secret or token to another host.
    session.max_redirects = 0
    for hook in ("access_token_response", "refresh_token_response"):
        session.register_compliance_hook(hook, lambda answer: _check(provider, answer))
    auth, fields = _credentials(provider)
    arguments: dict[str, Any] = {**grant, **fields, "auth": auth, "timeout": timeout}
    try:
        if "refresh_token" in grant:
            session.refresh_token(provider.token_url, **arguments)
        else:
            secret = arguments.pop("client_secret", None)
            arguments.pop("client_id", None)
            body = {"client_secret": secret, "include_client_id": True} if secret else {}
            session.fetch_token(provider.token_url, **arguments, **body)
    except requests.RequestException as error:
        raise _no_answer(provider, error) from None
    except OAuth2Error as error:
        raise RetryLater(
            f"{provider.title}'s token answer is not usable ({error.error})."
        ) from None
    token = dict(session.token)
    if str(token.get("token_type", "bearer")).lower() != "bearer":
        # RFC 6749, 7.1: a token of an unknown type must not be used.
        raise RetryLater(f"{provider.title}'s token is of an unknown type.")
    return {**token, "scope": read_scopes(token)}


def _credentials(provider: Provider) -> tuple[HTTPBasicAuth | None, dict[str, str]]:
    if provider.client_auth == "basic":
        return HTTPBasicAuth(provider.client_id, provider.client_secret), {}
    return None, {"client_id": provider.client_id, "client_secret": provider.client_secret}


def _no_answer(provider: Provider, error: requests.RequestException) -> RetryLater:
    message = f"{provider.title} could not be reached ({type(error).__name__})."
    refused = "NewConnectionError" in repr(error.args) or "NameResolution" in repr(error.args)
    return RetryLater(message) if isinstance(error, NOT_DONE) or refused else AnswerLost(message)


def _check(provider: Provider, answer: requests.Response) -> requests.Response:
    """Sort out everything but a good answer; runs before oauthlib parses it."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    if answer.status_code == 429 or answer.status_code >= 500 or not isinstance(body, Mapping):
        raise RetryLater(
            f"{provider.title}'s token endpoint answered {answer.status_code}.",
            _retry_after(answer.headers.get("Retry-After", "")),
        )
    if answer.status_code < 400:
        return answer
    codes = {str(body.get("error", "")), str(body.get("status", ""))}
    if codes & DEAD_GRANT:
        raise Unauthorized(f"{provider.title} no longer accepts the grant ({max(codes)}).")
    raise _setup_error(provider, max(codes))


def _setup_error(provider: Provider, what: str) -> SetupError:
    name = provider.name.upper()
    return SetupError(
        f"{provider.title} refuses this service ({what[:60]}): check {name}_CLIENT_ID,"
        f" {name}_CLIENT_SECRET and the redirect address of the app."
    )


def _retry_after(value: str) -> float | None:
    if value.strip().isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (TypeError, ValueError, IndexError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def read_scopes(token: Mapping[str, Any]) -> list[str]:
    """The granted scopes, whether they came as a list, with blanks or with commas."""
    raw = token.get("scopes") or token.get("scope") or ()
    text = raw if isinstance(raw, str) else " ".join(str(item) for item in raw)
    return sorted(set(text.replace(",", " ").split()))
