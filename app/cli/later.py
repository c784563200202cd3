"""The services of a command: made when it asks for them, so that help and schema need no settings."""

from __future__ import annotations

import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
from flask.cli import ScriptInfo

from app.bootstrap import Services, begin, bootstrap, ready
from app.domain.errors import MappingError
from config.settings import Settings, SettingsError, load_mapping_places

EXTENSION = "bridge"
"""Where an application keeps its Later, for `flask --app app`."""


@dataclass
class Later:
    """Services that a command can ask for."""

    services: Services | None = None
    prepared: bool = False

    def wired(self) -> Services:
        """The services, wired; the database may not fit. Raises SystemExit with a message."""
        self.services = begin(self.services)
        return self.services

    def take(self) -> Services:
        """The services with a database that fits. Raises SystemExit with a message."""
        services = self.wired()
        if not self.prepared:
            ready(services)
            self.prepared = True
        return services

    def or_stand_in(self) -> Services:
        """The services; if settings or database are not there, the same with an empty database.

        Then a note says so on stderr. Raises ClickException if a mapping file in use is wrong.
        """
        try:
            self.services = self.services or bootstrap()
            if not self.prepared:
                self.services.prepare()
                self.prepared = True
        except MappingError as error:
            raise click.ClickException(str(error)) from None
        except SettingsError as error:
            click.echo(f"Note: this works without your bookings and accounts: {error}", err=True)
            self.services, self.prepared = _stand_in(), True
        return self.services


def later_of(context: click.Context) -> Later:
    """What a command of `bridge`, or of `flask --app app`, gets its services from."""
    found = context.find_object(Later)
    if found is None:
        app = context.ensure_object(ScriptInfo).load_app()
        found = app.extensions[EXTENSION]
    if not isinstance(found, Later):
        raise TypeError(f"{EXTENSION} is the name of another extension")
    return found


def _stand_in() -> Services:
    """Services with an empty database that lasts as long as the command."""
    folder = tempfile.TemporaryDirectory(prefix="bridge-")
    click.get_current_context().call_on_close(folder.cleanup)
    try:
        places = load_mapping_places()
        settings = Settings.model_construct(
            database_url=f"sqlite:///{Path(folder.name) / 'empty.sqlite3'}",
            secret_key=secrets.token_urlsafe(32),
            encryption_keys=secrets.token_urlsafe(32),
            meetergo_webhook_secrets="",
            mappings_dir=places.mappings_dir,
            providers_file=places.providers_file,
        )
        services = bootstrap(settings)
        services.prepare()
    except (SettingsError, MappingError) as error:
        raise click.ClickException(str(error)) from None
    return services
