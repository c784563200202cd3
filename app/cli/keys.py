"""`bridge keys …`: API keys, and the keys that data is encrypted with."""

from __future__ import annotations

import click
from rich.console import Console
from rich.progress import Progress

from app.bootstrap import Services
from app.cli.command import Answer, Group, command, listing, many
from app.cli.tables import in_words
from app.domain.roles import Role
from app.store.rekey import rekey

keys = Group("keys", help="API keys; people also sign in to the pages with them.")


@command("create", "bridge keys create anna", keys)
@click.argument("name")
@click.option(
    "--role", type=click.Choice([role.value for role in Role]),
    help="What the key may do; without it, everything.",
)  # fmt: skip
def create(services: Services, name: str, role: str | None) -> Answer:
    """Create a key and show it; it is not shown again."""
    key = services.keys.create(name, "cli", Role(role) if role else None)
    return Answer({"name": name, "key": key, "role": role or Role.ADMIN}, [key])


@command("revoke", "bridge keys revoke anna", keys)
@click.argument("name")
def revoke(services: Services, name: str) -> Answer:
    """Revoke every key with this name."""
    number = services.keys.revoke(name, "cli")
    if not number:
        raise click.ClickException(f"There is no valid key named {name!r}.")
    told = f"{many(number, 'key')} named {name!r} revoked."
    return Answer({"name": name, "revoked": number}, [told])


@command("list", "bridge keys list", keys)
def list_(services: Services) -> Answer:
    """List the keys; also the start and the last use of their open browser sessions."""
    alive = services.sessions.alive()
    items = []
    for row in services.keys.all():
        own = [(s.created_at, s.seen_at) for s in alive.get(row.id, [])]
        items.append(
            {
                "id": row.id, "name": row.name, "role": row.role or Role.ADMIN.value,
                "created_at": row.created_at, "revoked_at": row.revoked_at,
                "sessions": [{"started_at": began, "last_used_at": used} for began, used in own],
                "shown": [f"{in_words(began)} to {in_words(used)}" for began, used in own],
            }
        )  # fmt: skip
    columns = {
        "name": "name", "role": "role", "created (UTC)": "created_at", "revoked (UTC)": "revoked_at",
        "sessions: started, last used (UTC)": "shown",
    }  # fmt: skip
    answer = listing("keys", items, columns, "There is no key yet: `bridge keys create NAME`.")
    told = [{k: v for k, v in item.items() if k != "shown"} for item in items]
    return Answer({"keys": told}, answer.shown)


@command("rotate", "bridge keys rotate", keys)
def rotate(services: Services) -> Answer:
    """Re-encrypt everything with the first key of ENCRYPTION_KEYS; then you may remove the others."""
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("Re-encrypting", total=None)
        done = rekey(
            services.store,
            services.cipher,
            lambda number, total: progress.update(task, completed=number, total=total),
        )
    newest = services.cipher.newest
    told = f"{many(done, 'value')} re-encrypted with key {newest}."
    return Answer({"values": done, "key_id": newest}, [told])
