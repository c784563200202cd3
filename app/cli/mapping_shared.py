"""Code that the commands on mapping files share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from app.bootstrap import Services
from app.cli.command import many
from app.cli.mapping_words import complain
from app.crm.schema import CrmShape, Directory
from app.domain.errors import MappingError
from app.mapping.check import check_against
from app.mapping.load import MappingText, read_text
from app.mapping.mapping import Mapping

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def read_file(path: Path, crm: str) -> MappingText:
    try:
        return read_text(path, crm)
    except MappingError as error:
        raise click.ClickException(str(error)) from None


def must_fit(mapping: Mapping, file: Path | None, shape: CrmShape, directory: Directory) -> None:
    """Report what the account would refuse, instead of showing it as a plan."""
    if file:
        text = read_file(file, mapping.crm)
        complain(text, shape, directory)
        mistakes = text.lines()
    else:
        found = check_against(mapping, shape, directory)
        mistakes = [f"{complaint.key}: {complaint.message}" for complaint in found]
    if mistakes:
        raise click.ClickException("\n".join(mistakes))


def load_for(services: Services, file: Path, crm: str) -> Mapping:
    try:
        return services.mappings.load(file, crm)
    except MappingError as error:
        raise click.ClickException(str(error)) from None


def failing(keys: Sequence[str]) -> str:
    """The problem of a preview in which bookings would fail; empty if none would."""
    return f"{many(len(keys), 'booking')} would fail." if keys else ""
