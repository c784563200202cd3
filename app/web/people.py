"""The page of the users: who they are, what they may do, and all sessions that are open."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.exceptions import BadRequest, NotFound
from werkzeug.wrappers import Response as WerkzeugResponse

from app.domain.limits import LARGEST_ID
from app.domain.roles import Permission, Role
from app.services.users import User, UserProblem
from app.web.access import me, needs, services

blueprint = Blueprint("people", __name__, url_prefix="/people")
Answer = WerkzeugResponse | str | tuple[str, int]
LONGEST = 300
"""The most characters of a field in the form."""


@blueprint.get("")
@needs(Permission.MANAGE_PEOPLE)
def index() -> Answer:
    """Every user and every open session."""
    return _page()


@blueprint.post("")
@needs(Permission.MANAGE_PEOPLE)
def create() -> Answer:
    """Make a user, and show the password for one use."""
    role = _role()
    try:
        made, password = services().users.create(
            _field("email"), role, me().name, name=_field("name")
        )
    except UserProblem as error:
        return _page(str(error), 400)
    return _page(fresh=(made.name, password))


@blueprint.post("/<int:user_id>/role")
@needs(Permission.MANAGE_PEOPLE)
def set_role(user_id: int) -> Answer:
    """Give a user another role."""
    role = _role()
    return _act(user_id, lambda number: services().users.set_role(number, role, me().name))


@blueprint.post("/<int:user_id>/disable")
@needs(Permission.MANAGE_PEOPLE)
def disable(user_id: int) -> Answer:
    """Let a user in no more."""
    return _act(user_id, lambda number: services().users.disable(number, me().name))


@blueprint.post("/<int:user_id>/enable")
@needs(Permission.MANAGE_PEOPLE)
def enable(user_id: int) -> Answer:
    """Let a disabled user in again."""
    return _act(user_id, lambda number: services().users.enable(number, me().name))


@blueprint.post("/<int:user_id>/password")
@needs(Permission.MANAGE_PEOPLE)
def reset_password(user_id: int) -> Answer:
    """Give a user a new password for one use, and show it once."""
    user = _other(user_id)
    try:
        password = services().users.reset_password(user.id, me().name)
    except UserProblem as error:
        return _page(str(error), 400)
    return _page(fresh=(user.name, password))


@blueprint.post("/sessions/end")
@needs(Permission.MANAGE_PEOPLE)
def end() -> Answer:
    """End somebody's session."""
    if not services().sessions.end_marked(request.form.get("session", ""), me().name):
        raise NotFound("There is no such session, or it has ended.")
    return redirect(url_for("people.index"), 303)


def _act(user_id: int, act: Callable[[int], object]) -> Answer:
    user = _other(user_id)
    try:
        act(user.id)
    except UserProblem as error:
        return _page(str(error), 400)
    return redirect(url_for("people.index"), 303)


def _other(user_id: int) -> User:
    """A user who is somebody else. Raises NotFound and BadRequest."""
    users = services().users.all() if 0 < user_id <= LARGEST_ID else []
    found = next((user for user in users if user.id == user_id), None)
    if found is None:
        raise NotFound("There is no such user.")
    if found.id == me().user_id:
        # Nobody shuts themselves out by a slip.
        raise BadRequest("You cannot change your own role or access: another admin can.")
    return found


def _role() -> Role:
    wanted = request.form.get("role", "")
    if wanted not in list(Role):
        raise BadRequest(f"The role is one of: {', '.join(Role)}.")
    return Role(wanted)


def _field(name: str) -> str:
    return request.form.get(name, "").strip()[:LONGEST]


def _page(
    problem: str = "", status: int = 200, fresh: tuple[str, str | None] | None = None
) -> Answer:
    page = render_template(
        "people.html",
        users=services().users.all(),
        roles=list(Role),
        sessions=services().sessions.open(),
        problem=problem,
        fresh=fresh,
        csrf=me().csrf,
    )
    return page, status
