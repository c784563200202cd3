"""The bridge's web application; `flask --app app` and gunicorn find create_app here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from app.bootstrap import Services


def create_app(services: Services | None = None) -> Flask:
    """Make the Flask application; the schema is brought up to date first.

    Where `flask` looks for one of our commands, there is nothing but the commands: each makes the
    services that it needs. Ends the process with a sentence where the settings, the mapping files or
    the database are not usable.
    """
    # Imported here: app.domain and app.mapping must load without Flask or a database.
    from flask import Flask

    from app.bootstrap import begin, ready
    from app.cli.tree import register_commands, seeks_command
    from app.web.factory import build_app
    from config.logging import start_logging

    if seeks_command():
        start_logging("cli")
        app = Flask("app")
        register_commands(app, services)
        return app
    services = begin(services)
    ready(services)
    app = build_app(services)
    register_commands(app, services)
    return app
