"""All settings of the service, read from the environment and checked before anything starts."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.domain.roles import Role
from app.outbound.addresses import LOOPBACK, Address, Network, read_address
from config.database_url import fit_database_url
from config.redis_url import read_redis_url
from config.strength import LEAST_KEY, LEAST_SECRET, standard_weakness, weakness

CONFIG_DIR = Path(__file__).parent
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class SettingsError(Exception):
    """The environment has a wrong or missing setting; the message names the variable."""


class SignatureScheme(StrEnum):
    """The proof that a webhook comes from meetergo, or from the proxy in front of this service."""

    BODY = "body"
    TIMESTAMPED = "timestamped"
    STANDARD_WEBHOOKS = "standard-webhooks"
    URL_TOKEN = "url-token"  # noqa: S105 - the name of a scheme


class Settings(BaseSettings):
    """The environment of one process. Each field is the variable of the same name in capitals."""

    model_config = SettingsConfigDict(
        extra="ignore", env_ignore_empty=True, validate_default=True, use_attribute_docstrings=True
    )

    database_url: str = "sqlite:///bridge.sqlite3"
    """URL of the database: `sqlite:///…` or `postgresql://…` (`postgres://…` is the same)."""
    redis_url: str = "redis://127.0.0.1:6379/0"
    """URL of Redis or Valkey, which only wakes workers; config/redis_url.py has the forms."""
    secret_key: str
    """Signs the browser session. At least 32 characters."""
    encryption_keys: str
    """Keys for stored data, separated by commas, newest first: new data uses the first key. Each at
    least 32 characters."""
    meetergo_signature_scheme: SignatureScheme = SignatureScheme.BODY
    """body, timestamped, standard-webhooks or url-token."""
    meetergo_webhook_secrets: str = ""
    """Secrets that a webhook may be signed with, separated by commas, each at least 16 characters; for
    standard-webhooks: `whsec_` and the Base64 of 24 to 64 bytes."""
    meetergo_signature_header: str = "X-Meetergo-Signature"
    """Header that carries the signature (schemes body and timestamped)."""
    meetergo_company_ids: str = ""
    """Ids of the companies whose bookings are accepted, separated by commas; empty accepts all."""
    meetergo_api_key: str = ""
    """meetergo API key; with scheme url-token the service reads each booking again with it."""
    meetergo_api_user_id: str = ""
    """User id that an `ak_live` key needs; sent as x-meetergo-api-user-id."""
    meetergo_key_ends_at: datetime | None = None
    """Day on which the API key ends (2027-02-01, or with a time); people are notified a week before."""
    meetergo_api_base: str = "https://api.meetergo.com"
    """Root of meetergo's REST API."""
    public_url: str = "http://127.0.0.1:8000"
    """Address at which browsers and the CRMs' consent pages reach this service."""
    mappings_dir: Path = CONFIG_DIR / "mappings"
    """Folder with one mapping file per provider."""
    no_company_domains: str = ""
    """Domains that do not stand for a company, separated by commas, besides free mail and relays."""
    providers_file: Path = CONFIG_DIR / "providers.yaml"
    """File with the OAuth providers."""
    trusted_proxies: int = Field(default=0, ge=0, le=5)
    """How many proxies in front may set X-Forwarded-*; 0 ignores these headers (RFC 9700, 4.13)."""
    http_timeout: float = Field(default=30.0, gt=0, le=120)
    """Seconds that one call to a CRM or to meetergo may take."""
    oauth_timeout: float = Field(default=60.0, gt=0, le=300)
    """Seconds that a call to a token endpoint may take; a lost answer may cost the connection."""
    notify_urls: str = ""
    """Apprise addresses that are notified of broken connections, separated by blanks or commas."""
    private_networks: str = ""
    """Private networks into which calls may go (10.1.0.0/16), separated by commas. Without it, a name
    that leads to a private or special address is not called; 127.0.0.1 is, if an address names it."""
    notify_after_failures: int = Field(default=5, ge=1, le=1000)
    """Number of deliveries of one connection that fail in a row before people are notified."""
    sweep_interval: int = Field(default=10, ge=1, le=60)
    """Seconds between two sweeps, which look for due deliveries."""
    worker_accounts: int = Field(default=16, ge=1, le=100)
    """CRM accounts that one worker process works on at the same time."""
    probe_interval: int = Field(default=30, ge=1, le=3600)
    """Seconds between two probes of a CRM that has been out of order several times in a row."""
    keep_free: float = Field(default=0.2, ge=0, le=0.9)
    """Part of every rate limit of a CRM that stays free for the customer's other apps."""
    reconcile_interval: int = Field(default=3600, ge=0, le=86_400)
    """Seconds between two searches at meetergo for bookings without a webhook; 0 turns them off."""
    reconcile_back_days: int = Field(default=7, ge=1, le=365)
    """How many days back a scheduled search looks for meetings, by their start."""
    reconcile_ahead_days: int = Field(default=60, ge=1, le=730)
    """How many days ahead a scheduled search looks for meetings, by their start."""
    retention_days: int = Field(default=30, ge=0, le=3650)
    """Days after a meeting after which the data of its people is deleted here; 0 keeps everything."""
    restored_at: datetime | None = None
    """Time at which the database was restored from a backup (2027-02-01T10:00:00Z): records of
    bookings made before it are looked for in the CRM before they are created."""
    oidc_issuer: str = ""
    """Address of the company's OpenID Connect server; people then sign in through it too."""
    oidc_client_id: str = ""
    """Client id of this service there; its redirect address is PUBLIC_URL and /sign-in/oidc/callback."""
    oidc_client_secret: str = ""
    """Client secret there."""
    oidc_domains: str = ""
    """E-mail domains whose people get a user at their first sign-in, separated by commas; empty: only
    people who have a user already."""
    oidc_role_claim: str = ""
    """Claim of the ID token that holds a role or a list with one (admin, developer, sales, viewer);
    it then sets the role at each sign-in. Empty: an admin sets it."""
    oidc_default_role: Role | Literal["none"] = Role.VIEWER
    """Role of a new user, and of one whose claim holds none; `none` lets nobody in without a role."""
    demo_sign_in: bool = False
    """yes signs every browser on this machine in as an admin called demo, without a password. For the
    demo; never set it elsewhere."""
    log_level: str = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        return fit_database_url(value)

    @field_validator("redis_url")
    @classmethod
    def _readable_redis(cls, value: str) -> str:
        read_redis_url(value)
        return value.strip()

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        if value.strip().upper() not in LOG_LEVELS:
            raise ValueError(f"it must be one of {', '.join(LOG_LEVELS)}")
        return value.strip().upper()

    @field_validator("secret_key", "encryption_keys")
    @classmethod
    def _strong_keys(cls, value: str, info: ValidationInfo) -> str:
        keys = split_list(value) if info.field_name == "encryption_keys" else (value,)
        for number, key in enumerate(keys, 1):
            _refuse_weak(f"key {number}" if len(keys) > 1 else "it", weakness(key, LEAST_KEY))
        if not keys:
            raise ValueError("it holds no key")
        return value

    @field_validator("meetergo_webhook_secrets")
    @classmethod
    def _strong_secrets(cls, value: str, info: ValidationInfo) -> str:
        scheme = info.data.get("meetergo_signature_scheme", SignatureScheme.BODY)
        for number, secret in enumerate(split_list(value), 1):
            _refuse_weak(f"secret {number}", secret_weakness(secret, scheme))
        return value

    @field_validator("meetergo_api_user_id")
    @classmethod
    def _key_with_user(cls, value: str, info: ValidationInfo) -> str:
        problem = api_key_problem(str(info.data.get("meetergo_api_key", "")), value)
        if problem:
            raise ValueError(problem)
        return value

    @field_validator("meetergo_key_ends_at", "restored_at")
    @classmethod
    def _in_utc(cls, value: datetime | None) -> datetime | None:
        if value is None:
            return None
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)

    @field_validator("public_url")
    @classmethod
    def _own_address(cls, value: str) -> str:
        value = value.rstrip("/")
        if _read_address(value).path:
            raise ValueError("it must end with the host: the service cannot be below a path")
        return value

    @field_validator("demo_sign_in")
    @classmethod
    def _demo_is_here(cls, value: bool, info: ValidationInfo) -> bool:
        if value and not is_loopback(str(info.data.get("public_url", ""))):
            raise ValueError("it signs everybody in, so PUBLIC_URL must name this machine")
        return value

    @field_validator("oidc_issuer")
    @classmethod
    def _safe_issuer(cls, value: str) -> str:
        if value:
            # The client secret is sent to where it says.
            _read_address(value)
        return value

    @field_validator("oidc_client_secret")
    @classmethod
    def _whole_oidc(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("oidc_issuer") and not (info.data.get("oidc_client_id") and value):
            raise ValueError("OIDC_ISSUER needs OIDC_CLIENT_ID and OIDC_CLIENT_SECRET too")
        return value

    @field_validator("meetergo_api_base")
    @classmethod
    def _safe_base(cls, value: str) -> str:
        # meetergo's key is sent there.
        _read_address(value)
        return value.rstrip("/")

    @field_validator("private_networks")
    @classmethod
    def _readable_networks(cls, value: str) -> str:
        read_networks(value)
        return value

    @cached_property
    def webhook_secrets(self) -> tuple[str, ...]:
        """The webhook secrets as a tuple, without empty entries."""
        return split_list(self.meetergo_webhook_secrets)

    @cached_property
    def networks(self) -> tuple[Network, ...]:
        """The private networks into which calls may go."""
        return read_networks(self.private_networks)

    @cached_property
    def company_ids(self) -> tuple[str, ...]:
        """The allowed company ids as a tuple, without empty entries."""
        return split_list(self.meetergo_company_ids)


class Listening(BaseSettings):
    """Where gunicorn listens, and with how many processes (config/gunicorn.py)."""

    model_config = Settings.model_config

    port: int | None = Field(default=None, ge=1, le=65_535)
    """Set by platforms such as Heroku, whose router calls the web process from another machine: it
    then listens on 0.0.0.0 and this port."""
    web_bind: str = ""
    """Address at which the web process listens; it counts more than PORT. Without both:
    127.0.0.1:8000."""
    web_concurrency: int = Field(default=2, ge=1, le=64)
    """Number of web processes."""

    @property
    def address(self) -> str:
        """The address for gunicorn to bind.

        A web process on Heroku listens on `$PORT`: https://devcenter.heroku.com/articles/procfile
        """
        return self.web_bind or (f"0.0.0.0:{self.port}" if self.port else "127.0.0.1:8000")


class Observing(BaseSettings):
    """Where spans and faults are sent (config/observe.py); without these variables nowhere."""

    model_config = Settings.model_config

    sentry_dsn: str = ""
    """Address of a project in Sentry, which then gets faults of this service; needs
    requirements-observe.txt."""
    sentry_environment: str = "production"
    """Name of this installation in Sentry."""
    otel_exporter_otlp_endpoint: str = ""
    """Address of an OpenTelemetry collector (OTLP over HTTP, such as http://127.0.0.1:4318), which then
    gets spans; needs requirements-observe.txt. OpenTelemetry's other OTEL_* variables count as well."""
    otel_exporter_otlp_traces_endpoint: str = ""
    """The same, as the whole address for spans."""
    otel_exporter_otlp_protocol: Literal["http/protobuf"] = "http/protobuf"
    """How the collector is spoken to."""
    otel_traces_exporter: Literal["otlp", "none"] | None = None
    """otlp sends spans to the usual address, http://127.0.0.1:4318, if none is set; none sends none."""
    otel_sdk_disabled: bool = False
    """true sends no spans, whatever else is set."""
    otel_service_name: str = "meetergo-bridge"
    """Name of this service in spans."""

    @property
    def wants_spans(self) -> bool:
        """Whether spans are to be sent.

        https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
        """
        named = self.otel_exporter_otlp_endpoint or self.otel_exporter_otlp_traces_endpoint
        asked = self.otel_traces_exporter == "otlp" or bool(named)
        return asked and self.otel_traces_exporter != "none" and not self.otel_sdk_disabled


class MappingPlaces(BaseSettings):
    """Where the mapping files are: all that is needed to check them."""

    model_config = SettingsConfigDict(extra="ignore", env_ignore_empty=True)

    mappings_dir: Path = CONFIG_DIR / "mappings"
    providers_file: Path = CONFIG_DIR / "providers.yaml"


def api_key_problem(key: str, user_id: str) -> str | None:
    """Return the problem with a meetergo API key, in words; None if none is known.

    https://developer.meetergo.com/api-reference/authentication
    """
    if key.startswith("ak_live") and not user_id:
        return "a key that begins with ak_live acts as one user: set the id of that user too"
    return None


def secret_weakness(secret: str, scheme: SignatureScheme) -> str | None:
    """Return the problem with a webhook secret under a scheme, in words; None if it is good."""
    if scheme is SignatureScheme.STANDARD_WEBHOOKS:
        return standard_weakness(secret)
    return weakness(secret, LEAST_SECRET)


def _refuse_weak(what: str, problem: str | None) -> None:
    if problem:
        raise ValueError(f"{what} {problem}")


def split_list(value: str) -> tuple[str, ...]:
    """Split a comma separated variable and drop empty entries."""
    return tuple(part.strip() for part in value.split(",") if part.strip())


def read_networks(value: str) -> tuple[Network, ...]:
    """Read networks such as 10.1.0.0/16. Raises ValueError with a sentence."""
    try:
        return tuple(ipaddress.ip_network(part) for part in split_list(value))
    except ValueError:
        raise ValueError("it must be networks such as 10.1.0.0/16, separated by commas") from None


def _read_address(url: str) -> Address:
    try:
        return read_address(url)
    except ValueError as error:
        raise ValueError(f"it {error}") from None


def is_loopback(url: str) -> bool:
    """Whether a URL points to this machine."""
    return urlsplit(url).hostname in LOOPBACK


def require_https(url: str, variable: str) -> None:
    """Raise ValueError unless the URL is https, or http on loopback, and no more than host and path."""
    try:
        read_address(url)
    except ValueError as error:
        raise ValueError(f"{variable} {error}") from None


Read = TypeVar("Read", bound=BaseSettings)


def load_settings() -> Settings:
    """Read the settings; raise SettingsError with a message that names the variables to set."""
    return _read(Settings)


def load_mapping_places() -> MappingPlaces:
    """Read where the mapping files are; raise SettingsError with a message that names the variable."""
    return _read(MappingPlaces)


def load_listening() -> Listening:
    """Read where the web process listens; raise SettingsError with a message that names the variable."""
    return _read(Listening)


def load_observing() -> Observing:
    """Read where spans and faults go; raise SettingsError with a message that names the variable."""
    return _read(Observing)


def _read(kind: type[Read]) -> Read:
    try:
        return kind()
    except ValidationError as error:
        lines = [
            _explain(str(item["loc"][0]).upper(), item["type"], item["msg"])
            for item in error.errors()
        ]
        raise SettingsError("\n".join(lines)) from None


def _explain(variable: str, kind: str, message: str) -> str:
    hint = ""
    message = message.removeprefix("Value error, ")
    if variable == "MEETERGO_WEBHOOK_SECRETS":
        hint = " Make one with: bridge secrets add"
    if variable in {"SECRET_KEY", "ENCRYPTION_KEYS"}:
        hint = " Make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"
    problem = "is not set." if kind == "missing" else f"is not usable: {message}."
    return f"{variable} {problem}{hint}"
