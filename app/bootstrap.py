"""The one place that wires everything together; every process starts here."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from app.crm.port import Access, Adapter, TokenSource
from app.crm.schema import CrmShape
from app.domain.errors import MappingError
from app.domain.rate_limits import RateLimit
from app.meetergo.client import MeetergoClient
from app.oauth.flow import Flow
from app.oauth.token_sources import FixedToken
from app.oauth.tokens import TokenService
from app.outbound.addresses import REACH
from app.security.encryption import Cipher
from app.services.api_keys import ApiKeys
from app.services.audit_log import AuditReader
from app.services.catch_up import CatchUp
from app.services.causes import Causes
from app.services.company_sign_in import CompanySignIn
from app.services.connect import Connector
from app.services.doctor import Doctor
from app.services.erasure import Erasure
from app.services.intake import Intake
from app.services.mapping_trial import MappingTrial
from app.services.mapping_versions import MappingVersions
from app.services.mappings import MappingFiles
from app.services.notify import Notifier
from app.services.outage import Outage
from app.services.processes import Processes
from app.services.processing import Processor
from app.services.rate_limits import RedisBudget, SharedRateLimiter
from app.services.reread import Rereader
from app.services.retention import Retention
from app.services.search import SearchIndex
from app.services.sessions import Sessions
from app.services.sources import SourceRules, Sources
from app.services.users import Users
from app.services.wake import Waker
from app.store.engine import DBAPIError, PoolTimeout, Store
from app.store.models import ConnectionRow
from app.store.rekey import MissingKey, check_keys
from app.store.schema import UnfitSchema
from config.companies import no_company_domains
from config.logging import configure_logging
from config.observe import start_observing
from config.providers import Provider, Providers, load_providers
from config.settings import Settings, SettingsError, load_settings, split_list
from crm_adapters.base import load_adapter
from crm_adapters.guard import guarded


@dataclass(frozen=True)
class Services:
    """The services that the edges (web, CLI, workers) use."""

    settings: Settings
    providers: Providers
    mappings: MappingFiles
    store: Store
    cipher: Cipher
    tokens: TokenService
    flow: Flow
    intake: Intake
    processor: Processor
    processes: Processes
    sessions: Sessions
    catch_up: CatchUp
    connector: Connector
    waker: Waker
    notifier: Notifier
    adapter: Callable[[int], Adapter]
    """Makes an adapter for a connection, with its own session, token source and gate."""
    causes: Causes
    sources: Sources
    rereader: Rereader
    retention: Retention
    search_index: SearchIndex
    erasure: Erasure
    trial: MappingTrial
    doctor: Doctor
    keys: ApiKeys
    users: Users
    audit: AuditReader
    company: CompanySignIn | None
    """The sign-in through the company's own server, if there is one."""
    database_outage: Outage
    """What this process has told of a database that it cannot use."""

    def prepare(self) -> None:
        """Bring the schema up to date and check the encryption keys. Raises SettingsError."""
        try:
            self.store.migrate(self.cipher)
            check_keys(self.store, self.cipher)
        except (MissingKey, UnfitSchema) as error:
            raise SettingsError(str(error)) from None
        except (DBAPIError, PoolTimeout, OSError) as error:
            raise SettingsError(self.store.explain(error)) from None

    @property
    def versions(self) -> MappingVersions:
        """The texts of the mapping files that were in force."""
        return MappingVersions(self.store, self.cipher)

    def public(self, connection_id: int) -> str:
        """Address of the page on which a person can repair a connection."""
        return f"{self.settings.public_url}/connections/{connection_id}"

    def shape(self, provider: str) -> CrmShape:
        """The facts that are the same for every account of a CRM."""
        return load_adapter(self.providers[provider].adapter).shape


def bootstrap(
    settings: Settings | None = None, environ: Mapping[str, str] | None = None
) -> Services:
    """Wire the services. Raises SettingsError or MappingError; the message says what to fix."""
    settings = settings or load_settings()
    configure_logging(settings.log_level)
    REACH.allow(settings.networks)
    providers = load_providers(settings.providers_file, os.environ if environ is None else environ)
    no_company = no_company_domains(settings.no_company_domains)
    mappings = MappingFiles(settings.mappings_dir, providers, no_company)
    store, cipher = _store(settings), Cipher(split_list(settings.encryption_keys))
    tokens = TokenService(store, cipher, providers, settings.oauth_timeout)
    notifier = _notifier(settings, providers, store)
    waker = Waker(settings.redis_url)

    outside = _Outside(settings, providers, store, tokens, RedisBudget(waker.redis, waker.outage))
    sources = Sources(settings, store, cipher, outside.meetergo)
    intake = Intake(sources, store, cipher, lambda: any(mappings[name].form for name in providers))
    processes, processor = Processes(store), Processor(store, cipher)
    users = Users(store, cipher)
    rereader = Rereader(store, intake, sources, waker.wake)
    return Services(
        settings=settings,
        providers=providers,
        mappings=mappings,
        store=store,
        cipher=cipher,
        tokens=tokens,
        flow=Flow(store, cipher, settings.public_url, settings.oauth_timeout),
        intake=intake,
        processor=processor,
        processes=processes,
        sessions=Sessions(store),
        catch_up=CatchUp(store, intake, sources, rereader.learn_type, waker.wake),
        connector=outside.connector(cipher),
        waker=waker,
        notifier=notifier,
        adapter=outside.adapter,
        causes=outside.causes(mappings, waker.wake),
        sources=sources,
        rereader=rereader,
        erasure=Erasure(store, cipher, processor, outside.adapter, waker.wake),
        search_index=SearchIndex(store, cipher),
        retention=Retention(store, cipher, settings.retention_days),
        keys=ApiKeys(store),
        users=users,
        company=CompanySignIn(settings, users) if settings.oidc_issuer else None,
        audit=AuditReader(store),
        database_outage=Outage("database"),
        trial=MappingTrial(store, cipher, mappings, providers, outside.adapter),
        doctor=Doctor(
            store=store, cipher=cipher, public_url=settings.public_url, providers=providers,
            mappings=mappings, tokens=tokens, sources=sources, secrets=intake.secrets, waker=waker,
            processes=processes, notifier=notifier, adapter=outside.adapter,
        ),
    )  # fmt: skip


