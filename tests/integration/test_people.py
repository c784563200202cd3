"""People who sign in with a password: guesses, sessions, the audit log, and the demo's sign-in."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select, text, update

from app.domain.roles import Role
from app.security import passwords
from app.services import users as users_module
from app.services.users import UserProblem
from app.store import audit
from app.store.access_models import UserRow, WebSession
from app.store.engine import utcnow
from app.web.tries import MOST_WRONG_ACCOUNT, WITHIN
from config.settings import Settings
from sandbox.browser import form_token
from tests.bridge import KEY, Bridge

ANNA, PASSWORD = "anna@example.com", "correct horse battery"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Bridge]:
    """The service with one user, an admin."""
    made = Bridge(f"sqlite:///{tmp_path}/bridge.sqlite3", ())
    made.services.users.create(ANNA, Role.ADMIN, "test", password=PASSWORD)
    yield made
    made.close()


def enter(
    web: Bridge, email: str = ANNA, password: str = PASSWORD, place: str = "198.51.100.1",
    browser: FlaskClient | None = None,
) -> tuple[FlaskClient, Any]:  # fmt: skip
    """Send the form; return the browser and the answer."""
    browser = browser or web.app.test_client()
    form = {"email": email, "password": password}
    return browser, browser.post("/sign-in", data=form, environ_base={"REMOTE_ADDR": place})


def token_of(browser: FlaskClient, path: str = "/account") -> str:
    return form_token(browser.get(path).get_data(as_text=True))


def test_who_guesses_passwords_has_to_wait(web: Bridge) -> None:
    """Ten wrong passwords for an account, from many addresses, make all strangers wait a minute."""
    for number in range(MOST_WRONG_ACCOUNT):
        assert (
            enter(web, password=f"guess {number}", place=f"203.0.113.{number}")[1].status_code
            == 401
        )
    answer = enter(web, place="203.0.113.99")[1]
    assert answer.status_code == 429 and 0 < int(answer.headers["Retry-After"]) <= WITHIN
    # Other accounts and keys do not feel it.
    web.services.users.create("bob@example.com", Role.SALES, "test", password=PASSWORD)
    assert enter(web, "bob@example.com")[1].status_code == 303
    assert web.client.get("/").status_code == 200


def test_strangers_shut_nobody_out(web: Bridge) -> None:
    """A browser in which the owner has signed in before gets in while strangers guess; no other."""
    browser, answer = enter(web)
    assert answer.status_code == 303
    bob = web.services.users.create("bob@example.com", Role.SALES, "test", password=PASSWORD)[0]
    known_for_bob, _ = enter(web, bob.email)
    for number in range(MOST_WRONG_ACCOUNT):
        enter(web, password="guess", place=f"203.0.113.{number}")
    assert enter(web, browser=known_for_bob)[1].status_code == 429
    assert enter(web, browser=browser)[1].status_code == 303
    # The cookie is no way to guess on: it has its own count.
    for _ in range(MOST_WRONG_ACCOUNT):
        assert enter(web, password="guess", browser=browser)[1].status_code == 401
    assert enter(web, browser=browser)[1].status_code == 429


def test_right_passwords_are_not_counted(web: Bridge) -> None:
    """Who signs in often, rightly, never waits."""
    for _ in range(MOST_WRONG_ACCOUNT + 1):
        assert enter(web)[1].status_code == 303


def test_an_unknown_address_answers_like_a_wrong_password(
    web: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same status, the same page and the same work, so that nobody learns who has a user."""
    worked: list[str] = []
    real = passwords._hasher.verify
    # A PasswordHasher takes no new attributes.
    noted = type("Noted", (), {"verify": lambda _, *args: worked.append("x") or real(*args)})()
    passwords._nobodys()
    monkeypatch.setattr(passwords, "_hasher", noted)
    pages = [enter(web, email, "wrong")[1] for email in (ANNA, "eve@example.com", "no address")]
    assert {page.status_code for page in pages} == {401}
    assert len({page.get_data() for page in pages}) == 1
    assert len(worked) == 3


def test_nothing_of_a_user_lies_in_clear(web: Bridge) -> None:
    """Neither the address nor the argon2id hash is readable in the database."""
    with web.services.store.engine.connect() as connection:
        (row,) = connection.execute(text("SELECT * FROM users")).mappings()
    stored = " ".join(map(str, row.values()))
    assert ANNA not in stored and "argon2" not in stored and PASSWORD not in stored
    with web.services.store.read() as session:
        found = session.scalars(select(UserRow)).one()
    assert str(web.services.users._password(found)).startswith("$argon2id$")


