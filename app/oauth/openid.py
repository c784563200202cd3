"""Sign-in through the company's own server: OpenID Connect, code flow with PKCE.

authlib builds the request and checks the claims; every call goes out within the limits of
`app/outbound`. https://openid.net/specs/openid-connect-core-1_0.html
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from threading import Lock
from typing import Any

import requests
import structlog
import urllib3
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oidc.core import CodeIDToken
from authlib.oidc.discovery import get_well_known_url
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from app.domain.errors import CrmError
from app.outbound.addresses import read_address
from app.outbound.deadline import Call
from app.outbound.reply import MOST_TOKEN_BYTES, parse
from app.outbound.wire import bound, bounded_session

log = structlog.get_logger(__name__)
ALGORITHMS = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
)
"""Signatures with a public key; `none` and those with a shared secret are not among them."""
SCOPE = "openid email profile"
KEPT = 600.0
"""Seconds for which the server's description and keys are used without asking again."""
LEEWAY = 60
"""Seconds by which the server's clock may differ."""
NEEDED = ("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri")
FAULTS = (
    AuthlibBaseError, JoseError, CrmError, requests.RequestException, urllib3.exceptions.HTTPError,
    OSError, KeyError, TypeError, ValueError,
)  # fmt: skip
"""What a server that is away, or that answers nonsense, may raise on the way."""


class OpenIdProblem(Exception):
    """Nobody could be signed in through the company's server; the message says why."""


@dataclass(frozen=True)
class Begun:
    """A sign-in that was begun: what the browser has to bring back."""

    state: str
    nonce: str
    verifier: str

    def as_json(self) -> dict[str, str]:
        """The parts, for the browser's signed cookie."""
        return asdict(self)


