"""Troubles of a service within a month, each with a name, a beginning and, if it lasts, an end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from app.services.secrets import fingerprint
from app.store.engine import utcnow
from app.store.leases import LEASE
from sandbox.faults import Fault
from tests.bridge import KEY
from tests.contract.desk import desk_in, load_desks
from tests.month import World
from workers.drain import Drainer

Trouble = Iterator[None]
"""Begins at the first step, and ends at the second if there is one."""
KINDS: dict[str, Callable[[World], Trouble]] = {}
NONSENSE: list[Any] = [
    {},
    [],
    "null",
    "<html>We will be back</html>",
    '{"data": null, "results": 7}',
]


def kind(make: Callable[[World], Trouble]) -> Callable[[World], Trouble]:
    """Register a kind of trouble by its name."""
    KINDS[make.__name__.replace("_", " ")] = make
    return make


def one(world: World) -> str | None:
    """Return a CRM without trouble, and mark it as in trouble."""
    free = sorted(set(world.bridge.served) - world.broken)
    if not free:
        return None
    name = world.dice.choice(free)
    world.broken.add(name)
    return name


def lasts(world: World, begin: Callable[[Any, str], object]) -> Trouble:
    """Keep one CRM in trouble until all its answers are reset."""
    name = one(world)
    if name:
        sandbox = world.bridge.sandbox(name)
        begin(sandbox, name)
        yield
        sandbox.account.clears_answers()
        world.broken.discard(name)


# CRMs


@kind
def out_of_order(world: World) -> Trouble:
    """Every call is answered with 503."""
    return lasts(world, lambda crm, _: crm.account.every_call_answers(503, "maintenance"))


@kind
def nonsense(world: World) -> Trouble:
    """Every call is answered with nonsense."""
    said = world.dice.choice(NONSENSE)
    return lasts(world, lambda crm, _: crm.account.every_call_answers(200, said))


@kind
def account_refused(world: World) -> Trouble:
    """The CRM refuses every call of the account."""
    return lasts(world, lambda _, name: desk_in(world.bridge, name).block())


@kind
def too_many_calls(world: World) -> Trouble:
    """Some calls are answered with 429."""
    name = one(world)
    if name:
        headers = {"Retry-After": "20"}
        world.bridge.sandbox(name).account.every_call_answers(429, "{}", headers=headers, times=3)
        yield
        world.bridge.sandbox(name).account.clears_answers()
        world.broken.discard(name)


@kind
def answers_lost(world: World) -> Trouble:
    """Some calls are done, but their answers are lost."""
    name = world.dice.choice(sorted(set(world.bridge.served) - world.broken) or [""])
    if name:
        faults = world.bridge.sandbox(name).faults
        paths = world.bridge.sandbox(name).api_paths
        faults.append(Fault(path=paths, method="POST", drop_after_commit=True, times=2))
    yield from ()


@kind
def one_booking_breaks_it(world: World) -> Trouble:
    """Creates are answered with 500 for a while although the CRM works: bookings are retried."""
    name = one(world)
    if name:
        crm = world.bridge.sandbox(name)
        crm.faults.append(Fault(path=crm.api_paths, method="POST", status=500, times=6))
        yield
        crm.account.clears_answers()
        world.broken.discard(name)


@kind
def day_used_up(world: World) -> Trouble:
    """Another app uses up the day's calls; the next day brings new ones."""
    counting = {name for name in world.bridge.served if load_desks()[name].counts_days}
    free = sorted(counting - world.broken)
    if free:
        name = world.dice.choice(free)
        world.broken.add(name)
        next_day = desk_in(world.bridge, name).use_up_day()
        yield
        next_day()
        world.broken.discard(name)


@kind
def host_comes_and_goes(world: World) -> Trouble:
    """A new host has meetings, and then leaves the company."""
    email = f"host{len(world.hosts)}@acme.example"
    for served in world.bridge.served.values():
        served.sandbox.account.user(email, "New Host")
    world.hosts.append(email)
    yield
    for served in world.bridge.served.values():
        served.sandbox.account.user_leaves(email)


@kind
def fields_come_and_go(world: World) -> Trouble:
    """The company's admin removes fields that no mapping file names, and restores them."""
    for name, served in world.bridge.served.items():
        served.sandbox.account.lacks(*load_desks()[name].unused_fields)
    yield
    for served in world.bridge.served.values():
        served.sandbox.account.field_gone.clear()


@kind
def stages_come_and_go(world: World) -> Trouble:
    """The pipeline gets another stage and loses it again."""
    desks = [desk_in(world.bridge, name) for name in world.bridge.served]
    for desk in desks:
        desk.add_stage()
    yield
    for desk in desks:
        desk.drop_stage()


# Tokens


@kind
def access_tokens_die(world: World) -> Trouble:
    """Every access token ends early."""
    for served in world.bridge.served.values():
        served.sandbox.expire_access_tokens()
    yield from ()


@kind
def short_lives(world: World) -> Trouble:
    """Access tokens live a minute."""
    crm = world.bridge.sandbox(world.dice.choice(sorted(world.bridge.served)))
    before = type(crm).lifetime
    crm.lifetime = 60.0
    crm.expire_access_tokens()
    yield
    crm.lifetime = before


