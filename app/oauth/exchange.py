"""Speaks to a provider's token endpoint through requests-oauthlib and tells its answers apart."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import requests
from oauthlib.oauth2 import OAuth2Error
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session

from app.domain.errors import RetryLater, Unauthorized
from config.providers import Provider
from config.settings import is_loopback

DEAD_GRANT = {"invalid_grant", "BAD_REFRESH_TOKEN", "BAD_HUB", "BAD_AUTH_CODE"}
Token = dict[str, Any]


class SetupError(Exception):
    """The provider refuses this service itself (client id or secret), not the customer's grant."""


def exchange_code(
    provider: Provider, code: str, verifier: str | None, redirect_uri: str, timeout: float
) -> Token:
    """Trade a code for tokens. Raises Unauthorized, SetupError or RetryLater."""
    extra = {"code_verifier": verifier} if verifier else {}
    return _post(provider, redirect_uri, timeout, code=code, **extra)


def refresh(provider: Provider, refresh_token: str, timeout: float) -> Token:
    """Trade a refresh token for a new access token. Raises Unauthorized where the grant is dead."""
    return _post(provider, None, timeout, refresh_token=refresh_token)


def revoke(provider: Provider, token: str, timeout: float) -> None:
    """Tell the provider that a refresh token is no longer used (RFC 7009). Raises RetryLater."""
    body = {"token": token, "token_type_hint": "refresh_token"}
    auth, fields = _credentials(provider)
    try:
        answer = requests.post(
            provider.revoke_url,
            data={**body, **fields},
            auth=auth,
            timeout=timeout,
            allow_redirects=False,
        )
    except requests.RequestException as error:
        raise RetryLater(
            f"{provider.title} could not be reached ({type(error).__name__})."
        ) from None
    if answer.status_code >= 400:
        raise RetryLater(f"{provider.title} answered {answer.status_code} to the revocation.")


def _post(provider: Provider, redirect_uri: str | None, timeout: float, **grant: str) -> Token:
    if is_loopback(provider.token_url):
        # oauthlib refuses plain http; on loopback (sandbox, tests) nothing crosses a wire.
        os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"
    session = OAuth2Session(provider.client_id, redirect_uri=redirect_uri)
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
        raise RetryLater(
            f"{provider.title} could not be reached ({type(error).__name__})."
        ) from None
    except OAuth2Error as error:
        raise RetryLater(
            f"{provider.title}'s token answer is not usable ({error.error})."
        ) from None
    return {**session.token, "scope": read_scopes(session.token)}


def _credentials(provider: Provider) -> tuple[HTTPBasicAuth | None, dict[str, str]]:
    if provider.client_auth == "basic":
        return HTTPBasicAuth(provider.client_id, provider.client_secret), {}
    return None, {"client_id": provider.client_id, "client_secret": provider.client_secret}


def _check(provider: Provider, answer: requests.Response) -> requests.Response:
    """Sort out everything but a good answer; runs before oauthlib parses it."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    if answer.status_code == 429 or answer.status_code >= 500 or not isinstance(body, Mapping):
        raise RetryLater(f"{provider.title}'s token endpoint answered {answer.status_code}.")
    if answer.status_code < 400:
        return answer
    codes = {str(body.get("error", "")), str(body.get("status", ""))}
    if codes & DEAD_GRANT:
        raise Unauthorized(f"{provider.title} no longer accepts the grant ({max(codes)}).")
    raise SetupError(
        f"{provider.title} refuses this service ({max(codes)}): check"
        f" {provider.name.upper()}_CLIENT_ID, {provider.name.upper()}_CLIENT_SECRET"
        " and the redirect address of the app."
    )


def read_scopes(token: Mapping[str, Any]) -> list[str]:
    """The granted scopes, whether they came as a list, with blanks or with commas."""
    raw = token.get("scopes") or token.get("scope") or ()
    text = raw if isinstance(raw, str) else " ".join(str(item) for item in raw)
    return sorted(set(text.replace(",", " ").split()))
