"""The people of the company who sign in: made, given roles, disabled; their passwords."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.domain.limits import USER_NAME
from app.domain.people import normalise_email
from app.domain.roles import Role, role_of
from app.domain.text import one_line
from app.security.encryption import Cipher
from app.security.passwords import (
    fits,
    hash_password,
    is_outdated,
    new_password,
    password_problem,
)
from app.services.sessions import DEMO, end_all_of
from app.store import audit
from app.store.access_models import UserRow, WebSession
from app.store.boxes import seal, unseal
from app.store.engine import Store, utcnow

ONCE_LASTS = timedelta(days=3)
"""How long a password lasts that another person has seen."""


class UserProblem(ValueError):
    """What was asked is not possible; the message says why and what to do."""


@dataclass(frozen=True)
class User:
    """A user, as pages and commands show one."""

    id: int
    email: str
    name: str
    role: Role
    has_password: bool
    created_at: datetime
    signed_in_at: datetime | None
    disabled_at: datetime | None


@dataclass(frozen=True)
class Identity:
    """Who the company's own server says that somebody is."""

    issuer: str
    subject: str
    email: str | None
    """Only an address that the server has verified."""
    name: str
    role: Role
    may_be_new: bool
    """Whether a user is made for somebody who has none yet."""
    sets_role: bool
    """Whether the server decides about the role at each sign-in."""


