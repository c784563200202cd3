"""Explains a mistake in the YAML of a mapping file, and shows the right form.

Only the parser decides what is YAML: its message and the line where it stopped suggest the
likeliest mistake. If none fits, the parser's own message is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ruamel.yaml.error import MarkedYAMLError

from app.domain.text import cut
from app.mapping.paths import NAMED_ROOTS, asking, in_quotes
from app.mapping.transforms import WITH_ARGUMENT

_BREAKS = re.compile(r"\r\n|[\n\r\x85\u2028\u2029]")
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^']|'')*'")
_CURLY = re.compile(r"(?:^|[\s\[({:,])[“”„‟‘’‚‛«»‹›]")
"""A curly quote at the start of a quote; inside a word it may be the question's own apostrophe."""
_KEY = re.compile(r"\s*(?:- +)*([^\s:{}\[\],\"'#][^:{}\[\],\"'#]{0,80}?)\s*:(?:\s|$)")
_WIDEST = 1_000
"""Most characters of a line that are checked: a stranger may send a line of any length."""
_LONGEST = 120
"""Most characters of a correction that a sentence shows."""


@dataclass(frozen=True)
class Slip:
    """A mistake in the YAML of a file: the line (from 1), its key, and a sentence."""

    line: int
    key: str
    words: str


@dataclass(frozen=True)
class _Trouble:
    """The place where the parser stopped, and the lines around it; lines count from 0."""

    lines: list[str]
    problem: str
    context: str
    at: int
    column: int
    opened: int | None
    """The line where the part that the parser was reading began."""

    @property
    def line(self) -> str:
        return self.text_of(self.at)

    @property
    def head(self) -> str:
        """The line up to the place where the parser stopped."""
        return self.line[: self.column]

    @property
    def rest(self) -> str:
        return self.line[self.column :]

    @property
    def bare(self) -> str:
        """The line without texts in straight quotes."""
        return _QUOTED.sub("''", self.line)

    def text_of(self, number: int) -> str:
        return self.lines[number][:_WIDEST] if 0 <= number < len(self.lines) else ""

    def before(self) -> int | None:
        """Return the nearest line above that is neither empty nor a comment."""
        above = range(self.at - 1, -1, -1)
        return next((n for n in above if self.lines[n].split("#")[0].strip()), None)


def slip_of(text: str, error: MarkedYAMLError) -> Slip:
    """Explain a parser's error in words for the person who wrote the file."""
    mark = error.problem_mark or error.context_mark
    opened = error.context_mark
    trouble = _Trouble(
        _BREAKS.split(text),
        str(error.problem or "it is not YAML"),
        str(error.context or ""),
        mark.line if mark else 0,
        mark.column if mark else 0,
        opened.line if opened else None,
    )
    for look in _LOOKS if trouble.column < _WIDEST else ():
        found = look(trouble)
        if found:
            number, words = found
            key = _KEY.match(trouble.text_of(number))
            return Slip(number + 1, key[1] if key else "", words)
    return Slip(trouble.at + 1, "", trouble.problem)


_Found = tuple[int, str] | None


def _tab(trouble: _Trouble) -> _Found:
    if "'\\t'" not in trouble.problem:
        return None
    if trouble.head.strip():
        return trouble.at, "this line contains a tab; write a blank instead"
    return trouble.at, "this line begins with a tab; indent with blanks, two for each level"


def _odd_start(trouble: _Trouble) -> _Found:
    sign = re.search(r"found character '([@`%])'", trouble.problem)
    alias = re.search(r"found undefined alias '(.*)'", trouble.problem)
    if not sign and not alias:
        return None
    value = in_quotes(f"*{alias[1]}" if alias else f"{sign[1] if sign else ''}…")
    return trouble.at, f"a value that begins with {value[1]} needs quotes: {_short(value)}"


def _curly(trouble: _Trouble) -> _Found:
    if not _CURLY.search(trouble.bare):
        return None
    return trouble.at, "YAML does not accept curly quotes; write straight ones, ' or \""


def _template(trouble: _Trouble) -> _Found:
    if "{{" not in trouble.bare:
        return None
    place = re.search(r"template:\s*(.+)", trouble.line) or re.search(r"(\{\{.+)", trouble.line)
    value = place[1].split("}}")[0] + "}}" if place and "}}" in place[1] else "{{ … }}"
    return trouble.at, f"a template needs quotes: {_short(f'template: {in_quotes(value, True)}')}"


def _twice(trouble: _Trouble) -> _Found:
    key = re.match(r'found duplicate key "(.*?)"', trouble.problem)
    return (trouble.at, f"the key {key[1]!r} occurs twice here; keep one of them") if key else None


def _open_quote(trouble: _Trouble) -> _Found:
    if "quoted scalar" not in trouble.context or trouble.opened is None:
        return None
    if "end of stream" not in trouble.problem and "document" not in trouble.problem:
        return None
    return trouble.opened, "the quote that begins here is never closed"


