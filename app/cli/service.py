"""`bridge check | doctor | sweep | version`: the service as a whole."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import click

from app.bootstrap import Services
from app.cli.command import Answer, Needs, command, many
from app.cli.connections import must_exist
from app.domain.errors import MappingError
from app.mapping.load import read_text
from app.security.encryption import Cipher
from app.services.findings import Finding, Health
from app.services.overview import Overview
from app.store.engine import DBAPIError, PoolTimeout, Store
from app.store.rekey import MissingKey, check_keys
from app.store.schema import SchemaFit
from config.providers import load_providers
from config.settings import (
    Settings,
    SettingsError,
    load_listening,
    load_mapping_places,
    load_observing,
    load_settings,
    split_list,
)
from config.version import VERSION

MARKS = {Health.GOOD: ("✓", "green"), Health.NOTE: ("!", "yellow"), Health.BAD: ("✗", "red")}


@command("check", "bridge check", needs=Needs.NOTHING)
def check() -> Answer:
    """Check settings, mapping files and database; calls no CRM, as `doctor` does."""
    return _told(list(_check()))


@command("doctor", "bridge doctor --connection 1")
@click.option("--connection", type=int, help="Only this connection.")
@click.option("--notify", is_flag=True, help="Also send a test message to NOTIFY_URLS.")
def doctor(services: Services, connection: int | None, notify: bool) -> Answer:
    """Examine service and connections end to end; exit 1 if there is something to fix."""
    if connection is not None:
        must_exist(services, connection)
    found = list(services.doctor.examine(connection))
    if notify:
        taken = services.notifier.test()
        detail = f"{taken.count(True)} of {len(taken)} targets accepted the test message."
        verdict = Health.BAD if taken.count(False) else Health.GOOD
        found.append(Finding("service", "test message", verdict, detail, "Correct NOTIFY_URLS."))
    return _told(found)


@command("version", "bridge version", needs=Needs.NOTHING)
def version() -> Answer:
    """Show the version of this service."""
    return Answer({"version": VERSION}, [VERSION])


@command("sweep", "bridge sweep")
def sweep(services: Services) -> Answer:
    """Wake the workers for every connection with due work."""
    due = Overview(services.store, services.cipher).with_work()
    if not services.waker.wake(due):
        raise click.ClickException("Redis does not answer at REDIS_URL.")
    return Answer({"connections": due}, [f"{many(len(due), 'connection')} woken."])


def _told(findings: Sequence[Finding]) -> Answer:
    shown = []
    for found in findings:
        mark, colour = MARKS[found.verdict]
        shown.append(click.style(f"{mark} {found.subject} · {found.check}", fg=colour))
        if found.detail:
            shown += [f"    {line}" for line in found.detail.splitlines()]
        if found.fix and found.verdict is not Health.GOOD:
            shown.append(f"    → {found.fix}")
    bad = sum(found.verdict is Health.BAD for found in findings)
    if not bad:
        shown.append("Nothing to fix.")
    problem = f"{many(bad, 'thing')} to fix." if bad else ""
    return Answer({"bad": bad, "findings": findings}, shown, problem)


def _check() -> Iterator[Finding]:
    settings, mistakes = None, []
    for load in (load_settings, load_listening, load_observing):
        try:
            loaded = load()
        except SettingsError as error:
            mistakes.append(str(error))
        else:
            settings = loaded if isinstance(loaded, Settings) else settings
    words = "\n".join(mistakes)
    fix = "Set the variables in the environment or in .env; docs/settings.md explains each."
    yield Finding("settings", "variables", Health.BAD if words else Health.GOOD, words, fix)
    yield from _check_mappings()
    if settings is not None:
        yield _check_database(settings)


def _check_mappings() -> Iterator[Finding]:
    try:
        places = load_mapping_places()
        providers = load_providers(places.providers_file, os.environ)
    except SettingsError as error:
        yield Finding("mappings", "providers", Health.BAD, str(error), "Correct the file.")
        return
    for name in providers:
        path = places.mappings_dir / f"{name}.yaml"
        try:
            mistakes = read_text(path, name).lines()
        except MappingError as error:
            mistakes = [str(error)]
        verdict = Health.BAD if mistakes else Health.GOOD
        fix = f"Correct {path}; `bridge mappings check FILE` checks a draft."
        yield Finding("mappings", path.name, verdict, "\n".join(mistakes), fix)


def _check_database(settings: Settings) -> Finding:
    def told(verdict: Health, detail: str, fix: str = "") -> Finding:
        return Finding("database", "schema and keys", verdict, detail, fix)

    try:
        store = Store(settings.database_url)
    except ValueError as error:
        return told(Health.BAD, f"DATABASE_URL is not usable: {error}.", "Correct DATABASE_URL.")
    try:
        state = store.schema.state()
        if state.fit is SchemaFit.FITS:
            check_keys(store, Cipher(split_list(settings.encryption_keys)))
    except MissingKey as error:
        return told(Health.BAD, str(error), "Correct ENCRYPTION_KEYS.")
    except (DBAPIError, PoolTimeout, OSError) as error:
        return told(Health.BAD, store.explain(error), "Correct DATABASE_URL, or the database.")
    finally:
        store.close()
    verdict = {SchemaFit.FITS: Health.GOOD, SchemaFit.NEWER: Health.BAD}
    return told(verdict.get(state.fit, Health.NOTE), state.advice)
