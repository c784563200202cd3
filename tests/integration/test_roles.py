"""Every route and every role, by table: who may do what, and that no page offers what is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from werkzeug.routing import Rule

from app.domain.roles import Permission, Role
from app.services.sources import SourceRules
from app.store.all_tables import metadata
from app.store.models import BookingRow
from sandbox.browser import form_token
from tests.bridge import SECRET, Bridge, sample

ALL = "admin developer sales viewer"
WORK = "admin developer sales"
SETUP = "admin developer viewer"
CHANGE = "admin developer"
ADMIN = "admin"
OPEN = "nobody has to sign in"
ROUTES = {
    "static": OPEN, "webhooks.receive": OPEN, "health.healthz": OPEN, "health.readyz": OPEN,
    "dashboard.sign_in_page": OPEN, "dashboard.sign_in_form": OPEN, "api.openapi": OPEN,
    "openid.start": OPEN, "openid.callback": OPEN,
    "metrics.metrics": "on this machine, or any key",
    "dashboard.index": ALL, "dashboard.sign_out": ALL, "dashboard.events": SETUP, "dashboard.event": SETUP, "dashboard.replay": WORK,
    "account.show": ALL, "account.choose_password": ALL, "account.end": ALL,
    "bookings.index": ALL, "bookings.as_json": ALL, "bookings.as_csv_file": ALL,
    "bookings.show": ALL, "bookings.ask_preview": ALL,
    "bookings.outcome": WORK, "bookings.sync": WORK,
    "causes.index": ALL, "causes.as_json": ALL, "causes.as_csv_file": ALL, "causes.show": ALL,
    "causes.retry": WORK, "causes.stop": WORK, "causes.ignore": WORK, "causes.unignore": WORK,
    "connections.show": SETUP, "connections.start": CHANGE, "connections.callback": CHANGE,
    "connections.more": CHANGE, "connections.ask_host": CHANGE, "connections.check": CHANGE,
    "connections.resume": CHANGE, "connections.ask_disconnect": CHANGE,
    "connections.disconnect": CHANGE, "connections.ask_key": CHANGE, "connections.add_key": CHANGE,
    "mappings.index": SETUP, "mappings.ask": CHANGE, "mappings.try_file": CHANGE,
    "mapping_file.show": SETUP, "mapping_file.version": SETUP, "mapping_file.check": CHANGE,
    "mapping_file.ask_preview": CHANGE, "mapping_file.preview": CHANGE,
    "sources.index": SETUP, "sources.walks": SETUP, "sources.new": CHANGE, "sources.show": CHANGE,
    "sources.save": CHANGE, "sources.end": CHANGE,
    "people.index": ADMIN, "people.create": ADMIN, "people.set_role": ADMIN,
    "people.disable": ADMIN, "people.enable": ADMIN, "people.reset_password": ADMIN,
    "people.end": ADMIN, "audit.index": ADMIN, "audit.as_csv": ADMIN,
    "api.bookings": ALL, "api.booking": ALL, "api.preview": ALL, "api.outcome": WORK,
    "api.connections": SETUP, "api.sources": SETUP, "api.erase": ADMIN, "api.export": ADMIN,
}  # fmt: skip
"""Every route of the service -> the roles that may use it."""
GUARDED = {name: words.split() for name, words in ROUTES.items() if words.split()[0] in list(Role)}
PASSWORD = "correct horse battery"
SECRETS = ("ak-of-berlin", SECRET)


@pytest.fixture(scope="module")
def staffed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    """The service with one CRM, one booking that took place, and a user and a key of each role."""
    url = f"sqlite:///{tmp_path_factory.mktemp('staffed')}/a.sqlite3"
    made = Bridge(url, ("hubspot",)).connect_all()
    made.sync(
        sample("booking_created", startTime="2026-01-01T10:00:00Z", endTime="2026-01-01T10:30:00Z")
    )
    for role in Role:
        made.services.users.create(f"{role}@example.com", role, "test", password=PASSWORD)
    yield made
    made.close()


def signed_in(bridge: Bridge, role: str) -> FlaskClient:
    """Return a browser in which the user of a role has signed in."""
    browser = bridge.app.test_client()
    form = {"email": f"{role}@example.com", "password": PASSWORD}
    assert browser.post("/sign-in", data=form).status_code == 303
    return browser


def address(bridge: Bridge, rule: Rule) -> str:
    """Return an address of a route that names what is not there, so that nothing changes."""
    values = {
        "name": "nope",
        "key": "nope",
        "connection_id": 99,
        "user_id": 99,
        "filename": "no.css",
        "version": "nope",
        "event_id": 99,
    }
    return bridge.app.url_map.bind("localhost").build(
        rule.endpoint, {name: values[name] for name in rule.arguments}, force_external=False,
        method=next(iter(methods(rule))),
    )  # fmt: skip


def methods(rule: Rule) -> set[str]:
    return (rule.methods or set()) - {"HEAD", "OPTIONS"}


def rules(bridge: Bridge) -> list[Rule]:
    return list(bridge.app.url_map.iter_rules())


def test_the_table_names_every_route(staffed: Bridge) -> None:
    """A route without an entry fails here, and so does an entry without a route or a guard."""
    assert {rule.endpoint for rule in rules(staffed)} == set(ROUTES)
    for name in GUARDED:
        view = staffed.app.view_functions[name]
        assert isinstance(getattr(view, "permission", None), Permission), name
    for name in set(ROUTES) - set(GUARDED):
        assert not hasattr(staffed.app.view_functions[name], "permission"), name


@pytest.mark.parametrize("role", [*Role, None], ids=str)
def test_each_role_gets_what_the_table_says(staffed: Bridge, role: Role | None) -> None:
    """Every route with every role: 403 without the right, never with it; nobody is sent to sign in."""
    browser = signed_in(staffed, role) if role else staffed.app.test_client()
    csrf = form_token(browser.get("/account").get_data(as_text=True))
    key = staffed.services.keys.create("script", "test", role) if role else "wrong"
    wrong = []
    for rule in rules(staffed):
        if rule.endpoint not in GUARDED or rule.endpoint == "dashboard.sign_out":
            continue
        path, api = address(staffed, rule), rule.endpoint.startswith("api.")
        for method in methods(rule):
            headers = {"Authorization": f"Bearer {key}"} if api else {}
            data: dict[str, Any] = {"json": {}} if api and method == "POST" else {}
            if not api and method == "POST":
                data = {"data": {"csrf": csrf}}
            status = browser.open(path, method=method, headers=headers, **data).status_code
            if role is None:
                good = status == (401 if api else 303)
            elif role in GUARDED[rule.endpoint]:
                good = status not in (401, 403, 303) and status < 500
            else:
                good = status == 403
            wrong += [] if good else [(rule.endpoint, method, status)]
    assert wrong == []


def contents(bridge: Bridge) -> dict[str, Any]:
    """Return all rows that an act could change: all but sessions."""
    with bridge.services.store.read() as session:
        return {
            table.name: [tuple(row) for row in session.execute(select(table).order_by(*table.primary_key))]
            for table in metadata.sorted_tables
            if table.name != "web_sessions"
        }  # fmt: skip


def test_a_viewer_changes_nothing(staffed: Bridge) -> None:
    """Whatever a viewer sends to any route, and whatever is there, the tables stay as they are."""
    browser = signed_in(staffed, Role.VIEWER)
    key = staffed.services.keys.create("viewer", "test", Role.VIEWER)
    csrf = form_token(browser.get("/account").get_data(as_text=True))
    with staffed.services.store.read() as session:
        booking = session.scalars(select(BookingRow.key)).one()
    before = contents(staffed)
    form = {"csrf": csrf, "outcome": "held", "parked": "discard", "name": "berlin", "key": "pat-1",
            "email": "eve@example.com", "role": "admin", "mapping": "x"}  # fmt: skip
    there = {"name": "hubspot", "key": booking, "connection_id": 1, "user_id": 1, "filename": "x",
             "version": "x", "event_id": 1}  # fmt: skip
    for rule in rules(staffed):
        if rule.endpoint in ("dashboard.sign_out", "dashboard.sign_in_form", "webhooks.receive"):
            continue
        values = {name: there[name] for name in rule.arguments}
        for method in methods(rule):
            path = staffed.app.url_map.bind("localhost").build(rule.endpoint, values, method=method)
            if rule.endpoint.startswith("api."):
                bearer = {"Authorization": f"Bearer {key}"}
                body = {"outcome": "held", "email": "jane.van.der.berg@example.com"}
                data = {"json": body} if method == "POST" else {}
                browser.open(path, method=method, headers=bearer, **data)
            else:
                browser.open(path, method=method, data=form if method == "POST" else None)
    assert contents(staffed) == before


def wanders(bridge: Bridge, browser: FlaskClient) -> dict[str, str]:
    """Return every page that links lead to from the first one, with its text."""
    seen: dict[str, str] = {}
    ahead = ["/"]
    while ahead:
        path = ahead.pop()
        if path in seen:
            continue
        answer = browser.get(path)
        assert answer.status_code == 200, (path, answer.status_code)
        seen[path] = answer.get_data(as_text=True)
        if "html" in answer.content_type:
            ahead += [unescape(link) for link in re.findall(r'href="(/[^"#]*)', seen[path])]
    return seen


@pytest.mark.parametrize("role", list(Role))
def test_no_page_offers_what_would_be_refused(staffed: Bridge, role: Role) -> None:
    """Every link and form on every page that a role can reach leads to a route that it may use."""
    pages = wanders(staffed, signed_in(staffed, role))
    assert len(pages) > 3
    matcher = staffed.app.url_map.bind("localhost")
    offered = set()
    for page in pages.values():
        for action in re.findall(r'method="post" action="([^"]+)"', page):
            address = unescape(action).partition("#")[0]
            endpoint, _ = matcher.match(address, method="POST")
            offered.add(endpoint)
    assert {name for name in offered if role not in GUARDED[name]} == set()
    assert ("bookings.sync" in offered) == (role in GUARDED["bookings.sync"])
    assert ("connections.start" in offered) == (role in GUARDED["connections.start"])


def test_nobody_sees_a_secret_and_sales_no_source(staffed: Bridge) -> None:
    """No page of any role holds a token, a key or a secret; sales sees nothing of the set-up."""
    services = staffed.services
    if "berlin" not in services.sources.names():
        services.sources.save(SourceRules("berlin", api_key="ak-of-berlin"), "test")
    row = staffed.connection("hubspot")
    token = services.tokens.token(row.id)
    for role in Role:
        pages = wanders(staffed, signed_in(staffed, role))
        for path, page in pages.items():
            for secret in (*SECRETS, token):
                assert secret not in page, (role, path)
            assert "$argon2" not in page, (role, path)
        if role is Role.SALES:
            assert not [p for p in pages if p.startswith(("/sources", "/connections", "/mappings"))]


def test_a_role_counts_from_the_next_click(staffed: Bridge) -> None:
    """Who is given another role, or disabled, feels it in the session that is open."""
    users = staffed.services.users
    made, password = users.create("eve@example.com", Role.DEVELOPER, "test")
    browser = staffed.app.test_client()
    form = {"email": "eve@example.com", "password": password}
    assert browser.post("/sign-in", data=form).status_code == 303
    page = browser.get("/account").get_data(as_text=True)
    # A password that an admin has seen opens nothing but the page to choose another one.
    assert browser.get("/sources").headers["Location"] == "/account"
    change = {
        "csrf": form_token(page),
        "present": password,
        "password": PASSWORD,
        "again": PASSWORD,
    }
    assert browser.post("/account/password", data=change).status_code == 303
    assert browser.get("/sources/new").status_code == 200
    users.set_role(made.id, Role.VIEWER, "test")
    assert browser.get("/sources/new").status_code == 403
    users.disable(made.id, "test")
    assert browser.get("/sources").headers["Location"] == "/sign-in"
    form["password"] = PASSWORD
    assert browser.post("/sign-in", data=form).status_code == 401
    users.enable(made.id, "test")
    assert browser.post("/sign-in", data=form).status_code == 303


def test_an_older_key_may_do_everything(staffed: Bridge) -> None:
    """A key without a role, as all were before there were roles, is an admin's."""
    key = staffed.services.keys.create("older", "test")
    browser = staffed.app.test_client()
    assert browser.post("/sign-in", data={"key": key}).status_code == 303
    assert browser.get("/people").status_code == 200
    bearer = {"Authorization": f"Bearer {key}"}
    answer = browser.post("/api/v1/privacy/export", json={"email": "x@example.com"}, headers=bearer)
    assert answer.status_code == 200
