"""`bridge users …`: the people who sign in to the pages, and what they may do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import click

from app.bootstrap import Services
from app.cli.command import Answer, Group, command, listing
from app.domain.roles import Role
from app.services.users import User, UserProblem

users = Group("users", help="People who sign in with a password or through the company's server.")
ROLE = click.Choice([role.value for role in Role])
ASK = click.option("--ask", is_flag=True, help="Ask for the password instead of making one.")
ONCE = "It works for three days, and the first sign-in asks for another one."


@command("create", "bridge users create --email anna@example.com --role admin", users)
@click.option("--email", required=True, help="The address to sign in with.")
@click.option("--role", type=ROLE, required=True, help="What the person may do.")
@click.option("--name", default="", help="How pages name the person; else the part before the @.")
@ASK
def create(services: Services, email: str, role: str, name: str, ask: bool) -> Answer:
    """Make a user, and show a password for the first sign-in; it is not shown again."""
    chosen = _asked(ask)
    made, password = _tried(
        lambda: services.users.create(email, Role(role), "cli", name=name, password=chosen)
    )
    return _with_password(_told(made), password, f"{made.name} may sign in as {made.role}.")


@command("list", "bridge users list", users)
def list_(services: Services) -> Answer:
    """List the users: name, address, role, last sign-in."""
    columns = {
        "name": "name", "address": "email", "role": "role", "last sign-in (UTC)": "signed_in_at",
        "disabled (UTC)": "disabled_at",
    }  # fmt: skip
    items = [_told(user) for user in services.users.all()]
    empty = "There is no user yet: `bridge users create --email ADDRESS --role admin`."
    return listing("users", items, columns, empty)


@command("set-role", "bridge users set-role anna@example.com sales", users)
@click.argument("email")
@click.argument("role", type=ROLE)
def set_role(services: Services, email: str, role: str) -> Answer:
    """Give a user another role; it counts at once."""
    user = _known(services, email)
    changed = _tried(lambda: services.users.set_role(user.id, Role(role), "cli"))
    return Answer(_told(changed), [f"{changed.name} is now {changed.role}."])


@command("disable", "bridge users disable anna@example.com", users)
@click.argument("email")
def disable(services: Services, email: str) -> Answer:
    """Let a user in no more, and end the open sessions."""
    user = _known(services, email)
    changed = _tried(lambda: services.users.disable(user.id, "cli"))
    return Answer(_told(changed), [f"{changed.name} is disabled, and every session has ended."])


@command("enable", "bridge users enable anna@example.com", users)
@click.argument("email")
def enable(services: Services, email: str) -> Answer:
    """Let a disabled user in again."""
    user = _known(services, email)
    changed = _tried(lambda: services.users.enable(user.id, "cli"))
    return Answer(_told(changed), [f"{changed.name} may sign in again."])


@command("reset-password", "bridge users reset-password anna@example.com", users)
@click.argument("email")
@ASK
def reset_password(services: Services, email: str, ask: bool) -> Answer:
    """Give a user another password, and end the open sessions."""
    user, chosen = _known(services, email), _asked(ask)
    password = _tried(lambda: services.users.reset_password(user.id, "cli", chosen))
    return _with_password(_told(user), password, f"{user.name} has a new password.")


@command("remove", "bridge users remove anna@example.com", users)
@click.argument("email")
def remove(services: Services, email: str) -> Answer:
    """Delete a user with address and password; the audit log keeps the name."""
    user = _known(services, email)
    _tried(lambda: services.users.remove(user.id, "cli"))
    return Answer({"removed": user.name}, [f"{user.name} is removed."])


def _known(services: Services, email: str) -> User:
    user = services.users.by_email(email)
    if user is None:
        raise click.ClickException("There is no user with this address: see `bridge users list`.")
    return user


def _asked(ask: bool) -> str | None:
    if not ask:
        return None
    text: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return text


def _told(user: User) -> dict[str, Any]:
    return asdict(user)


def _with_password(told: dict[str, Any], password: str | None, words: str) -> Answer:
    if password is None:
        return Answer(told, [words])
    return Answer({**told, "password": password}, [f"{words} The password: {password}", ONCE])


def _tried(act: Callable[[], Any]) -> Any:
    try:
        return act()
    except UserProblem as error:
        raise click.ClickException(str(error)) from None