class OpenId:
    """One OpenID Connect server."""

    def __init__(
        self, issuer: str, client_id: str, client_secret: str, callback: str, timeout: float
    ) -> None:
        self.issuer = issuer
        self._client_id, self._client_secret = client_id, client_secret
        self._callback, self._timeout = callback, timeout
        self._lock = Lock()
        self._known: tuple[float, Mapping[str, Any], KeySet] | None = None

    def begin(self) -> tuple[str, Begun]:
        """Return the address of the server's page, and what to keep. Raises OpenIdProblem."""
        begun = Begun(*(secrets.token_urlsafe(32) for _ in range(3)))
        try:
            about, _ = self._about()
            with self._session(about) as session:
                address, _ = session.create_authorization_url(
                    about["authorization_endpoint"], state=begun.state, nonce=begun.nonce,
                    code_verifier=begun.verifier,
                )  # fmt: skip
        except FAULTS as error:
            raise _told(
                error, "Your company's sign-in cannot be reached. Try again soon."
            ) from None
        return str(address), begun

    def finish(self, answer: Mapping[str, str], begun: Begun) -> dict[str, Any]:
        """Return the checked claims about the person. Raises OpenIdProblem."""
        if not secrets.compare_digest(answer.get("state", "").encode(), begun.state.encode()):
            raise OpenIdProblem(
                "This sign-in was begun in another browser or is over. Begin again."
            )
        try:
            about, _ = self._about()
            self._check_issuer(answer, about)
            if "error" in answer or not answer.get("code"):
                raise OpenIdProblem("Your company's sign-in did not let you in. Begin again.")
            return self._claims(about, answer["code"], begun)
        except FAULTS as error:
            words = (
                "Your company's sign-in gave an answer that cannot be trusted or read. Begin again."
            )
            raise _told(error, words) from None

    def _check_issuer(self, answer: Mapping[str, str], about: Mapping[str, Any]) -> None:
        """RFC 9207: a code of another server is never sent to this one."""
        told = answer.get("iss")
        promised = about.get("authorization_response_iss_parameter_supported") is True
        if told != self.issuer and (told is not None or promised):
            raise OpenIdProblem(
                "The answer came from another server than your company's. Begin again."
            )

    def _claims(self, about: Mapping[str, Any], code: str, begun: Begun) -> dict[str, Any]:
        with Call(self._timeout) as call, self._session(about) as session:
            token = session.fetch_token(
                about["token_endpoint"], grant_type="authorization_code", code=code,
                code_verifier=begun.verifier, allow_redirects=False,
            )  # fmt: skip
            claims = self._checked(str(token["id_token"]), token.get("access_token"), begun.nonce)
            if "email" not in claims and about.get("userinfo_endpoint"):
                claims = _more(claims, session, about["userinfo_endpoint"])
        if call.over:
            raise TimeoutError("the call took too long")
        return claims

    def _checked(self, id_token: str, access_token: object, nonce: str) -> dict[str, Any]:
        """The claims of an ID token: signature, issuer, audience, times, nonce (Core, 3.1.3.7)."""
        _, keys = self._about()
        try:
            found = jwt.decode(id_token, keys, algorithms=ALGORITHMS)
        except JoseError:
            # The server may have begun to use a new key.
            _, keys = self._about(afresh=True)
            found = jwt.decode(id_token, keys, algorithms=ALGORITHMS)
        options = {
            "iss": {"essential": True, "value": self.issuer},
            "aud": {"essential": True, "value": self._client_id},
            "sub": {"essential": True},
            "nonce": {"essential": True, "value": nonce},
        }
        params = {"nonce": nonce, "client_id": self._client_id, "access_token": access_token}
        claims = CodeIDToken(found.claims, found.header, options, params)
        claims.validate(leeway=LEEWAY)
        if not isinstance(claims["sub"], str):
            raise ValueError("sub is no text")
        return dict(claims)

    def _about(self, afresh: bool = False) -> tuple[Mapping[str, Any], KeySet]:
        """The server's description of itself, and its keys."""
        with self._lock:
            known, now = self._known, time.monotonic()
            if known is not None and not afresh and now < known[0] + KEPT:
                return known[1], known[2]
            with (
                Call(self._timeout) as call,
                bounded_session(most_bytes=MOST_TOKEN_BYTES) as session,
            ):
                about = _json(
                    session, get_well_known_url(self.issuer, external=True), self._timeout
                )
                if about.get("issuer") != self.issuer:
                    raise ValueError("the server names itself otherwise")
                _check_addresses(about)
                told: Any = _json(session, about["jwks_uri"], self._timeout)
                keys = KeySet.import_key_set(told)
            if call.over:
                raise TimeoutError("the call took too long")
            self._known = now, about, keys
            return about, keys

    def _session(self, about: Mapping[str, Any]) -> OAuth2Session:
        methods = about.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        basic = "client_secret_basic" in methods
        session = OAuth2Session(
            self._client_id, self._client_secret, scope=SCOPE, redirect_uri=self._callback,
            code_challenge_method="S256", default_timeout=self._timeout,
            token_endpoint_auth_method="client_secret_basic" if basic else "client_secret_post",
        )  # fmt: skip
        bound(session, most_bytes=MOST_TOKEN_BYTES)
        return session


def _json(session: requests.Session, address: str, timeout: float, **kwargs: Any) -> dict[str, Any]:
    answer = session.get(address, timeout=timeout, allow_redirects=False, **kwargs)
    body = parse(answer.content) if answer.status_code == 200 else None
    if not isinstance(body, dict):
        raise ValueError(f"an answer {answer.status_code} without an object")
    return body


def _more(claims: dict[str, Any], session: OAuth2Session, address: str) -> dict[str, Any]:
    """The claims with those that the server tells only when asked (Core, 5.3.2)."""
    more = _json(session, address, session.default_timeout)
    if more.get("sub") != claims["sub"]:
        raise ValueError("the server tells of another person")
    return {**more, **claims}


def _check_addresses(about: Mapping[str, Any]) -> None:
    """Raise ValueError or KeyError unless every address may be called."""
    for name in NEEDED:
        read_address(about[name].partition("?")[0])
    if about.get("userinfo_endpoint"):
        read_address(about["userinfo_endpoint"])


def _told(error: Exception, words: str) -> OpenIdProblem:
    # No text of the error: it may hold the person's claims.
    log.warning("openid_failed", kind=type(error).__name__)
    return OpenIdProblem(words)