def begin(services: Services | None = None) -> Services:
    """Return services, wired but not yet prepared. Raises SystemExit with a message."""
    try:
        start_observing()
        return services or bootstrap()
    except (SettingsError, MappingError) as error:
        raise SystemExit(f"The service cannot start:\n{error}") from None


def ready(services: Services) -> None:
    """Prepare services. Raises SystemExit with a message."""
    try:
        services.prepare()
    except SettingsError as error:
        raise SystemExit(f"The service cannot start:\n{error}") from None


@lru_cache(maxsize=1)
def process_services() -> Services:
    """The services of this process, from its environment; a worker's jobs share them."""
    return bootstrap()


def _store(settings: Settings) -> Store:
    try:
        return Store(settings.database_url, settings.worker_accounts)
    except ValueError as error:
        raise SettingsError(f"DATABASE_URL is not usable: {error}.") from None


def _notifier(settings: Settings, providers: Providers, store: Store) -> Notifier:
    try:
        return Notifier(store, providers, settings.notify_urls, settings.public_url)
    except ValueError as error:
        raise SettingsError(str(error)) from None


@dataclass(frozen=True)
class _Outside:
    """Makes the clients of CRMs and meetergo, each with its own session, tokens and limits."""

    settings: Settings
    providers: Providers
    store: Store
    tokens: TokenService
    budget: RedisBudget

    def adapter(self, connection_id: int) -> Adapter:
        """An adapter for a connection."""
        with self.store.read() as session:
            row = session.get_one(ConnectionRow, connection_id)
        provider, by_key = self.providers[row.provider], row.auth == "key"
        key = f"{row.provider}:{row.id}"
        limiter = SharedRateLimiter(self.budget, key, self.settings.keep_free)
        tokens = self.tokens.source(row.id, row.account_id)
        access = _access(provider, row.api_base, tokens, self.settings.http_timeout, by_key)
        return _adapter(provider, replace(access, gate=limiter))

    def allowances(self, provider: str) -> Sequence[RateLimit]:
        """The limits of a provider's API on its smallest plan."""
        return load_adapter(self.providers[provider].adapter).allowances

    def causes(self, mappings: MappingFiles, wake: Callable[[Sequence[int]], object]) -> Causes:
        """The service that groups what is not synced by its cause."""
        keep_free = self.settings.keep_free
        return Causes(self.store, self.providers, mappings, self.allowances, wake, keep_free)

    def connector(self, cipher: Cipher) -> Connector:
        """The service that connects accounts."""
        return Connector(
            self.store,
            cipher,
            self.tokens,
            self.providers,
            self.open_account,
            self.adapter,
            self.settings.http_timeout,
        )

    def open_account(self, provider: Provider, api_base: str, token: str, by_key: bool) -> Adapter:
        """An adapter for an account that is not a connection yet."""
        timeout = self.settings.http_timeout
        return _adapter(provider, _access(provider, api_base, FixedToken(token), timeout, by_key))

    def meetergo(self, rules: SourceRules, old_news: bool) -> MeetergoClient:
        """A client of meetergo's API for one source."""
        limiter = SharedRateLimiter(self.budget, f"meetergo:{rules.name}", 0)
        limiter.backlog = old_news
        base, timeout = self.settings.meetergo_api_base, self.settings.http_timeout
        return MeetergoClient(base, rules.api_key, rules.api_user_id, timeout, limiter)


def _adapter(provider: Provider, access: Access) -> Adapter:
    kind = load_adapter(provider.adapter)
    return guarded(kind(replace(access, facts=kind.api_facts)))


def _access(
    provider: Provider, api_base: str, tokens: TokenSource, timeout: float, by_key: bool
) -> Access:
    if by_key and provider.key:
        key = provider.key
        return Access(api_base, tokens, timeout, key.header, key.prefix, web_base=provider.web_base)
    return Access(api_base, tokens, timeout, web_base=provider.web_base)


__all__ = ["Services", "begin", "bootstrap", "process_services", "ready"]
