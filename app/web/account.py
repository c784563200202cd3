"""The page of whoever is signed in: name, role, password, and the sessions that are open."""

from __future__ import annotations

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as WerkzeugResponse

from app.domain.roles import Permission, may
from app.security.passwords import LEAST
from app.services.users import UserProblem
from app.web.access import me, needs, services, tried_password
from app.web.access import sign_out as end_session

blueprint = Blueprint("account", __name__, url_prefix="/account")
Answer = WerkzeugResponse | str | tuple[str, int]
WORDS = {
    Permission.SEE_BOOKINGS: "see bookings and how the CRMs are",
    Permission.SYNC_BOOKINGS: "sync a booking again",
    Permission.SAY_OUTCOMES: "say how a meeting went",
    Permission.SEE_SETUP: "see connections, mappings, webhooks and sources",
    Permission.CHANGE_SETUP: "connect CRMs, change sources, try mappings",
    Permission.SEE_AUDIT: "see who did what",
    Permission.MANAGE_PEOPLE: "make users, give roles, end sessions",
    Permission.ANSWER_REQUESTS: "export and erase the data of people who book",
}


@blueprint.get("")
@needs(Permission.OWN_ACCOUNT)
def show() -> Answer:
    """What the person may do, and where they are signed in."""
    return _page()


@blueprint.post("/password")
@needs(Permission.OWN_ACCOUNT)
def choose_password() -> Answer:
    """Take the password that the person has chosen; their other sessions end."""
    person, password = me(), request.form.get("password", "")
    user_id = person.user_id
    if user_id is None:
        raise NotFound("You have signed in without a user, so there is no password to change.")
    if password != request.form.get("again", ""):
        return _page("The two new passwords differ.", 400)
    present, problems = request.form.get("present", ""), []

    def change() -> bool | None:
        try:
            services().users.choose_password(user_id, present, password, person.mark)
        except UserProblem as error:
            problems.append(str(error))
            return None
        return True

    if not tried_password(f"user {user_id}", change):
        return _page(problems[0], 400)
    return redirect(url_for("account.show"), 303)


@blueprint.post("/sessions/end")
@needs(Permission.OWN_ACCOUNT)
def end() -> Answer:
    """End one of the person's own sessions, perhaps this one."""
    person, mark = me(), request.form.get("session", "")
    if mark == person.mark:
        end_session()
        return redirect(url_for("dashboard.sign_in_page"), 303)
    if not services().sessions.end_marked(mark, person.name, owner=person):
        raise NotFound("You have no such session, or it has ended.")
    return redirect(url_for("account.show"), 303)


def _page(problem: str = "", status: int = 200) -> Answer:
    person = me()
    page = render_template(
        "account.html",
        person=person,
        abilities=[words for each, words in WORDS.items() if may(person.role, each)],
        sessions=services().sessions.open(person),
        problem=problem,
        least=LEAST,
        csrf=person.csrf,
    )
    return page, status
