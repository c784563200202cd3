"""Who may sign in through the company's own server, and with which role."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.domain.people import normalise_email
from app.domain.roles import Role
from app.domain.text import one_line
from app.oauth.openid import Begun, OpenId
from app.services.users import Identity, UserProblem, Users
from config.settings import Settings, split_list

CALLBACK = "/sign-in/oidc/callback"


class CompanySignIn:
    """The sign-in through one OpenID Connect server."""

    def __init__(self, settings: Settings, users: Users) -> None:
        self._settings, self._users = settings, users
        self._server = OpenId(
            settings.oidc_issuer, settings.oidc_client_id, settings.oidc_client_secret,
            settings.public_url + CALLBACK, settings.oauth_timeout,
        )  # fmt: skip
        self._domains = {domain.lower() for domain in split_list(settings.oidc_domains)}

    def begin(self) -> tuple[str, Begun]:
        """Return the address of the server's page, and what to keep. Raises OpenIdProblem."""
        return self._server.begin()

    def finish(self, answer: Mapping[str, str], begun: Begun) -> int:
        """Return the number of the user who has signed in. Raises OpenIdProblem and UserProblem."""
        claims = self._server.finish(answer, begun)
        return self._users.identify(self._identity(claims))

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        verified = claims.get("email_verified") in (True, "true")
        email = normalise_email(claims.get("email")) if verified else None
        return Identity(
            issuer=self._settings.oidc_issuer,
            subject=str(claims["sub"]),
            email=email,
            name=one_line(claims.get("name")) or "",
            role=self._role(claims),
            may_be_new=bool(email) and str(email).rpartition("@")[2] in self._domains,
            sets_role=bool(self._settings.oidc_role_claim),
        )

    def _role(self, claims: Mapping[str, Any]) -> Role:
        """The greatest role that the claim names, else the usual one. Raises UserProblem."""
        named = named_in(claims, self._settings.oidc_role_claim)
        for role in Role:
            if role in named:
                return role
        if self._settings.oidc_default_role == "none":
            raise UserProblem(
                "Your company's sign-in gives you no role here. Ask an admin for one."
            )
        return self._settings.oidc_default_role


def named_in(claims: Mapping[str, Any], name: str) -> list[str]:
    """The texts in a claim: one, or a list; `a.b` is also the part b of the claim a."""
    found: Any = claims.get(name) if name else None
    if found is None and name:
        found = claims
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
    values = found if isinstance(found, list) else [found]
    return [value for value in values if isinstance(value, str)]
