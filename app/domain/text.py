"""Makes text from strangers harmless: no control characters, no formulas, and a mark if it is cut."""

from __future__ import annotations

import difflib
import html
import re
import unicodedata
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any

import regex

CUT_MARK = "…"
_CLUSTER = regex.compile(r"\X")
"""One sign for a reader (Unicode UAX #29): a letter with its marks, a joined emoji."""
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters (category Cc) except line breaks and tabs."""
# Bidi overrides and zero-width characters can make one name look like another.
_INVISIBLE = re.compile(
    "[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)
# A sign that begins a formula, then a call, a pipe (DDE) or a sheet of another file.
_FORMULA = re.compile(
    r"[=＝].*[A-Za-z_]\d{0,4} ?[(（]"
    r"|[=+@＝＋＠－-].*(?:[A-Za-z_]\d{0,4}[(（]|[|｜]|['’\]][^'’\]]*[!！])",
    re.DOTALL,
)


class Unit(StrEnum):
    """The unit in which a CRM counts the length of text."""

    UTF16 = "utf-16"
    """Units of UTF-16, as Java and JavaScript count: most emojis are two."""
    CODE_POINT = "code point"


def clean_text(value: object) -> str | None:
    """Return text without control characters, stripped; None for empty text, a boolean or no scalar.

    Line breaks and tabs stay. Lone surrogates, which no database accepts, are replaced. An ö
    becomes one character, even if it came as an o with two dots: labels, names and options are
    compared.
    """
    if value is None or isinstance(value, (dict, list, bool)):
        return None
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    text = _INVISIBLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = unicodedata.normalize("NFC", text)
    return _CONTROL.sub("", text).strip() or None


def is_formula(text: str) -> bool:
    """Whether a spreadsheet that opens the text would call, fetch or start something."""
    return bool(_FORMULA.match(text.lstrip()))


def no_formula(text: str) -> str:
    """Put an apostrophe before text that a spreadsheet would run, so that it stays text.

    https://owasp.org/www-community/attacks/CSV_Injection
    """
    return f"'{text}" if is_formula(text) else text


def one_line(value: object) -> str | None:
    """Return text like clean_text, with every run of white space as one blank."""
    text = clean_text(value)
    return re.sub(r"\s+", " ", text) if text else None


def measure(text: str, unit: Unit = Unit.UTF16) -> int:
    """Return the length of text in a unit; the UTF-16 length is never the smaller one."""
    beyond = sum(char > "\uffff" for char in text) if unit is Unit.UTF16 else 0
    return len(text) + beyond


def cut(text: str, limit: int, unit: Unit = Unit.UTF16) -> str:
    """Cut text to `limit` units, including the mark at its end; shorter text stays as it is.

    A letter with its marks, a joined emoji or a flag is never split.
    """
    if measure(text, unit) <= limit:
        return text
    room, end = limit - len(CUT_MARK), 0
    if room < 0:
        return ""
    for cluster in _CLUSTER.finditer(text):
        room -= measure(cluster[0], unit)
        if room < 0:
            break
        end = cluster.end()
    return text[:end].rstrip() + CUT_MARK


def nearest(wanted: str, there: Iterable[str]) -> str | None:
    """Return the name that is most similar to a word, ignoring case; None if none is similar."""
    names = {name.casefold(): name for name in there}
    near = difflib.get_close_matches(wanted.casefold(), names, 1, cutoff=0.65)
    return names[near[0]] if near else None


def did_you_mean(wanted: str, there: Iterable[str]) -> str:
    """Return the most similar name as the end of a sentence; empty if none is similar."""
    near = nearest(wanted, there)
    return f"; did you mean {near}?" if near else ""


def quoted(value: object) -> str:
    """Return a value in quotes for an error message, shortened since answers may be long."""
    return repr(cut(str(value), 60))


def is_link(text: str) -> bool:
    """Whether the text is one web address, which is never cut: half a link does not work."""
    return bool(re.fullmatch(r"https?://\S+", text))


def as_html(text: str) -> str:
    """Escape text for a field that shows HTML; line breaks become <br>."""
    return html.escape(text, quote=False).replace("\n", "<br>")


def reworded(value: Any, change: Callable[[str], str]) -> Any:
    """Return plain data with every text changed; the keys of objects stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list | tuple):
        return [reworded(each, change) for each in value]
    if isinstance(value, dict):
        return {key: reworded(each, change) for key, each in value.items()}
    return value