@kind
def token_endpoint_out(world: World) -> Trouble:
    """All access tokens end while the token endpoint is down."""

    def begin(crm: Any, _: str) -> None:
        crm.expire_access_tokens()
        crm.faults.append(Fault(path=crm.token_path, status=503, times=None))

    return lasts(world, begin)


@kind
def grant_revoked(world: World) -> Trouble:
    """A person uninstalls the app, and connects it again later."""
    name = one(world)
    if name:
        world.bridge.sandbox(name).kill_grants()
        yield
        world.bridge.client = world.bridge.sign_in()
        assert world.bridge.connect(name).status_code == 303
        world.broken.discard(name)


@kind
def refresher_killed(world: World) -> Trouble:
    """A process dies right before it refreshes a token, and the clock is set back."""
    tokens = world.bridge.services.tokens
    for row in world.rows():
        tokens._take_lease(row.id, lambda held: True)
    for served in world.bridge.served.values():
        served.sandbox.expire_access_tokens()
    world.clock.turn(-1)
    yield
    world.clock.turn(1)


# The service


@kind
def worker_restarts(world: World) -> Trouble:
    """A worker ends, and a new one without any account data begins."""
    world.bridge.drainer = Drainer(world.bridge.services)
    yield from ()


@kind
def worker_killed(world: World) -> Trouble:
    """A worker dies between the CRM's answer and the ledger write, while it holds leases."""

    class Died(BaseException):
        pass

    def die() -> None:
        raise Died

    world.post(world.something_happens(), world.something_happens())
    dying = Drainer(world.bridge.services, before_save=die)
    for row in world.rows():
        try:
            dying.drain(row.id)
        except Died:
            # A killed process does not release its lease.
            world.write(row.id, drain_until=utcnow() + LEASE)
    yield from ()


@kind
def lease_from_the_future(world: World) -> Trouble:
    """A worker dies while it holds a lease, and the clock is set back an hour at that moment."""
    for row in world.rows():
        Drainer(world.bridge.services)._take(row.id)
    return clock_set_back(world)


@kind
def clock_set_back(world: World) -> Trouble:
    """The machine's clock is set back an hour, and corrected later."""
    world.clock.turn(-1)
    yield
    world.clock.turn(1)


@kind
def clock_set_ahead(world: World) -> Trouble:
    """The machine's clock is set an hour ahead, and corrected later."""
    world.clock.turn(1)
    yield
    world.clock.turn(-1)


@kind
def webhooks_withheld(world: World) -> Trouble:
    """Some webhooks never come; the look at meetergo finds their bookings."""
    for _ in range(2):
        world.something_happens()
    yield
    world.command("reconcile")


@kind
def webhook_secret_rotates(world: World) -> Trouble:
    """A new webhook secret is added; the old one ends once it is no longer used."""
    before = world.secret
    world.secret = world.bridge.services.intake.secrets.add("default")
    yield
    world.command("secrets", "list")
    if before in world.bridge.services.intake.secrets.of("default"):
        world.command("secrets", "end", fingerprint(before))


@kind
def our_keys_rotate(world: World) -> Trouble:
    """People and scripts get a new key, and the earlier keys end."""
    world.command("keys", "revoke", "tester")
    world.bridge.client = world.bridge.sign_in()
    yield from ()


@kind
def encryption_keys_rotate(world: World) -> Trouble:
    """A new first key is added, all data is re-encrypted, and the old key is removed."""
    if not world.mapped:
        fresh = f"{KEY}{len(world.old)}{world.dice.random()}"
        world.keys.insert(0, fresh)
        world.restart()
        world.command("keys", "rotate")
        world.keys = [fresh]
        world.restart()
    yield from ()


# Mapping files


def mapping(world: World, change: Callable[[str], str]) -> Trouble:
    """A mapping file is changed, and changed back."""
    free = sorted(set(world.bridge.served) - world.mapped)
    if free:
        name = world.dice.choice(free)
        world.mapped.add(name)
        path = world.mappings / f"{name}.yaml"
        before = path.read_text(encoding="utf-8")
        path.write_text(change(before), encoding="utf-8")
        yield
        path.write_text(before, encoding="utf-8")
        world.mapped.discard(name)


@kind
def mapping_touched(world: World) -> Trouble:
    """Only the time of a file changes."""
    name = world.dice.choice(sorted(set(world.bridge.served) - world.mapped) or [""])
    if name:
        os.utime(world.mappings / f"{name}.yaml")
    yield from ()


@kind
def mapping_changed(world: World) -> Trouble:
    """A file changes, and bookings are made by it meanwhile."""
    return mapping(world, lambda text: text.replace("or 'Meeting'", "or 'Appointment'"))


@kind
def mapping_broken(world: World) -> Trouble:
    """A file is no longer YAML; the one before it stays in use."""
    return mapping(world, lambda text: f"{text}\nowner: [")


@kind
def mapping_unfit(world: World) -> Trouble:
    """A file names a field that the account lacks; the one before it stays in use."""
    return mapping(
        world,
        lambda text: text.replace(
            "contact:\n  fields:\n", "contact:\n  fields:\n    not_there: attendee.email\n"
        ),
    )
