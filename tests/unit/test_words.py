"""Values as people see them in previews."""

from __future__ import annotations

from typing import Any

import pytest

from app.crm.objects import ObjectName
from app.crm.schema import CrmField, CrmShape, Directory, FieldKind, FieldOption, Pipeline, Stage
from app.mapping.words import in_words

DEAL = ObjectName.DEAL
OPTIONS = (FieldOption("1", "Hot"), FieldOption("2", "Cold"))
SHAPE = CrmShape(dict.fromkeys(ObjectName, "owner_id"), "pipeline_id", "stage_id", False, {})
DIRECTORY = Directory(
    owners={"kim@acme.example": "7"},
    pipelines=(Pipeline("9", "Sales", (Stage("11", "Demo booked"),)),),
    schema={
        DEAL: {
            "Heat": CrmField("Heat", "Heat", FieldKind.CHOICE, options=OPTIONS),
            "Heats": CrmField("Heats", "Heats", FieldKind.CHOICES, options=OPTIONS),
            "Helper": CrmField("Helper", "Helper", FieldKind.USER, options=(FieldOption("7", "kim@acme.example"),)),
            "Text": CrmField("Text", "Text"),
        }
    },
)  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("Heat", "1", "Hot"),
        ("Heat", 2, "Cold"),
        ("Heat", "5", "5"),
        ("Heats", ["1", "2"], ["Hot", "Cold"]),
        ("Heats", "1;2", ["Hot", "Cold"]),
        ("Helper", "7", "kim@acme.example"),
        ("Text", "1", "1"),
        ("Unknown", "1", "1"),
        ("Text", ["a", "b"], ["a", "b"]),
        ("owner_id", "7", "kim@acme.example"),
        ("stage_id", "11", "Demo booked"),
        ("stage_id", "won", "won"),
        ("pipeline_id", "9", "Sales"),
        ("Heat", None, None),
        ("Heats", [], []),
    ],
)
def test_people_see_labels_and_not_numbers(field: str, value: Any, words: Any) -> None:
    """Options, users, stages and pipelines are shown by label; other values are shown unchanged."""
    assert in_words(DEAL, field, value, SHAPE, DIRECTORY) == words
