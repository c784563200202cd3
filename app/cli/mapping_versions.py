"""`bridge mappings versions`: the texts of a mapping file that were in force, and what differs."""

from __future__ import annotations

from dataclasses import asdict

import click

from app.bootstrap import Services
from app.cli.command import Answer, command, many
from app.cli.tables import table_of
from app.mapping.mapping import Mapping
from app.mapping.text_diff import MOST_LINES, DiffLine, differences
from app.services.mapping_versions import FILE, UnknownVersion, VersionText

COLUMNS = {
    "version": "version", "first used (UTC)": "first_at", "by": "first_by",
    "last taken (UTC)": "last_at", "characters": "size", "is the file now": "is_file",
}  # fmt: skip
STYLES = {"+": "green", "-": "red", "@": "cyan", " ": None}


@command("versions", "bridge mappings versions hubspot --diff 3f2a9c81d0b4..file")
@click.argument("crm")
@click.option("--diff", "compared", metavar="OLD[..NEW]",
              help="Show what differs between two versions; without NEW, to the file.")  # fmt: skip
@click.option("--show", "shown", metavar="VERSION", help="Print the text of a version.")
def versions(services: Services, crm: str, compared: str | None, shown: str | None) -> Answer:
    """List the versions of a mapping file that were in force; or print or compare them.

    A version is named by its first characters, the file as it is now by `file`.
    """
    name = crm.lower()
    if name not in services.providers:
        there = ", ".join(services.providers)
        raise click.ClickException(f"There is no CRM {crm!r}; there are: {there}.")
    if compared and shown:
        raise click.UsageError("Give one of: --diff, --show.")
    current = services.mappings[name]
    if shown:
        found = _read(services, shown, current)
        return Answer({"crm": name, **asdict(found)}, [found.text.rstrip("\n")])
    if compared:
        old, _, new = compared.partition("..")
        return _compare(_read(services, old, current), _read(services, new or FILE, current), name)
    kept = services.versions.listed(name)
    items = [{**asdict(item), "is_file": item.version == current.version} for item in kept]
    told = f"{many(len(items), 'version')} of {name}.yaml; the file now is {current.version}."
    return Answer(
        {"crm": name, "file": current.version, "versions": items},
        [table_of(items, COLUMNS), told] if items else [told],
    )


def _read(services: Services, name: str, current: Mapping) -> VersionText:
    try:
        return services.versions.read(name, current)
    except UnknownVersion as error:
        raise click.ClickException(str(error)) from None


def _compare(old: VersionText, new: VersionText, crm: str) -> Answer:
    lines = differences(old.text, new.text)
    if lines is None:
        raise click.ClickException(f"Texts of more than {MOST_LINES:,} lines are not compared.")
    data = {"crm": crm, "old": old.version, "new": new.version, "lines": [asdict(x) for x in lines]}
    if not lines:
        return Answer(data, [f"{old.version} and {new.version} are the same."])
    return Answer(data, [f"--- {old.version}", f"+++ {new.version}", *map(_line, lines)])


def _line(line: DiffLine) -> str:
    between = " " if line.sign == "@" else ""
    return click.style(f"{line.sign}{between}{line.text}", STYLES[line.sign])
