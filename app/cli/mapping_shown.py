"""How a value of a mapping is shown in a terminal."""

from __future__ import annotations

from rich.text import Text

from app.domain.text import cut


def shown_value(value: object) -> Text:
    """A value as it is: text from strangers is not read as the table's markup."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return Text(cut("" if value is None else text, 200))
