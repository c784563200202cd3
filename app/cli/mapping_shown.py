"""How a value of a mapping is shown in a terminal."""

from __future__ import annotations

from rich.text import Text

from app.domain.text import cut

LONGEST = 200


def shown_value(value: object) -> Text:
    """A value as it is: text from strangers is not read as the table's markup.

    Long text is cut; what has no blank, such as an address, is shown whole.
    """
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return Text("" if value is None else cut(text, LONGEST) if " " in text else text)