@pytest.mark.parametrize("password", ["short", "x" * 300, "aaaaaaaaaaaaaa", "eve@example.com"])
def test_a_weak_password_is_refused_in_words(web: Bridge, password: str) -> None:
    """Too short, too long, one sign repeated, the address itself."""
    with pytest.raises(UserProblem, match="assword"):
        web.services.users.create("eve@example.com", Role.SALES, "test", password=password)


def test_a_first_password_ends(web: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password that an admin has seen works for three days, and no longer."""
    made, first = web.services.users.create("eve@example.com", Role.SALES, "test")
    assert first is not None
    assert enter(web, made.email, first)[1].status_code == 303
    with web.services.store.write() as session:
        session.execute(
            update(UserRow)
            .where(UserRow.id == made.id)
            .values(password_ends_at=utcnow() - timedelta(seconds=1))
        )
    assert enter(web, made.email, first)[1].status_code == 401
    assert timedelta(days=3) == users_module.ONCE_LASTS


def test_a_new_password_ends_the_other_sessions(web: Bridge) -> None:
    """The present password is asked for; this session goes on, others end."""
    here, there = enter(web)[0], enter(web)[0]
    form = {
        "csrf": token_of(here),
        "present": "wrong",
        "password": "another good one",
        "again": "another good one",
    }
    assert here.post("/account/password", data=form).status_code == 400
    assert there.get("/").status_code == 200
    form["present"] = PASSWORD
    assert here.post("/account/password", data=form).status_code == 303
    assert here.get("/").status_code == 200
    assert there.get("/").headers["Location"] == "/sign-in"
    assert enter(web, password=PASSWORD)[1].status_code == 401


def test_sessions_are_listed_and_ended(web: Bridge) -> None:
    """Everybody ends their own sessions and no other; an admin ends any."""
    bob = web.services.users.create("bob@example.com", Role.SALES, "test", password=PASSWORD)[0]
    admin, sales, second = enter(web)[0], enter(web, bob.email)[0], enter(web, bob.email)[0]
    marks = {each.name: each.mark for each in web.services.sessions.open()}
    page = sales.get("/account").get_data(as_text=True)
    assert page.count('name="session"') == 2 and marks["anna"] not in page
    form = {"csrf": token_of(sales), "session": marks["anna"]}
    assert sales.post("/account/sessions/end", data=form).status_code == 404
    assert admin.get("/").status_code == 200
    with second.session_transaction() as cookie:
        mark = web.services.sessions.find(cookie["id"]).mark
    assert sales.post("/account/sessions/end", data={**form, "session": mark}).status_code == 303
    assert second.get("/").headers["Location"] == "/sign-in"
    for each in web.services.sessions.open():
        if each.name == "bob":
            form = {"csrf": token_of(admin), "session": each.mark}
            assert admin.post("/people/sessions/end", data=form).status_code == 303
    assert sales.get("/").headers["Location"] == "/sign-in"


def test_an_admin_makes_a_person_on_the_page(web: Bridge) -> None:
    """The page shows the first password once, and an admin cannot shut themselves out."""
    admin, _ = enter(web)
    form = {"csrf": token_of(admin), "email": "bob@example.com", "name": "Bob", "role": "sales"}
    page = admin.post("/people", data=form).get_data(as_text=True)
    password = page.partition("The password of Bob is <code>")[2].partition("<")[0]
    assert enter(web, "bob@example.com", password)[1].status_code == 303
    assert password not in admin.get("/people").get_data(as_text=True)
    assert admin.post("/people", data=form).status_code == 400
    me = web.services.users.by_email(ANNA)
    assert me is not None
    for act, more in (("role", {"role": "viewer"}), ("disable", {}), ("password", {})):
        answer = admin.post(f"/people/{me.id}/{act}", data={"csrf": form["csrf"], **more})
        assert answer.status_code == 400, act
    assert admin.get("/people").status_code == 200


def test_the_audit_log_is_found_by_person_act_and_day(web: Bridge) -> None:
    """Sign-ins, users and roles are noted; filters, pages by keyset, and CSV without formulas."""
    admin, _ = enter(web)
    users = web.services.users
    bob = users.create("bob@example.com", Role.SALES, "anna", name="=cmd()")[0]
    users.set_role(bob.id, Role.VIEWER, "anna")
    with web.services.store.write() as session:
        for number in range(250):
            audit.note(session, "old", "resync", f"act {number}", utcnow() - timedelta(days=40))
    page = admin.get("/audit").get_data(as_text=True)
    assert page.count("<tr>") == 101
    seen, path = [], "/audit"
    while path:
        page = admin.get(path).get_data(as_text=True)
        seen += [cell.partition("<")[0] for cell in page.split('data-label="Of what">')[1:]]
        path = page.partition('<p><a href="')[2].partition('">Older')[0].replace("&amp;", "&")
    assert len(seen) == len(set(seen)) >= 254 - 2
    today = f"{utcnow():%Y-%m-%d}"
    for query, there, gone in (
        ("actor=anna", "sign in", "act 1"), ("action=user_role", "sales to viewer", "act 1"),
        (f"from={today}", "user create", "act 1"), ("actor=old&to=" + today, "act 1", "viewer</td>"),
    ):  # fmt: skip
        rows = admin.get(f"/audit?{query}").get_data(as_text=True).partition("<tbody>")[2]
        assert there in rows and gone not in rows, query
    assert admin.get("/audit?from=nonsense").status_code == 400
    told = admin.get("/audit.csv?actor=anna")
    assert told.content_type.startswith("text/csv")
    lines = list(csv.reader(io.StringIO(told.get_data(as_text=True))))
    assert lines[0] == ["at_utc", "actor", "action", "subject"]
    assert {line[1] for line in lines[1:]} == {"anna"}
    assert [line[3] for line in lines if line[2] == "user_create"] == ["'=cmd(): sales"]
    assert len(list(csv.reader(io.StringIO(admin.get("/audit.csv").get_data(as_text=True))))) > 250


def test_a_removed_user_leaves_only_the_name(web: Bridge) -> None:
    """Address, password and sessions are gone; the log keeps who did what."""
    user = web.services.users.by_email(ANNA)
    assert user is not None
    browser, _ = enter(web)
    web.services.users.remove(user.id, "test")
    assert browser.get("/").headers["Location"] == "/sign-in"
    with web.services.store.read() as session:
        assert not session.scalars(select(UserRow)).all()
        assert not session.scalars(select(WebSession)).all()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Bridge]:
    """The service as the demo starts it."""
    made = Bridge(f"sqlite:///{tmp_path}/demo.sqlite3", (), demo_sign_in=True)
    yield made
    made.close()


def test_the_demo_signs_in_on_this_machine_alone(demo: Bridge) -> None:
    """A browser here is an admin called demo; through a proxy, from elsewhere, or by another name: no."""
    browser = demo.app.test_client()
    page = browser.get("/account").get_data(as_text=True)
    assert "<strong>demo</strong>" in page and "<strong>admin</strong>" in page
    assert browser.get("/people").status_code == 200
    cookie = browser.get_cookie("session")
    assert cookie is not None
    for kind in (
        {"environ_base": {"REMOTE_ADDR": "203.0.113.5"}},
        {"headers": {"X-Forwarded-For": "127.0.0.1"}},
        {"headers": {"Forwarded": "for=127.0.0.1"}},
        {"headers": {"Host": "evil.example"}},
        {"headers": {"Host": "127.0.0.1.evil.example"}},
    ):
        for stolen in (False, True):
            other = demo.app.test_client()
            if stolen:
                other.set_cookie("session", cookie.value, domain="evil.example")
                other.set_cookie("session", cookie.value)
            answer = other.get("/", **kind)
            assert answer.headers.get("Location") == "/sign-in", (kind, stolen)
    # A form of another site has no token; and nothing signs in where the setting is not set.
    assert browser.post("/people", data={"email": "eve@example.com"}).status_code == 400


def test_without_the_setting_nobody_is_signed_in(web: Bridge) -> None:
    """A browser on this machine has to sign in."""
    assert web.app.test_client().get("/").headers["Location"] == "/sign-in"


def test_the_demo_does_not_start_under_a_public_name() -> None:
    """DEMO_SIGN_IN with a PUBLIC_URL of another machine is refused in words."""
    with pytest.raises(ValueError, match="PUBLIC_URL must name this machine"):
        Settings(
            secret_key=KEY, encryption_keys=KEY, demo_sign_in=True, public_url="https://b.example"
        )
