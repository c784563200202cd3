"""The connect flow: authorization code with state and, where the provider takes it, PKCE."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from oauthlib.oauth2 import WebApplicationClient

from app.domain.errors import CrmError
from app.oauth.exchange import SetupError, Token, exchange_code
from app.security.encryption import Cipher
from app.store.engine import Store, utcnow
from app.store.models import OAuthFlow
from config.providers import Provider

LIFETIME = timedelta(minutes=10)
"""How long a person may stay on the consent page."""
PURPOSE = "oauth_flows.verifier"


class FlowError(Exception):
    """A connect that did not end well; the message says what happened and what to do."""


@dataclass(frozen=True)
class Flow:
    """Begins and ends connects for one service."""

    store: Store
    cipher: Cipher
    public_url: str
    timeout: float

    def redirect_uri(self, provider: Provider) -> str:
        """Where the provider sends the browser back to; one address per provider (RFC 9700, 4.4)."""
        return f"{self.public_url}/oauth/{provider.name}/callback"

    def start(self, provider: Provider, session_id: str) -> str:
        """Begin a connect; give the address of the provider's consent page."""
        client = WebApplicationClient(provider.client_id)
        state = secrets.token_urlsafe(32)
        verifier = client.create_code_verifier(64) if provider.pkce else None
        extra = {}
        if verifier:
            extra = {
                "code_challenge": client.create_code_challenge(verifier, "S256"),
                "code_challenge_method": "S256",
            }
        with self.store.write() as session:
            session.add(
                OAuthFlow(
                    state_hash=_hash(state),
                    provider=provider.name,
                    session_hash=_hash(session_id),
                    verifier_box=self.cipher.encrypt(verifier, PURPOSE) if verifier else None,
                    created_at=utcnow(),
                )
            )
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

    def finish(self, provider: Provider, answer: Mapping[str, str], session_id: str) -> Token:
        """Take the provider's answer at the callback; give the tokens. Raises FlowError."""
        flow = self._spend(provider, answer.get("state", ""), session_id)
        title = provider.title
        if answer.get("error"):
            raise FlowError(
                f"{title} was not connected: access was not granted. You can try again."
            )
        if not answer.get("code"):
            raise FlowError(f"{title} sent no code. Start again from the connections page.")
        verifier = self.cipher.decrypt(flow.verifier_box, PURPOSE) if flow.verifier_box else None
        try:
            return exchange_code(
                provider, answer["code"], verifier, self.redirect_uri(provider), self.timeout
            )
        except (CrmError, SetupError) as error:
            raise FlowError(f"{title} was not connected: {error}") from None

    def _spend(self, provider: Provider, state: str, session_id: str) -> OAuthFlow:
        """Use up a state, also when it does not fit: it dies at first use (RFC 9700, 4.2)."""
        with self.store.write() as session:
            flow = session.get(OAuthFlow, _hash(state), with_for_update=True)
            used_before = flow is None or flow.used_at is not None
            if flow is not None and flow.used_at is None:
                flow.used_at = utcnow()
        if flow is None or used_before:
            raise FlowError("This connect was already used or never begun here. Start again.")
        if flow.created_at < utcnow() - LIFETIME:
            raise FlowError("The consent page was open for too long. Start again.")
        if flow.session_hash != _hash(session_id) or flow.provider != provider.name:
            raise FlowError("This connect was begun in another browser or for another CRM.")
        return flow


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
