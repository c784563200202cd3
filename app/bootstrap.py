"""The one place where everything is wired together; every process starts here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from app.domain.records import CrmShape
from app.mapping.load import load_mapping
from app.mapping.schema import Mapping as FieldMapping
from app.meetergo.client import MeetergoClient
from app.oauth.flow import Flow
from app.oauth.tokens import TokenService
from app.security.encryption import Cipher
from app.services.connect import Connector
from app.services.intake import Intake
from app.store.engine import Store
from app.store.models import ConnectionRow
from config.logging import configure_logging
from config.providers import Providers, load_providers
from config.settings import Settings, load_settings, split_list
from crm_adapters.base import Access, Adapter, load_adapter
from workers.queue import Waker


@dataclass(frozen=True)
class Services:
    """What the edges (web, CLI, workers) work with."""

    settings: Settings
    providers: Providers
    mappings: Mapping[str, FieldMapping]
    store: Store
    cipher: Cipher
    tokens: TokenService
    flow: Flow
    intake: Intake
    connector: Connector
    waker: Waker

    def adapter(self, connection_id: int) -> Adapter:
        """An adapter for one connection, with its own session and token source."""
        with self.store.read() as session:
            row = session.get_one(ConnectionRow, connection_id)
        return _adapter(self.settings, self.providers, self.tokens, row)

    def shape(self, provider: str) -> CrmShape:
        """What is the same for every account of a CRM."""
        return load_adapter(self.providers[provider].adapter).shape

    def read_appointment(self, source: str, appointment_id: str) -> Mapping[str, Any]:
        """An appointment as meetergo has it now."""
        rules = self.intake.source(source)
        client = MeetergoClient(
            self.settings.meetergo_api_base,
            rules.api_key,
            self.settings.meetergo_api_user_id,
            self.settings.http_timeout,
        )
        return client.appointment(appointment_id)


def bootstrap(
    settings: Settings | None = None, environ: Mapping[str, str] | None = None
) -> Services:
    """Wire the services. Raises SettingsError or MappingError in words that name what to mend."""
    settings = settings or load_settings()
    configure_logging(settings.log_level)
    providers = load_providers(settings.providers_file, os.environ if environ is None else environ)
    mappings = load_mappings(settings, providers)
    store = Store(settings.database_url)
    cipher = Cipher(split_list(settings.encryption_keys))
    tokens = TokenService(store, cipher, providers, settings.http_timeout)

    def account(connection_id: int) -> Adapter:
        with store.read() as session:
            row = session.get_one(ConnectionRow, connection_id)
        return _adapter(settings, providers, tokens, row)

    return Services(
        settings=settings,
        providers=providers,
        mappings=mappings,
        store=store,
        cipher=cipher,
        tokens=tokens,
        flow=Flow(store, cipher, settings.public_url, settings.http_timeout),
        intake=Intake(settings, store, cipher),
        connector=Connector(store, tokens, providers, account, settings.http_timeout),
        waker=Waker(settings.redis_url),
    )


@lru_cache(maxsize=1)
def process_services() -> Services:
    """The services of this process, from its environment; a worker's jobs share them."""
    return bootstrap()


def load_mappings(settings: Settings, providers: Providers) -> dict[str, FieldMapping]:
    """Every provider's mapping file, found by the provider's name. Raises MappingError."""
    return {name: load_mapping(settings.mappings_dir / f"{name}.yaml", name) for name in providers}


def _adapter(
    settings: Settings, providers: Providers, tokens: TokenService, row: ConnectionRow
) -> Adapter:
    access = Access(row.api_base, tokens.source(row.id), settings.http_timeout)
    return load_adapter(providers[row.provider].adapter)(access)


__all__ = ["Services", "bootstrap", "process_services"]
