"""The bridge's web application; `flask --app app` and gunicorn find create_app here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from app.bootstrap import Services


def create_app(services: Services | None = None) -> Flask:
    """Make the Flask application; the schema is brought up to date first.

    Where `flask` looks for one of our commands, the command itself does that: `db` must not.
    Ends the process with a sentence where the settings, the mapping files or the database are not
    usable.
    """
    # Imported here: app.domain and app.mapping must load without Flask or a database.
    from app.bootstrap import begin, ready
    from app.cli import prepare_before, register_commands, seeks_command
    from app.web.factory import build_app
    from config.logging import start_logging

    sought = seeks_command()
    if sought:
        start_logging("cli")
    services = begin(services)
    if not sought:
        ready(services)
    app = build_app(services)
    register_commands(app, services)
    if sought:
        prepare_before(app.cli, lambda: ready(services))
    return app
