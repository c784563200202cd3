"""The connect flow: authorization code with state and, if the provider supports it, PKCE."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from oauthlib.oauth2 import WebApplicationClient
from sqlalchemy import delete

from app.domain.errors import RetryLater, Unauthorized
from app.oauth.exchange import SetupError, Token, clean_words, exchange_code
from app.security.encryption import Cipher
from app.store.access_models import OAuthFlow
from app.store.boxes import seal, unseal
from app.store.engine import Store, utcnow
from config.providers import Provider

LIFETIME = timedelta(minutes=10)
"""How long a person may stay on the consent page."""
KEPT = timedelta(days=1)
"""How long a begun connect is stored, so that a late answer gets an explanation."""


REFUSALS = {
    # RFC 6749, 4.1.2.1, and further codes that the CRMs send
    "access_denied": "access was not granted on the consent page. You can try again.",
    "user_denied": "access was not granted on the consent page. You can try again.",
    "server_error": "its consent page failed. Try again in a few minutes.",
    "temporarily_unavailable": "it is overloaded at the moment. Try again in a few minutes.",
    "invalid_scope": (
        "it does not know or allow one of the scopes. Compare the app's scopes at the CRM with"
        " config/providers.yaml, then try again."
    ),
    "unauthorized_client": (
        "it does not let this app connect. Check the app's settings at the CRM; in Salesforce an"
        " administrator may have to approve it."
    ),
    "invalid_client": (
        "it does not know this app. Compare the client id and secret with those of the app at the"
        " CRM."
    ),
    "invalid_client_id": "it does not know this app's client id. Compare it with the app's at the CRM.",
    "invalid_request": (
        "it does not accept the request. Compare the redirect address of the app at the CRM with"
        " PUBLIC_URL/oauth/<crm>/callback."
    ),
    "redirect_uri_mismatch": (
        "the redirect address of the app at the CRM is not PUBLIC_URL/oauth/<crm>/callback."
    ),
    "oauth_ec_app_not_found": (
        "this app is not installed in the org. An administrator has to install or approve it under"
        " Connected Apps OAuth Usage, or External Client Apps."
    ),
    "app_not_installed": (
        "this app is not installed in the account. An administrator has to install it first."
    ),
    "oauth_approval_error_generic": (
        "it could not approve the app. An administrator may have to approve it for this user."
    ),
    "inactive_user": "the user who signed in is inactive there. Sign in as an active user.",
    "inactive_org": "the org is inactive there. It has to be reactivated first.",
    "org_locked": "the org is locked there. Its administrator can unlock it.",
    "login_required": "nobody is signed in there. Sign in at the CRM, then try again.",
    "consent_required": "the consent page has to be confirmed. Try again and press Allow.",
    "interaction_required": "the consent page has to be confirmed. Try again and press Allow.",
    "unsupported_response_type": "its app settings do not allow this kind of connect.",
    "oauth_app_blocked": "an administrator has blocked this app there. Ask them to unblock it.",
}


class FlowError(Exception):
    """A connect that failed; the message says what happened and what to do."""


@dataclass(frozen=True)
class ConnectRequest:
    """A person's choices for a connect."""

    connection_id: int | None = None
    """The connection to repair; None connects any account that the person chooses."""
    other_account: bool = False
    """Whether the connection may move to another account."""
    login_host: str | None = None
    next_path: str | None = None
    """The path of this service to which the browser goes afterwards."""


