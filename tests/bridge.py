"""The whole service in one process with the sandboxes; the tests control it."""

from __future__ import annotations

import functools
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import requests
from flask.testing import FlaskClient
from sqlalchemy import select

from app import create_app
from app.bootstrap import Services, bootstrap
from app.security.api_keys import key_hash, new_key
from app.security.signatures import sign_body
from app.store.access_models import ApiKey
from app.store.engine import Store, utcnow
from app.store.models import ConnectionRow, DeliveryRow, EventRow
from config.providers import load_providers
from config.settings import Settings
from crm_adapters.base import load_adapter
from sandbox.browser import ONWARD, address_onward, form_token
from sandbox.core import Sandbox
from sandbox.serve import Served, load_sandbox
from tests import ready_made
from tests.ready_made import is_untouched
from workers.drain import Drainer

DATA = Path(__file__).parent / "data"
SECRET = "webhook-secret-1"
OLDER_SECRET = "older-webhook-secret"
KEY = "a-key-of-tests-with-32-characters!"
"""SECRET_KEY and ENCRYPTION_KEYS of the tests."""
ENTRIES = load_providers(Settings.model_fields["providers_file"].default, {})
PROVIDERS = tuple(ENTRIES)
RENEWED = [name for name, entry in ENTRIES.items() if not entry.tokens_last]
"""CRMs whose tokens die, and that give refresh tokens."""
REVOKED = [name for name, entry in ENTRIES.items() if entry.revoke_url]
"""CRMs that are told of a grant that nobody uses any more."""
ADAPTERS = {name: load_adapter(entry.adapter) for name, entry in ENTRIES.items()}
ASKED_AHEAD = [name for name, adapter in ADAPTERS.items() if adapter.asks_ahead]
"""CRMs whose next batch is looked up while the current one is written."""
ENDED = ("synced", "failed", "parked", "skipped")
NO_REDIS = "redis://127.0.0.1:1/0"


def owned(provider: str, name: str) -> bool:
    """Whether records of an object have an owner in a CRM."""
    return name in ADAPTERS[provider].shape.owner_fields


def sample(name: str, **changes: Any) -> dict[str, Any]:
    """Return a sample webhook of tests/data with some top-level fields changed."""
    return {**json.loads((DATA / f"{name}.json").read_text(encoding="utf-8")), **changes}


def make_settings(database_url: str, **values: Any) -> Settings:
    """Return the settings for a test, independent of the environment."""
    return Settings(
        **{
            "database_url": database_url,
            "redis_url": NO_REDIS,
            "secret_key": KEY,
            "encryption_keys": KEY,
            "meetergo_webhook_secrets": f"{SECRET},{OLDER_SECRET}",
            "log_level": "ERROR",
            "http_timeout": 5,
            **values,
        }
    )


