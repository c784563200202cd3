"""Loads the OAuth providers (providers.yaml) and lays the environment's overrides over them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML

from config.settings import SettingsError, is_loopback, require_https


class Provider(BaseModel):
    """One CRM as data: where its OAuth endpoints are and how they want to be spoken to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    adapter: str
    """`module:Class` of the adapter."""
    authorize_url: str
    token_url: str
    revoke_url: str
    api_base: str
    api_base_from: str | None = None
    """Key of the token answer that names the host to call (api_domain, instance_url)."""
    api_hosts: tuple[str, ...] = ()
    """Domain suffixes that such a host may have (RFC 9700, 4.4)."""
    client_auth: Literal["body", "basic"] = "body"
    pkce: bool = False
    scopes: dict[str, str] = Field(default_factory=dict)
    """Scope -> why it is needed."""
    scopes_in_request: bool = True
    optional_scopes: dict[str, str] = Field(default_factory=dict)
    default_lifetime: int = 1800
    """Seconds an access token is taken to live where the answer does not say."""
    docs: str = ""
    client_id: str = ""
    client_secret: str = Field(default="", repr=False)

    @property
    def configured(self) -> bool:
        """Whether client id and secret are set."""
        return bool(self.client_id and self.client_secret)

    def api_base_for(self, token_answer: Mapping[str, Any]) -> str:
        """The API host for a connection: from the token answer, only if it is the provider's own.

        Raises ValueError for a foreign host. An `api_base` that points at loopback (tests, proxies)
        wins, so that nothing leaves the machine.
        """
        named = str(token_answer.get(self.api_base_from or "") or "")
        if not named or is_loopback(self.api_base):
            return self.api_base
        parts = urlsplit(named)
        host = parts.hostname or ""
        known = any(host == suffix or host.endswith("." + suffix) for suffix in self.api_hosts)
        if parts.scheme != "https" or not known:
            raise ValueError(f"{self.title} named a host that is not its own")
        return named.rstrip("/")


Providers = dict[str, Provider]
OVERRIDES = ("client_id", "client_secret", "authorize_url", "token_url", "revoke_url", "api_base")


def load_providers(path: Path, environ: Mapping[str, str]) -> Providers:
    """Read providers.yaml; `<PROVIDER>_CLIENT_ID` and the like override. Raises SettingsError."""
    raw = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    providers = {}
    for name, entry in raw.items():
        values = dict(entry, name=name)
        for key in OVERRIDES:
            override = environ.get(f"{name}_{key}".upper(), "")
            if override:
                values[key] = override.rstrip("/") if key == "api_base" else override
        try:
            provider = Provider(**values)
            for key in OVERRIDES[2:]:
                require_https(getattr(provider, key), f"{name}_{key}".upper())
        except (ValidationError, ValueError) as error:
            raise SettingsError(f"{path.name}: {name}: {error}") from None
        providers[name] = provider
    return providers