def _nested_transform(trouble: _Trouble) -> _Found:
    name = re.search(r"\bas:\s+(\w+)\s*$", trouble.head)
    table = re.match(r"\s*(?:- +)?map:\s+([^{\s].*)", trouble.line)
    if table and trouble.rest.startswith(":"):
        pair = _short(re.split(r"\s#", table[1])[0].strip())
        return trouble.at, f"map needs braces around its answers and values: map: {{{pair}}}"
    if not name or name[1] not in WITH_ARGUMENT or not trouble.rest.startswith(":"):
        return None
    argument = "{answer: value}" if name[1] == "map" else "…"
    return (
        trouble.at,
        f"{name[1]} needs braces around it and its value: as: {{{name[1]}: {argument}}}",
    )


def _in_braces(trouble: _Trouble) -> _Found:
    closing = re.match(r"expected ',' or '([}\]])', but got '(.*)'", trouble.problem)
    if not closing or trouble.opened is None:
        return None
    sign, got = closing[1], closing[2]
    if got == "[":
        return trouble.at, _bracket(trouble)
    if got == ":" and trouble.at == trouble.opened and trouble.rest.startswith(":"):
        start = re.split(r":\s+|[{\[,]\s*", trouble.head)[-1]
        value = start + re.split(r"[,}\]]|\s#", trouble.rest)[0].rstrip()
        return trouble.at, _colon(value)
    pair = {"}": "{", "]": "["}[sign]
    where = "" if trouble.at == trouble.opened else f" before line {trouble.at + 1}"
    return trouble.opened, f"a comma or the closing {sign} is missing after this {pair}{where}"


def _bracket(trouble: _Trouble) -> str:
    """Return the correction for a list inside a value: quotes around the whole of it."""
    name = re.search(r"[\w.]*$", trouble.head)
    start = name.start() if name else trouble.column
    value = re.match(r".*?(?:[\"']\]|\])", trouble.line[start:])
    whole = value[0] if value else trouble.line[start:]
    return f"inside braces and lists this value needs quotes: {_short(in_quotes(whole))}"


def _colon(value: str) -> str:
    """Return the correction for a value with a colon and a blank, which YAML reads as a key."""
    root, _, label = value.strip().partition(".")
    right = in_quotes(asking(root, label) if root in NAMED_ROOTS and label else value.strip())
    return (
        f"a colon with a blank ends a key; a value that contains them needs quotes: {_short(right)}"
    )


def _not_here(trouble: _Trouble) -> _Found:
    """Find a key where none is allowed: a colon in a value, or a line that is indented too far."""
    if not trouble.problem.startswith("mapping values are not allowed"):
        return None
    parts = re.match(r"\s*(?:- +)*[^\s:][^:]*:\s+(\S.*)", trouble.line)
    if parts and parts.start(1) < trouble.column:
        return trouble.at, _colon(re.split(r"\s#", parts[1])[0])
    above = trouble.before()
    if above is None:
        return None
    before = trouble.text_of(above)
    joined = re.match(r"\s*([\w.-]+):(\S.*)", before)
    if joined and not re.search(r":(?:\s|$)", before):
        right = _short(f"{joined[1]}: {joined[2].strip()}")
        return above, f"a blank is missing after the colon: {right}"
    if _blanks(trouble.line) > _blanks(before):
        words = (
            f"this line is indented deeper than line {above + 1}, which has a value already: "
            f"begin it with the same number of blanks, {_blanks(before)}"
        )
        return trouble.at, words
    return None


def _indent(trouble: _Trouble) -> _Found:
    if not trouble.problem.startswith("expected <block end>") or trouble.opened is None:
        return None
    found = re.search(r"but found '(.*)'", trouble.problem)
    what = found[1] if found else ""
    if what == "<scalar>":
        words = (
            "text follows after the end of this value: put quotes around all of it, and use the "
            "other kind of quote inside"
        )
        return trouble.at, words
    if trouble.head.strip():
        return None
    if what in ("-", "<block entry>") or trouble.rest.startswith("- "):
        return (
            trouble.at,
            "this part has keys and values, but a dash begins a list; remove the dash",
        )
    words = (
        f"this line begins with {_blanks(trouble.line)} blanks, but no section above has keys with "
        "that indent: indent it like the keys beside it"
    )
    return trouble.at, words


def _no_colon(trouble: _Trouble) -> _Found:
    if "could not find expected ':'" not in trouble.problem or trouble.opened is None:
        return None
    return trouble.opened, "a colon and a blank are missing here: write key: value"


def _blanks(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _short(text: str) -> str:
    return cut(text, _LONGEST)


_LOOKS: tuple[Callable[[_Trouble], _Found], ...] = (
    _tab, _odd_start, _twice, _open_quote, _nested_transform, _curly, _template, _in_braces,
    _not_here, _indent, _no_colon,
)  # fmt: skip
"""The mistakes in the order of the checks: the surest first."""
