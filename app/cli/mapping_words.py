"""How the commands on mapping files report what is wrong, and end."""

from __future__ import annotations

from collections.abc import Sequence

import click

from app.crm.schema import CrmShape, Directory
from app.mapping.check import Complaint, check_against
from app.mapping.load import MappingText
from app.mapping.provision import Seen as Answers


def end(mistakes: Sequence[str], warnings: Sequence[str]) -> None:
    """Print mistakes and, apart from them, warnings on what may just be new; exit 1 on mistakes."""
    if mistakes:
        click.echo("Error: " + "\n".join(mistakes), err=True)
    for line in warnings:
        click.echo(f"Warning: {line}", err=True)
    if mistakes:
        raise SystemExit(1)


def complain(
    text: MappingText, shape: CrmShape, directory: Directory, answers: Answers | None = None
) -> list[Complaint]:
    """Note where the file does not fit the account, and return these complaints."""
    if text.mapping is None:
        return []
    found = check_against(text.mapping, shape, directory, answers)
    complaints = [item for item in found if not text.left_out(item.location)]
    for complaint in complaints:
        text.note(complaint.location, complaint.message)
    return complaints
