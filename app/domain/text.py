"""Makes text from strangers harmless: control characters out, cut only with a mark."""

from __future__ import annotations

import difflib
import html
import re
import unicodedata
from collections.abc import Iterable

CUT_MARK = "…"
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters (category Cc) but for line breaks and tabs."""
# Bidi overrides and zero-width characters can make a name read as another one.
_INVISIBLE = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


def clean_text(value: object) -> str | None:
    """Give text without control characters, stripped; None for what is empty or no scalar.

    Line breaks and tabs stay. Lone surrogates, which no database takes, are replaced. An ö is one
    character, also where it came as an o with two dots: labels, names and options are compared.
    """
    if value is None or isinstance(value, (dict, list, bool)):
        return None
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    text = _INVISIBLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = unicodedata.normalize("NFC", text)
    return _CONTROL.sub("", text).strip() or None


def one_line(value: object) -> str | None:
    """Like clean_text, with every run of white space as one blank."""
    text = clean_text(value)
    return re.sub(r"\s+", " ", text) if text else None


def cut(text: str, limit: int) -> str:
    """Cut text to `limit` characters with a mark at the end; shorter text comes back as it is."""
    return text if len(text) <= limit else text[: limit - len(CUT_MARK)].rstrip() + CUT_MARK


def did_you_mean(wanted: str, there: Iterable[str]) -> str:
    """The nearest of what there is, as the end of a sentence; empty where nothing is near."""
    names = {name.casefold(): name for name in there}
    near = difflib.get_close_matches(wanted.casefold(), names, 1, cutoff=0.65)
    return f"; did you mean {names[near[0]]}?" if near else ""


def quoted(value: object) -> str:
    """A value as an error names it: in quotes, and short, since answers may be long."""
    return repr(cut(str(value), 60))


def is_link(text: str) -> bool:
    """Whether the text is one web address, which is never cut: half a link leads nowhere."""
    return bool(re.fullmatch(r"https?://\S+", text))


def as_html(text: str) -> str:
    """Escape text for a field that shows HTML; line breaks become <br>."""
    return html.escape(text, quote=False).replace("\n", "<br>")
