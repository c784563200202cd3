"""The pages of the meetergo workspaces: their states, their keys, and the progress of walks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as WerkzeugResponse

from app.domain.events import read_time
from app.domain.roles import Permission
from app.services.sources import DEFAULT_SOURCE, SourceRules, UnknownSource
from app.web.access import me, needs, services
from config.settings import SignatureScheme, split_list

blueprint = Blueprint("sources", __name__)
Answer = WerkzeugResponse | str | tuple[str, int]
LONGEST = 500
"""The most characters of a field in the form."""


@blueprint.get("/sources")
@needs(Permission.SEE_SETUP)
def index() -> Answer:
    """Every source, its state, and the walks through its appointments."""
    return render_template("sources.html", sources=services().sources.views(), **_walks())


@blueprint.get("/walks")
@needs(Permission.SEE_SETUP)
def walks() -> Answer:
    """Show how far the walks are: the page asks again and again while one is under way."""
    return render_template("walks.html", **_walks())


@blueprint.get("/sources/new")
@needs(Permission.CHANGE_SETUP)
def new() -> Answer:
    """The form of a new source."""
    return _form(SourceRules(""), made=False)


@blueprint.get("/sources/<name>")
@needs(Permission.CHANGE_SETUP)
def show(name: str) -> Answer:
    """The form of one source."""
    return _form(_rules(name), made=True)


@blueprint.post("/sources")
@needs(Permission.CHANGE_SETUP)
def save() -> Answer:
    """Make a source, or change one; its secrets are made on the command line."""
    name = _field("name")
    made = "change" in request.form
    rules = _rules(name) if made else SourceRules(name)
    if not made and name in services().sources.names():
        return _form(rules, False, f"There is a source {name} already.")
    end = _field("key_ends_at")
    values: dict[str, Any] = {
        "scheme": SignatureScheme(_field("scheme") or rules.scheme.value),
        "header": _field("header") or rules.header,
        "company_ids": split_list(_field("company_ids")),
        "api_user_id": _field("api_user_id"),
        "key_ends_at": read_time(end) if end else None,
    }
    if _field("api_key"):
        values["api_key"] = _field("api_key")
    rules = replace(rules, **values)
    try:
        if end and rules.key_ends_at is None:
            raise ValueError("The end of the key is a date such as 2027-02-01.")
        services().sources.save(rules, me().name)
    except ValueError as error:
        return _form(rules, made, str(error))
    return redirect(url_for("sources.index"), 303)


@blueprint.post("/sources/<name>/end")
@needs(Permission.CHANGE_SETUP)
def end(name: str) -> Answer:
    """End a source."""
    try:
        services().sources.end(name, me().name)
    except ValueError as error:
        raise NotFound(str(error)) from None
    return redirect(url_for("sources.index"), 303)


def _walks() -> dict[str, Any]:
    found = services().catch_up.latest()
    return {"walks": found, "under_way": any(walk.ended_at is None for walk in found)}


def _form(rules: SourceRules, made: bool, problem: str = "") -> Answer:
    page = render_template(
        "source.html",
        rules=rules,
        made=made,
        fixed=rules.name == DEFAULT_SOURCE,
        schemes=list(SignatureScheme),
        problem=problem,
        csrf=me().csrf,
    )
    return (page, 400) if problem else page


def _field(name: str) -> str:
    return request.form.get(name, "").strip()[:LONGEST]


def _rules(name: str) -> SourceRules:
    try:
        return services().sources.rules(name)
    except UnknownSource:
        raise NotFound("There is no such source.") from None