@functools.cache
def migrated() -> bytes:
    """Return a SQLite database after all migrations; it is made once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.sqlite3"
        store = Store(f"sqlite:///{path}")
        store.migrate()
        store.close()
        return path.read_bytes()


def begin_migrated(database_url: str) -> None:
    """Create a new SQLite database with the schema: hundreds of tests need one."""
    backend, _, name = database_url.partition(":///")
    path = Path(name)
    if backend == "sqlite" and not path.exists():
        path.write_bytes(migrated())


class Bridge:
    """One service with its database and sandboxes."""

    def __init__(
        self,
        database_url: str,
        providers: tuple[str, ...] = PROVIDERS,
        served: dict[str, Any] | None = None,
        **values: Any,
    ):
        """`served`: sandboxes that run already; otherwise one is started for each provider."""
        self._usual = served is None and not values and database_url.startswith("sqlite:///")
        self.served = served or {name: Served(load_sandbox(name)()) for name in providers}
        environ = {k: v for served in self.served.values() for k, v in served.environment().items()}
        self.settings = make_settings(database_url, **values)
        begin_migrated(database_url)
        self.services: Services = bootstrap(self.settings, environ)
        self.app = create_app(self.services)
        self.drainer = Drainer(self.services)
        self._signed_in: FlaskClient | None = None
        self.workers_sleep = False
        """Whether a stored webhook waits for `drain`, instead of being processed at once."""

    def sandbox(self, provider: str) -> Any:
        """Return the sandbox of a provider."""
        found: Sandbox = self.served[provider].sandbox
        return found

    @property
    def client(self) -> FlaskClient:
        """Return a signed-in browser."""
        if self._signed_in is None:
            self._signed_in = self.sign_in()
        return self._signed_in

    @client.setter
    def client(self, browser: FlaskClient) -> None:
        self._signed_in = browser

    @property
    def key(self) -> str:
        """Return the API key that the browser has signed in with."""
        assert self.client
        return self._key

    def sign_in(self) -> FlaskClient:
        """Return another signed-in browser, with its own key."""
        key = new_key()
        with self.services.store.write() as session:
            session.add(ApiKey(name="tester", key_hash=key_hash(key), created_at=utcnow()))
        client = self.app.test_client()
        assert client.post("/sign-in", data={"key": key}).status_code == 303
        self._key = key
        return client

    def connect(self, provider: str, decision: str = "allow", query: str = "") -> Any:
        """Go through the provider's consent page as a person does; return the callback's answer."""
        address = self.consent_page(provider, query)
        page = requests.get(address, timeout=5)
        assert page.status_code == 200, page.text
        fields = dict(parse_qsl(urlsplit(address).query))
        answer = requests.post(
            address.partition("?")[0],
            data={**fields, "decision": decision},
            allow_redirects=False,
            timeout=5,
        )
        back = urlsplit(answer.headers["Location"])
        return self.client.get(f"{back.path}?{back.query}")

    def start(self, provider: str, query: str = "", **kwargs: Any) -> Any:
        """Press the button that begins a connect; return the answer."""
        token = form_token(self.client.get("/connections/more").get_data(as_text=True))
        form = {"csrf": token, **dict(parse_qsl(query.lstrip("?")))}
        return self.client.post(f"/oauth/{provider}/start", data=form, **kwargs)

    def consent_page(self, provider: str, query: str = "", **kwargs: Any) -> str:
        """Press the button that begins a connect; return the address of the consent page."""
        return address_onward(self.start(provider, query, **kwargs).headers[ONWARD])

    def make_lasting(self, provider: str) -> None:
        """Connect a CRM again as one whose tokens have no end, and that gives no refresh token."""
        self.sandbox(provider).lifetime = 0.0
        providers = self.services.providers
        providers[provider] = providers[provider].model_copy(update={"tokens_last": True})
        assert self.connect(provider, query="?connection=1").status_code == 303

    def connect_all(self, warm: bool = True) -> Bridge:
        """Connect every sandbox and reset its count of calls.

        `warm`: the accounts are read too, so that no later call of a test does this.
        """
        usual = self._usual and all(is_untouched(s.sandbox) for s in self.served.values())
        if usual:
            self._connect_ready_made()
        for provider, served in self.served.items():
            if not usual:
                response = self.connect(provider)
                assert response.status_code == 303, response.get_data(as_text=True)
            if warm:
                self.drain(warm_only=True)
            if isinstance(served, Served):
                served.sandbox.calls.clear()
        return self

    def _connect_ready_made(self) -> None:
        names, path = tuple(self.served), Path(self.settings.database_url.partition(":///")[2])
        sandboxes = {name: (served.sandbox, served.url) for name, served in self.served.items()}
        made = ready_made.get(names)
        if made is None:
            for name in names:
                response = self.connect(name)
                assert response.status_code == 303, response.get_data(as_text=True)
            ready_made.keep(names, path, sandboxes)
            return
        self.services.store.close()
        ready_made.put(made, path, sandboxes)
        # The copy has its own hash key.
        self.services.prepare()
        self._signed_in = None

    def post(self, payload: Any, secret: str = SECRET, **kwargs: Any) -> Any:
        """Post a signed webhook."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        headers = {"X-Meetergo-Signature": sign_body(secret, body), **kwargs.pop("headers", {})}
        kwargs.setdefault("content_type", "application/json")
        answer = self.app.test_client().post(
            kwargs.pop("path", "/webhooks/meetergo"), data=body, headers=headers, **kwargs
        )
        if not self.workers_sleep:
            self.services.processor.run()
            self.services.search_index.run()
        return answer

    def drain(self, warm_only: bool = False) -> None:
        """Do what the workers do when they are woken."""
        if not warm_only:
            self.services.processor.run()
            self.reread()
            self.services.search_index.run()
        with self.services.store.read() as session:
            ids = session.scalars(select(ConnectionRow.id)).all()
        for connection_id in ids:
            if warm_only:
                self.drainer.warm(connection_id)
            else:
                self.drainer.drain(connection_id)

    def reread(self) -> None:
        """Ask meetergo about all webhooks that wait for its confirmation."""
        for source in sorted(self.services.rereader.sources_with_work()):
            self.services.rereader.run(source)

    def sync(self, *payloads: Any) -> None:
        """Post webhooks and work until nothing is due."""
        for payload in payloads:
            response = self.post(payload)
            assert response.status_code == 202, response.get_data(as_text=True)
        self.settle()

    def settle(self, seconds: float = 30.0) -> None:
        """Drain until every delivery has ended, including the CRMs' pauses."""

        def ended() -> bool:
            self.drain()
            if self.services.rereader.sources_with_work():
                return False
            return all(d.state in ENDED for d in self.deliveries())

        wait_for(ended, seconds)

    def deliveries(self) -> list[DeliveryRow]:
        """Return every delivery."""
        with self.services.store.read() as session:
            return list(session.scalars(select(DeliveryRow).order_by(DeliveryRow.id)))

    def delivery(self, provider: str) -> DeliveryRow:
        """Return the single delivery of a provider."""
        with self.services.store.read() as session:
            query = select(DeliveryRow).join(
                ConnectionRow, ConnectionRow.id == DeliveryRow.connection_id
            )
            return session.scalars(query.where(ConnectionRow.provider == provider)).one()

    def events(self) -> list[EventRow]:
        """Return every stored webhook."""
        with self.services.store.read() as session:
            return list(session.scalars(select(EventRow).order_by(EventRow.id)))

    def connection(self, provider: str) -> ConnectionRow:
        """Return the connection of a provider."""
        with self.services.store.read() as session:
            query = select(ConnectionRow).where(ConnectionRow.provider == provider)
            return session.scalars(query).one()

    def close(self) -> None:
        """Stop the sandboxes."""
        for served in self.served.values():
            served.stop()
        self.services.store.close()


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until a condition holds; fail after the time limit."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come to hold in time"
        time.sleep(0.05)
