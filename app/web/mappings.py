"""The mapping files in use: versions, problems, and a page to try a file before it is used."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Blueprint, render_template, request
from werkzeug.exceptions import NotFound

from app.domain.roles import Permission
from app.services.mapping_trial import MAX_TEXT, MOST_BOOKINGS, Trial
from app.services.overview import MOST_OUTDATED
from app.services.questions import questions_seen
from app.store.models import ConnectionRow
from app.web.access import me, needs, services
from app.web.bookings import html_fields
from app.web.lookup import asked_connection, connected, find_connection, overview
from config.providers import Provider

blueprint = Blueprint("mappings", __name__, url_prefix="/mappings")


@dataclass(frozen=True)
class _Use:
    """A connection, and how many of its bookings were planned by another version of the file."""

    row: ConnectionRow
    outdated: int


@dataclass(frozen=True)
class MappingProblem:
    """What is wrong with a mapping file: the CRM, the message, and the account that it does not fit."""

    provider: str
    title: str
    words: str
    connection_id: int | None = None


@blueprint.get("")
@needs(Permission.SEE_SETUP)
def index() -> str:
    """Each provider's file with its version and problems, and the questions that it may ask for."""
    files, rows = services().mappings, connected()
    uses = {
        name: [
            _Use(row, overview().outdated(row.id, files[name].version))
            for row in rows
            if row.provider == name
        ]
        for name in services().providers
    }
    used = {name: files[name] for name in services().providers}
    seen = questions_seen(services().store, services().cipher, files=used)
    return render_template(
        "mappings.html", providers=services().providers, files=files, uses=uses,
        problems=mapping_problems(), seen=seen,
        most_outdated=MOST_OUTDATED,
    )  # fmt: skip


@blueprint.get("/<name>/try")
@needs(Permission.CHANGE_SETUP)
def ask(name: str) -> str:
    """A form with the file in use, to be changed and tried."""
    provider = find_provider(name)
    try:
        text = services().mappings.path(name).read_text(encoding="utf-8")
    except (OSError, ValueError):
        text = ""
    return _page(provider, text, next((r.id for r in connected() if r.provider == name), None))


@blueprint.post("/<name>/try")
@needs(Permission.CHANGE_SETUP)
def try_file(name: str) -> str:
    """Check a text, and show what it would do with last week's bookings; nothing is stored."""
    provider = find_provider(name)
    text = request.form.get("mapping", "").replace("\r\n", "\n")
    # The value 0 in the form means no account.
    none = request.form.get("connection") == "0"
    chosen = None if none else asked_connection(request.form)
    row = find_connection(chosen) if chosen else None
    if row is not None and row.provider != name:
        raise NotFound("There is no such connection.")
    return _page(provider, text, chosen, services().trial.try_text(name, text, row))


def mapping_problems() -> list[MappingProblem]:
    """Files that are broken as they are now, and files that do not fit an account."""
    titles = {name: provider.title for name, provider in services().providers.items()}
    found = [
        MappingProblem(name, title, problem)
        for name, title in titles.items()
        if (problem := services().mappings.problem(name))
    ]
    return found + [
        MappingProblem(
            row.provider, f"{titles[row.provider]}, {row.account}", row.mapping_problem, row.id
        )
        for row in connected()
        if row.mapping_problem and row.provider in titles
    ]


def _page(provider: Provider, text: str, chosen: int | None, trial: Trial | None = None) -> str:
    return render_template(
        "try.html",
        provider=provider,
        providers=services().providers,
        text=text,
        rows=[row for row in connected() if row.provider == provider.name],
        chosen=chosen,
        trial=trial,
        most=MOST_BOOKINGS,
        longest=MAX_TEXT,
        html_fields=html_fields(),
        csrf=me().csrf,
    )


def find_provider(name: str) -> Provider:
    """A CRM by its name. Raises NotFound."""
    provider = services().providers.get(name)
    if provider is None:
        raise NotFound(f"There is no CRM {name!r} here.")
    return provider
