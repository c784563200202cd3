"""Loads the OAuth providers (providers.yaml) and applies the environment's overrides."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from app.outbound.addresses import HOST_NAME, host_of
from config.settings import SettingsError, is_loopback, require_https


class KeyLogin(BaseModel):
    """A login by a key that somebody created in the CRM, in place of OAuth."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    """The CRM's name for the key."""
    where: str
    """The place in the CRM where a person creates a key."""
    header: str = "Authorization"
    prefix: str = "Bearer "


class Provider(BaseModel):
    """One CRM as data: its OAuth endpoints and how to call them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    adapter: str
    """`module:Class` of the adapter."""
    authorize_url: str
    token_url: str
    revoke_url: str = ""
    """Empty: the provider has no revocation (RFC 7009)."""
    introspect_url: str = ""
    """Empty: the provider has no introspection (RFC 7662)."""
    api_base: str
    api_base_from: str | None = None
    """Key of the token answer that gives the host to call (api_domain, instance_url)."""
    web_base: str = ""
    """Root of the CRM's pages for people, if the links to records lead to another host than the
    account's usual one: a region's host, a domain of your own, a sandbox."""
    api_hosts: tuple[str, ...] = ()
    """Domain suffixes that are allowed for such a host and for an `iss` (RFC 9207, RFC 9700 4.4)."""
    issuer_hosts: tuple[str, ...] = ()
    """Domain suffixes for an `iss` only, if customers have hosts of their own under the others."""
    account_name_from: str = ""
    """Key of the introspection answer with the account's name for people."""
    client_auth: Literal["body", "basic"] = "body"
    pkce: bool = False
    authorize_params: dict[str, str] = Field(default_factory=dict)
    """Parameters of the authorization request besides the standard ones."""
    scopes: dict[str, str] = Field(default_factory=dict)
    """Scope -> the reason why it is needed."""
    scopes_in_request: bool = True
    optional_scopes: dict[str, str] = Field(default_factory=dict)
    """Scope -> the feature that needs it; requested as `optional_scope`."""
    lead_scopes: dict[str, str] = Field(default_factory=dict)
    """Scope -> the reason why it is needed if a mapping file creates leads instead of deals."""
    scope_implies: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Scope -> other scopes that it includes."""
    default_lifetime: int = 1800
    """Lifetime of an access token in seconds, if neither token answer nor introspection gives it."""
    tokens_last: bool = False
    """Whether access tokens never expire, so that there is no refresh token: they live until a
    person revokes them."""
    rotates: bool = False
    """Whether each refresh ends the refresh token that it used."""
    login_hosts: dict[str, str] = Field(default_factory=dict)
    """Host -> its name for people, if there are several; the first is the host of the URLs above."""
    login_host_suffix: str = ""
    """Domain under which a customer may have an own login host."""
    key: KeyLogin | None = None
    apps_where: str = ""
    """The place where the provider lists connected apps, in words."""
    apps_url: str = ""
    docs: str = ""
    client_id: str = ""
    client_secret: str = Field(default="", repr=False)

    @property
    def configured(self) -> bool:
        """Whether client id and secret are set."""
        return bool(self.client_id and self.client_secret)

    def api_base_for(self, token_answer: Mapping[str, Any]) -> str:
        """Return the API host for a connection: from the token answer, but only if it is the provider's.

        Raises ValueError for a foreign host. An `api_base` on loopback (tests, proxies) wins, so
        that no data leaves the machine.
        """
        named = str(token_answer.get(self.api_base_from or "") or "")
        if is_loopback(self.api_base):
            local = re.fullmatch(r"http://127\.0\.0\.1:\d{1,5}", named)
            return named if local else self.api_base
        if not named:
            return self.api_base
        host = host_of(named)
        if host is None or not under(host, self.api_hosts):
            raise ValueError(f"{self.title} named a host of another owner")
        # The URL is built from the checked host: no other part of the text is used.
        return f"https://{host}"

    def at(self, login_host: str | None) -> Provider:
        """Return the provider at one of its login hosts. Raises ValueError for a foreign host.

        An endpoint that the environment overrides stays as it is.
        """
        if not login_host:
            return self
        suffix = self.login_host_suffix
        if login_host not in self.login_hosts and not (
            suffix and HOST_NAME.fullmatch(login_host) and login_host.endswith("." + suffix)
        ):
            raise ValueError(f"{login_host!r} is not a login host of {self.title}.")
        moved = {}
        for field in ENDPOINTS:
            parts = urlsplit(getattr(self, field))
            if parts.hostname in self.login_hosts:
                moved[field] = urlunsplit(parts._replace(netloc=login_host))
        return self.model_copy(update=moved)

    def owns_issuer(self, issuer: str) -> bool:
        """Whether an `iss` of an authorization answer names this provider (RFC 9207)."""
        ours = {_origin(self.authorize_url), _origin(self.token_url)}
        if issuer.rstrip("/") in ours:
            return True
        host = host_of(issuer)
        return host is not None and under(host, self.issuer_hosts or self.api_hosts)

    def lacking(self, granted: Iterable[str], leads: bool = False) -> dict[str, str]:
        """Return the scopes that were requested but not granted, each with its reason.

        `leads`: the mapping file creates leads instead of deals.
        A token answer without scopes grants all requested scopes (RFC 6749, 5.1).
        """
        held = set(granted)
        for scope in tuple(held):
            held.update(self.scope_implies.get(scope, ()))
        asked = {**self.scopes, **self.optional_scopes, **(self.lead_scopes if leads else {})}
        return {scope: why for scope, why in asked.items() if held and scope not in held}


def under(host: str, suffixes: Iterable[str]) -> bool:
    """Whether a host is one of these domains or a subdomain of one."""
    return any(host == suffix or host.endswith("." + suffix) for suffix in suffixes)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


Providers = dict[str, Provider]
ENDPOINTS = ("authorize_url", "token_url", "revoke_url", "introspect_url", "api_base")
OVERRIDES = ("client_id", "client_secret", "web_base", *ENDPOINTS)


@lru_cache(maxsize=4)
def _read(text: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the entries of a file; callers must not change them."""
    entries: Mapping[str, Mapping[str, Any]] = YAML(typ="safe").load(text)
    return entries