class Users:
    """The users of one service."""

    def __init__(self, store: Store, cipher: Cipher, now: Callable[[], datetime] = utcnow) -> None:
        self._store, self._cipher, self._now = store, cipher, now

    def create(
        self, email: str, role: Role, actor: str, name: str = "", password: str | None = None
    ) -> tuple[User, str | None]:
        """Make a user; return it, and the password for one use if none is given.

        Raises UserProblem.
        """
        address = _address(email)
        given = one_line(name) or ""
        self._refuse_weak(password, address, given)
        chosen = password or new_password()
        stored, now = hash_password(chosen), self._now()
        with self._store.write() as session:
            if self._find(session, address) is not None:
                raise UserProblem("There is a user with this address already.")
            row = self._add(session, address, role, given or address.partition("@")[0], bool(given))
            row.password_encrypted = seal(self._cipher, UserRow.password_encrypted, row, stored)
            row.password_ends_at = None if password else now + ONCE_LASTS
            audit.note(session, actor, "user_create", f"{row.name}: {role}", now)
            session.flush()
            made = self._view(row)
        return made, None if password else chosen

    def all(self) -> list[User]:
        """Every user, by name."""
        with self._store.read() as session:
            rows = session.scalars(select(UserRow).order_by(UserRow.name))
            return [self._view(row) for row in rows]

    def by_email(self, email: str) -> User | None:
        """The user with an address; None if there is none."""
        address = normalise_email(email)
        if address is None:
            return None
        with self._store.read() as session:
            row = self._find(session, address)
            return self._view(row) if row else None

    def account(self, email: str) -> str:
        """What stands for the account of an address, also if there is none: a keyed hash."""
        return self._hash(normalise_email(email) or email.strip().lower()[:USER_NAME])

    def check_password(self, email: str, password: str) -> int | None:
        """The number of the user with this address and password; None if there is none.

        It takes the same time for an address that nobody has. Raises BusyHashing.
        """
        address, now = normalise_email(email), self._now()
        with self._store.read() as session:
            row = self._find(session, address) if address else None
            stored = self._password(row)
            usable = row is not None and row.disabled_at is None and _lasts(row, now)
            number = row.id if row is not None else None
        good = fits(password, stored)
        if not good or not usable or number is None or stored is None:
            return None
        if is_outdated(stored):
            self._store_password(number, hash_password(password), stored)
        return number

    def set_role(self, user_id: int, role: Role, actor: str) -> User:
        """Give a user another role, which counts at once. Raises UserProblem."""
        with self._store.write() as session:
            row = _known(session, user_id)
            audit.note(
                session, actor, "user_role", f"{row.name}: {row.role} to {role}", self._now()
            )
            row.role = role
            return self._view(row)

    def disable(self, user_id: int, actor: str) -> User:
        """Let a user in no more, and end their sessions. Raises UserProblem."""
        with self._store.write() as session:
            row = _known(session, user_id)
            row.disabled_at = row.disabled_at or self._now()
            end_all_of(session, row.id)
            audit.note(session, actor, "user_disable", row.name, self._now())
            return self._view(row)

    def enable(self, user_id: int, actor: str) -> User:
        """Let a disabled user in again. Raises UserProblem."""
        with self._store.write() as session:
            row = _known(session, user_id)
            row.disabled_at = None
            audit.note(session, actor, "user_enable", row.name, self._now())
            return self._view(row)

    def remove(self, user_id: int, actor: str) -> None:
        """Delete a user with address, password and sessions; the audit log keeps the name.

        Raises UserProblem.
        """
        with self._store.write() as session:
            row = _known(session, user_id)
            for each in session.scalars(select(WebSession).where(WebSession.user_id == row.id)):
                session.delete(each)
            session.flush()
            audit.note(session, actor, "user_remove", row.name, self._now())
            session.delete(row)

    def reset_password(self, user_id: int, actor: str, password: str | None = None) -> str | None:
        """Give a user another password, and end their sessions.

        Return the password for one use if none is given. Raises UserProblem.
        """
        with self._store.read() as session:
            user = self._view(_known(session, user_id))
        self._refuse_weak(password, user.email, user.name)
        chosen = password or new_password()
        stored, now = hash_password(chosen), self._now()
        with self._store.write() as session:
            row = _known(session, user_id)
            row.password_encrypted = seal(self._cipher, UserRow.password_encrypted, row, stored)
            row.password_ends_at = None if password else now + ONCE_LASTS
            end_all_of(session, row.id)
            audit.note(session, actor, "password_reset", row.name, now)
        return None if password else chosen

    def choose_password(self, user_id: int, present: str, password: str, mark: str) -> None:
        """Set the password that a user has chosen; every session but the one with `mark` ends.

        Raises UserProblem, also if `present` is not the present one, and BusyHashing.
        """
        with self._store.read() as session:
            row = _known(session, user_id)
            before, user = self._password(row), self._view(row)
        if before is None:
            raise UserProblem(
                "You sign in through your company and have no password here; an admin can give you one."
            )
        if not fits(present, before):
            raise UserProblem("The present password is not the right one.")
        if password == present:
            raise UserProblem("Choose a password that is not the present one.")
        self._refuse_weak(password, user.email, user.name)
        stored = hash_password(password)
        with self._store.write() as session:
            row = _known(session, user_id)
            row.password_encrypted = seal(self._cipher, UserRow.password_encrypted, row, stored)
            row.password_ends_at = None
            end_all_of(session, row.id, but=mark)
            audit.note(session, row.name, "password_change", row.name, self._now())

    def identify(self, who: Identity) -> int:
        """The number of the user whom the company's own server has named.

        Found by the server's own id, else by the address; made if `who` may be new. Raises
        UserProblem.
        """
        subject = self._hash(f"oidc\0{who.issuer}\0{who.subject}")
        address = normalise_email(who.email) if who.email else None
        with self._store.write() as session:
            row = session.scalars(select(UserRow).where(UserRow.subject_hash == subject)).first()
            if row is None and address is not None:
                row = self._find(session, address)
                if row is not None and row.subject_hash is not None:
                    raise UserProblem(
                        "Another account of your company's sign-in has used this address here. An"
                        " admin has to remove that user first."
                    )
            row = row or self._welcome(session, who, address)
            if row.disabled_at is not None:
                raise UserProblem("Your user is disabled here. An admin can enable it.")
            row.subject_hash = subject
            if who.sets_role and row.role != who.role:
                words = f"{row.name}: {row.role} to {who.role}"
                audit.note(session, "oidc", "user_role", words, self._now())
                row.role = who.role
            session.flush()
            return row.id

    def _welcome(self, session: Session, who: Identity, address: str | None) -> UserRow:
        if address is None:
            raise UserProblem("Your company's sign-in names no verified e-mail address of yours.")
        if not who.may_be_new:
            raise UserProblem(
                "You have no user here yet. Ask an admin to make one with your e-mail address."
            )
        row = self._add(session, address, who.role, who.name or address.partition("@")[0], False)
        audit.note(session, "oidc", "user_create", f"{row.name}: {who.role}", self._now())
        return row

    def _add(
        self, session: Session, address: str, role: Role, name: str, as_given: bool
    ) -> UserRow:
        """Add a row; `as_given`: the name is refused if somebody has it, instead of numbered."""
        row = UserRow(
            email_hash=self._hash(address), name=self._free_name(session, name, as_given),
            role=role, created_at=self._now(),
        )  # fmt: skip
        row.email_encrypted = seal(self._cipher, UserRow.email_encrypted, row, address)
        session.add(row)
        return row

    def _free_name(self, session: Session, name: str, as_given: bool) -> str:
        name = (one_line(name) or "user")[: USER_NAME - 4]
        wanted, number = name, 1
        taken = set(session.scalars(select(UserRow.name))) | {DEMO, "cli", "api", "oidc"}
        while wanted in taken:
            if as_given:
                raise UserProblem("Another user has this name, or it is kept for the service.")
            number += 1
            wanted = f"{name} {number}"
        return wanted

    def _find(self, session: Session, address: str) -> UserRow | None:
        return session.scalars(
            select(UserRow).where(UserRow.email_hash == self._hash(address))
        ).first()

    def _hash(self, text: str) -> str:
        return self._cipher.keyed_hash(f"user\0{text}")

    def _password(self, row: UserRow | None) -> str | None:
        if row is None or row.password_encrypted is None:
            return None
        return unseal(self._cipher, UserRow.password_encrypted, row)

    def _store_password(self, user_id: int, stored: str, before: str) -> None:
        """Replace the stored form of a password, unless somebody has changed it meanwhile."""
        with self._store.write() as session:
            row = session.get(UserRow, user_id)
            if row is not None and self._password(row) == before:
                row.password_encrypted = seal(self._cipher, UserRow.password_encrypted, row, stored)

    def _view(self, row: UserRow) -> User:
        return User(
            row.id, unseal(self._cipher, UserRow.email_encrypted, row), row.name,
            role_of(row.role), row.password_encrypted is not None, row.created_at,
            row.signed_in_at, row.disabled_at,
        )  # fmt: skip

    def _refuse_weak(self, password: str | None, *names: str) -> None:
        problem = password_problem(password, *names) if password is not None else None
        if problem:
            raise UserProblem(problem)


def _address(email: str) -> str:
    address = normalise_email(email)
    if address is None:
        raise UserProblem("This is not an e-mail address.")
    return address


def _lasts(row: UserRow, now: datetime) -> bool:
    return row.password_ends_at is None or row.password_ends_at > now


def _known(session: Session, user_id: int) -> UserRow:
    row = session.get(UserRow, user_id)
    if row is None:
        raise UserProblem("There is no such user any more. Reload the page.")
    return row
