"""The bridge's web application; `flask --app app` and gunicorn find create_app here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from app.bootstrap import Services


def create_app(services: Services | None = None) -> Flask:
    """Make the Flask application; the schema is brought up to date first.

    Ends the process with a sentence where the settings or the mapping files are not usable.
    """
    # Imported here: app.domain and app.mapping must load without Flask or a database.
    from app.bootstrap import ready
    from app.cli import register_commands
    from app.web.factory import build_app

    services = ready(services)
    app = build_app(services)
    register_commands(app, services)
    return app
