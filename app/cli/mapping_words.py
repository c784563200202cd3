"""How the commands on mapping files report what is wrong, and end."""

from __future__ import annotations

from collections.abc import Sequence

from app.cli.command import Answer
from app.crm.schema import CrmShape, Directory
from app.mapping.check import Complaint, check_against
from app.mapping.load import MappingText
from app.mapping.provision import Seen as Answers


def checked(
    good: Sequence[str], mistakes: Sequence[str], warnings: Sequence[str], lines: Sequence[str],
    resynced: int | None = None,
) -> Answer:  # fmt: skip
    """The answer of a check; mistakes are a problem, warnings are on what may just be new."""
    data: dict[str, object] = {"good": good, "mistakes": mistakes, "warnings": warnings}
    if resynced is not None:
        data["resynced"] = resynced
    return Answer(data, lines, "\n".join(mistakes), warnings)


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
