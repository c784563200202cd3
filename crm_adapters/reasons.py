"""Tells from a CRM's words why it refuses a record, where no code of its API says it."""

from __future__ import annotations

import html
import json
import re

from app.domain.refusals import RefusalReason

_WORDS = tuple(
    (re.compile(pattern, re.IGNORECASE), reason)
    for pattern, reason in (
        (r"\bowner\b(?!.*(cannot|may not) be (blank|null|empty))|\buser\b.*\b(exist|inactive|"
         r"active)|inactive user", RefusalReason.OWNER),
        (r"\b(stage|pipeline)(_id)?\b.*(exist|valid|found|belong)", RefusalReason.STAGE),
        (r"already (has|exists)|not unique|must be unique|duplicate", RefusalReason.TAKEN),
        (r"required|must be given|(cannot|may not|must not) be (blank|empty|null)|is missing"
         r"|were not set|without an? ", RefusalReason.REQUIRED),
        (r"allowed options|picklist|must be one of|is not an activity type|invalid option"
         r"|n[o']t one of",
         RefusalReason.OPTION),
        (r"too long|longer than|max(imum)?[ _]length|too large|at most \d+ char",
         RefusalReason.LENGTH),
        (r"read[- ]?only|not (writ|edit|updat)e?able", RefusalReason.READ_ONLY),
        (r"permission|access right|not allowed to|no access|insufficient|forbidden\b"
         r"|contact sync", RefusalReason.PERMISSION),
        (r"\block(ed)?\b", RefusalReason.LOCKED),
        (r"limit|storage|quota|capping", RefusalReason.LIMIT),
        (r"(property|field|column|attribute)\b.*(exist|unknown)|no such (column|field)"
         r"|: is not allowed$|^is not allowed$", RefusalReason.UNKNOWN_FIELD),
        (r"deleted|archived|not found|not exist|no longer|cross reference", RefusalReason.DELETED),
        (r"\brule\b|forbids", RefusalReason.RULE),
        (r"in?valid|format|must be|wrong type|expected|deserialize|outside", RefusalReason.TYPE),
    )
)  # fmt: skip
_EXPECTED = (
    (r"e-?mail", "an e-mail address"),
    (r"phone", "a phone number"),
    (r"\burl\b|website", "a web address"),
    (r"datetime|timestamp|date and time", "a date with a time"),
    (r"\bdate", "a date"),
    (r"\btime", "a time"),
    (r"boolean|\bbool\b", "yes or no"),
    (r"integer|\bint\b|\blong\b|whole", "a whole number"),
    (r"number|double|float|numeric|percent|monetary", "a number"),
    (r"object", "a structured value"),
    (r"\bid\b", "the id of a record"),
)
_LIMIT = re.compile(
    r"(?:max(?:imum)?[ _]?length\D{0,8}|longer than |max(?:imum)? (?:of|is) |at most |limit of )"
    r"(\d{1,7})",
    re.IGNORECASE,
)


def reason_in(words: str) -> RefusalReason:
    """Return why a record is refused, as well as the words tell."""
    return next((reason for form, reason in _WORDS if form.search(words)), RefusalReason.OTHER)


def expected_in(words: str) -> str:
    """Return the type that words ask for: a number; empty if they name none."""
    for form, name in _EXPECTED:
        if re.search(form, words, re.IGNORECASE):
            return name
    return ""


def limit_in(words: str) -> int | None:
    """Return the most characters that words allow."""
    found = _LIMIT.search(words)
    return int(found[1]) if found else None


def options_in(words: str) -> tuple[str, ...]:
    """Return the options that words list in square brackets, as values."""
    start = words.find("[", max(words.find("option"), words.find("one of"), 0))
    if start < 0:
        return ()
    text = words[start + 1 :].rstrip("\"'. ").removesuffix("]")
    named = re.findall(r'\bvalue: "([^"\n]{1,200})"', text)
    return tuple(named[:200]) or _separated(text)


def unescaped(words: str) -> str:
    """Return words without the entities of HTML."""
    return html.unescape(words)


def json_inside(text: str) -> list[dict[str, object]]:
    """Return the first list of objects that stands as JSON inside a text."""
    start = text.find("[{")
    if start < 0:
        return []
    try:
        found, _ = json.JSONDecoder().raw_decode(text[start:])
    except (ValueError, RecursionError):
        return []
    return [item for item in found if isinstance(item, dict)]


def _separated(text: str) -> tuple[str, ...]:
    quoted = re.findall(r"'([^']{1,200})'|\"([^\"]{1,200})\"", text)
    if quoted:
        return tuple(one or two for one, two in quoted[:200])
    return tuple(part.strip() for part in text.split(",")[:200] if part.strip())