@dataclass(frozen=True)
class Flow:
    """Begins and finishes connects for one service."""

    store: Store
    cipher: Cipher
    public_url: str
    timeout: float

    def redirect_uri(self, provider: Provider) -> str:
        """The address to which the provider sends the browser back; one per provider (RFC 9700, 4.4)."""
        return f"{self.public_url}/oauth/{provider.name}/callback"

    def start(
        self, provider: Provider, session_id: str, wish: ConnectRequest = ConnectRequest()
    ) -> str:
        """Begin a connect; return the address of the provider's consent page.

        Raises ValueError for a login host that is not the provider's.
        """
        provider = provider.at(wish.login_host)
        client = WebApplicationClient(provider.client_id)
        state = secrets.token_urlsafe(32)
        verifier = client.create_code_verifier(64) if provider.pkce else None
        extra = dict(provider.authorize_params)
        if verifier:
            extra |= {
                "code_challenge": client.create_code_challenge(verifier, "S256"),
                "code_challenge_method": "S256",
            }
        with self.store.write() as session:
            session.execute(delete(OAuthFlow).where(OAuthFlow.created_at < utcnow() - KEPT))
            flow = OAuthFlow(
                state_hash=_hash(state),
                provider=provider.name,
                session_hash=_hash(session_id),
                connection_id=wish.connection_id,
                other_account=wish.other_account,
                login_host=wish.login_host,
                next_path=own_path(wish.next_path),
                created_at=utcnow(),
            )
            if verifier:
                column = OAuthFlow.verifier_encrypted
                flow.verifier_encrypted = seal(self.cipher, column, flow, verifier)
            session.add(flow)
        scope = list(provider.scopes) if provider.scopes_in_request else None
        if provider.optional_scopes:
            extra["optional_scope"] = " ".join(provider.optional_scopes)
        query = client.prepare_request_uri(
            # oauthlib refuses plain http; providers.py lets it through on loopback only.
            re.sub(r"^http:", "https:", provider.authorize_url),
            self.redirect_uri(provider),
            scope,
            state,
            **extra,
        ).partition("?")[2]
        return f"{provider.authorize_url}?{query}"

    def finish(
        self, provider: Provider, answer: Mapping[str, str], session_id: str
    ) -> tuple[Token, ConnectRequest]:
        """Read the provider's answer at the callback; return the tokens and their request.

        Raises FlowError, with a message for the person at the browser.
        """
        flow = self._spend(provider, answer.get("state", ""), session_id)
        title = provider.title
        if answer.get("iss") and not provider.at(flow.login_host).owns_issuer(answer["iss"]):
            # RFC 9207: the answer comes from another server and was mixed into this connect.
            raise FlowError(f"{title} was not connected: the answer came from another server.")
        if answer.get("error"):
            code = answer["error"].lower()
            words = REFUSALS.get(code, f"it answered {clean_words(code)[:40]!r}. Start again.")
            said = clean_words(answer.get("error_description"))
            said = f" {title} says: {said}" if said else ""
            raise FlowError(f"{title} was not connected: {words}{said}")
        if not answer.get("code"):
            raise FlowError(f"{title} sent no code. Start again from the first page.")
        verifier = (
            unseal(self.cipher, OAuthFlow.verifier_encrypted, flow)
            if flow.verifier_encrypted
            else None
        )
        try:
            token = exchange_code(
                provider.at(flow.login_host),
                answer["code"],
                verifier,
                self.redirect_uri(provider),
                self.timeout,
            )
        except Unauthorized as error:
            raise FlowError(
                f"{title} was not connected: its code was used already or is too old. Start again."
                f" {error.message}"
            ) from None
        except RetryLater as error:
            raise FlowError(
                f"{title} was not connected: {error.message} Try again in a few minutes."
            ) from None
        except SetupError as error:
            raise FlowError(f"{title} was not connected: {error}") from None
        wish = ConnectRequest(
            flow.connection_id, flow.other_account, flow.login_host, flow.next_path
        )
        return token, wish

    def _spend(self, provider: Provider, state: str, session_id: str) -> OAuthFlow:
        """Use up a state, even if it does not fit: each is valid only once (RFC 9700, 4.2)."""
        with self.store.write() as session:
            flow = session.get(OAuthFlow, _hash(state), with_for_update=True)
            used_before = flow is None or flow.used_at is not None
            if flow is not None and flow.used_at is None:
                flow.used_at = utcnow()
        if flow is None or used_before:
            raise FlowError(
                "This connect was finished already, or did not start here. If the CRM is active on the"
                " first page, there is nothing to do; otherwise start again."
            )
        if flow.created_at < utcnow() - LIFETIME:
            raise FlowError("The consent page was open for too long. Start again.")
        if flow.session_hash != _hash(session_id) or flow.provider != provider.name:
            raise FlowError(
                "This connect was started in another browser or for another CRM. Start again."
            )
        return flow


def own_path(path: str | None) -> str | None:
    """Return a path of this service, or None if it could lead elsewhere (RFC 9700, 4.11)."""
    if not path or len(path) > 300 or not re.fullmatch(r"/(?![/\\])[\w/?=&.%~-]*", path):
        return None
    return path


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