def _entries(path: Path) -> Mapping[str, Mapping[str, Any]]:
    """Return the entries of the file. Raises SettingsError if it is missing or no such file."""
    try:
        entries = _read(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise SettingsError(f"PROVIDERS_FILE: {path} cannot be read ({reason}).") from None
    except YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where else ""
        raise SettingsError(f"PROVIDERS_FILE: {path} has a mistake in its YAML{line}.") from None
    if not isinstance(entries, Mapping) or not all(
        isinstance(entry, Mapping) for entry in entries.values()
    ):
        raise SettingsError(f"PROVIDERS_FILE: {path} has no list of CRMs, each with its keys.")
    return entries


def load_providers(path: Path, environ: Mapping[str, str]) -> Providers:
    """Read providers.yaml, with overrides such as `<PROVIDER>_CLIENT_ID`. Raises SettingsError."""
    providers = {}
    for name, entry in _entries(path).items():
        try:
            providers[name] = _checked(Provider(**_overridden(name, entry, environ)))
        except (ValidationError, ValueError) as error:
            raise SettingsError(f"{path.name}: {name}: {error}") from None
    return providers


def _overridden(name: str, entry: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Return an entry with the environment's overrides."""
    values = dict(entry, name=name)
    for key in OVERRIDES:
        override = environ.get(f"{name}_{key}".upper(), "")
        if override:
            values[key] = override.rstrip("/") if key.endswith("_base") else override
        elif key == "introspect_url" and environ.get(f"{name}_token_url".upper()):
            # Tokens of a replaced server must not be sent to the provider.
            values[key] = ""
    return values


def _checked(provider: Provider) -> Provider:
    """Return the provider if its URLs are safe. Raises ValueError otherwise."""
    for key in (*ENDPOINTS, "web_base"):
        if getattr(provider, key) or key not in ("revoke_url", "introspect_url", "web_base"):
            require_https(getattr(provider, key), f"{provider.name}_{key}".upper())
    return provider
