"""Reads mapping files; reports all errors of a file at once, each with file, line and key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from collections.abc import Mapping as MappingType
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent

from app.domain.errors import MappingError
from app.domain.people import is_address
from app.domain.text import did_you_mean, quoted
from app.mapping.mapping import Mapping, lay_over
from app.mapping.patience import look_at_the_clock
from app.mapping.schema import MappingFile, Rules
from app.mapping.slips import slip_of
from app.mapping.validation_messages import Location, explain, in_document, key_text

MOST_ROUNDS = 200
"""How often a file is checked again after a wrong part was left out."""
MAX_BYTES = 1_000_000
"""A larger file cannot be a mapping file."""
MAX_NODES = 50_000
"""Most entries of a file after its aliases are resolved: a few lines can expand to billions."""


MAX_DEPTH = 40
"""Most levels of keys and lists in a file."""
MAX_ALIASES = 1_000


class _Composer(Composer):
    """ruamel's composer with limits; its error gives the place in the text where a limit is passed."""

    def __init__(self, loader: Any = None) -> None:
        super().__init__(loader=loader)
        self._depth = self._aliases = self._nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose one node and its content. Raises ComposerError, OutOfTime."""
        look_at_the_clock()
        self._nodes += 1
        self._aliases += self.parser.check_event(AliasEvent)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._refuse(f"it is nested deeper than {MAX_DEPTH} levels")
        if self._aliases > MAX_ALIASES or self._nodes > MAX_NODES:
            self._refuse(f"it has more than {MAX_ALIASES:,} aliases or {MAX_NODES:,} entries")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def _refuse(self, words: str) -> None:
        raise ComposerError(None, None, words, self.parser.peek_event().start_mark)


@dataclass(frozen=True)
class Mistake:
    """A mistake in a file: its place, and one sentence about it."""

    line: int
    key: str
    message: str


class MappingText:
    """A mapping file as text with lines, with any number of mistakes."""

    def __init__(self, name: str, text: str, crm: str) -> None:
        """Read a file's text. Raises MappingError if it is not YAML at all."""
        self.name, self._text = name, text
        self.version = hashlib.sha256(text.encode()).hexdigest()[:12]
        self._document = _parse(name, text)
        self._crm = crm
        self.mistakes: list[Mistake] = []
        self.warnings: list[Mistake] = []
        """Possible mistakes: they do not keep a file from being used."""
        self._gone: dict[Location, list[int]] = {}
        """Lists -> the entries that were left out of them."""
        self._wrong: set[Location] = set()
        """Other places that were left out."""
        self.mapping: Mapping | None = None
        """The mapping without its wrong parts; None if no part is left."""
        self.reread()

    def reread(self) -> None:
        """Read the file again, and keep only the mistakes of this reading."""
        self.mistakes.clear()
        self._gone.clear()
        self._wrong.clear()
        self.mapping = self._read(_plain(self._document), self._crm)

    def _read(self, plain: dict[str, Any], crm: str) -> Mapping | None:
        file = self._whole(plain, (), MappingFile)
        if file is None:
            return None
        if file.crm != crm:
            hint = did_you_mean(file.crm, [crm])
            words = f"there is no CRM {quoted(file.crm)}{hint}"
            other = f"a file for {crm} is needed, but this one is for {file.crm}"
            self.note(("crm",), words if hint else other)
        shared = {key: plain[key] for key in Rules.model_fields if key in plain}
        groups = {key: _table(plain.get(key)) for key in ("meeting_types", "hosts")}
        for group, overrides in groups.items():
            for name, override in overrides.items():
                self._override(shared, override, (group, name))
        for host in groups["hosts"]:
            if not is_address(host):
                words = (
                    f"{quoted(host)} is not an e-mail address, so no host has it; write one, as "
                )
                self.note(("hosts", host), f"{words}mary@yourcompany.example")
        for slug, first in groups["meeting_types"].items():
            for host, second in groups["hosts"].items():
                both = lay_over(lay_over(shared, first), second)
                if not self._fits(both):
                    self.note(("hosts", host), f"does not work together with meeting_types.{slug}")
        return Mapping(file, plain, self.version, self._text)

    def _whole(self, plain: dict[str, Any], prefix: Location, model: Any) -> Any:
        """Validate, leave out wrong parts and validate again, so that the rest is checked too."""
        for _ in range(MOST_ROUNDS):
            look_at_the_clock()
            try:
                return model.model_validate(plain)
            except ValidationError as error:
                if not self._leave_out(error, plain, prefix):
                    break
        return None

    def _override(self, shared: dict[str, Any], override: Any, prefix: Location) -> None:
        if not isinstance(override, dict):
            if override is not None:
                self.note(prefix, "an override must hold keys and values")
            return
        for _ in range(MOST_ROUNDS):
            look_at_the_clock()
            try:
                Rules.model_validate(lay_over(shared, override))
                break
            except ValidationError as error:
                if not self._leave_out(error, override, prefix):
                    override.clear()

    def _leave_out(self, error: ValidationError, plain: Any, prefix: Location) -> bool:
        """Note every mistake and leave out its place; False if nothing could be left out."""
        entries = set()
        for location, message in explain(error, plain):
            self.note(prefix + location, message)
            entries.add(_whole_entry(location))
        if not prefix:
            # Missing keys are noted; with these values the rest can be checked.
            for key, value in (("version", 1), ("crm", self._crm)):
                if plain.get(key) is None or (key,) in entries:
                    plain[key] = value
                    entries.discard((key,))
                    entries.add(())
        removed = () in entries and not prefix
        # The last entry of a list comes first, so that the others keep their places.
        for entry in sorted(filter(None, entries), key=_number_in_list, reverse=True):
            place = self._original(prefix + entry)
            if _remove(plain, entry):
                removed = True
                self._wrong.add(place)
                if isinstance(place[-1], int):
                    self._gone.setdefault(place[:-1], []).append(place[-1])
        return removed

    def _fits(self, rules: Any) -> bool:
        look_at_the_clock()
        try:
            Rules.model_validate(rules)
        except ValidationError:
            return False
        return True

    def left_out(self, location: Location) -> bool:
        """Whether a mistake was left out at a place, so that no more can be said about it."""
        place = self._original(location)
        return any(place[: len(part)] == part for part in self._wrong)

    def _original(self, location: Location) -> Location:
        """Return the original place, from before any entry of a list above it was left out."""
        for place, part in enumerate(location):
            if isinstance(part, int):
                number = part
                for gone in sorted(self._gone.get(location[:place], ())):
                    number += gone <= number
                location = (*location[:place], number, *location[place + 1 :])
        return location

    def note(self, location: Location, message: str) -> None:
        """Add a mistake at a place of the file, once."""
        mistake = self._at(location, message)
        if mistake not in self.mistakes:
            self.mistakes.append(mistake)

    def warn(self, location: Location, message: str) -> None:
        """Add a possible mistake at a place of the file, once."""
        warning = self._at(location, message)
        if warning not in self.warnings:
            self.warnings.append(warning)

    def _at(self, location: Location, message: str) -> Mistake:
        look_at_the_clock()
        location = in_document(self._document, self._original(location))
        key = ".".join(str(part) for part in location)
        return Mistake(line_of(self._document, location), key, message)

    def lines(self) -> list[str]:
        """Return every mistake as `file:line: key: what is wrong`, in the order of the lines."""
        return self._as_lines(self.mistakes)

    def warning_lines(self) -> list[str]:
        """Return every warning in the same form."""
        return self._as_lines(self.warnings)

    def _as_lines(self, found: list[Mistake]) -> list[str]:
        ordered = sorted(found, key=lambda mistake: mistake.line)
        named = ((m, f"{m.key}: " if m.key else "") for m in ordered)
        return [f"{self.name}:{m.line}: {key}{m.message}" for m, key in named]


def load_mapping(path: Path, crm: str) -> Mapping:
    """Read and check one file for a provider. Raises MappingError with one line for each problem."""
    return _sound(read_text(path, crm))


def mapping_of(text: str, crm: str) -> Mapping:
    """Return the mapping of a stored text of a file. Raises MappingError if it is not valid any more."""
    return _sound(MappingText(f"{crm}.yaml", text, crm))


def _sound(text: MappingText) -> Mapping:
    if text.mistakes or text.mapping is None:
        raise MappingError("\n".join(text.lines()))
    return text.mapping


def read_text(path: Path, crm: str) -> MappingText:
    """Read a file with all its mistakes. Raises MappingError if there is no YAML to check."""
    try:
        content = path.read_bytes()
        if len(content) > MAX_BYTES:
            raise MappingError(f"{path.name}:1: the file is larger than {MAX_BYTES:,} bytes")
        return MappingText(path.name, content.decode("utf-8"), crm)
    except OSError:
        raise MappingError(f"{path}: there is no such mapping file") from None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        words = "this line is not readable as UTF-8; let your editor save the file as UTF-8"
        raise MappingError(f"{path.name}:{line}: {words}") from None


@lru_cache(maxsize=16)
def _parse(name: str, text: str) -> Any:
    """Parse a document with its lines; callers must not change it, since the result is cached."""
    try:
        yaml = YAML(typ="rt")
        yaml.Composer = _Composer
        document = yaml.load(text)
    except MarkedYAMLError as error:
        slip = slip_of(text, error)
        key = f"{slip.key}: " if slip.key else ""
        raise MappingError(f"{name}:{slip.line}: {key}{slip.words}") from None
    except (YAMLError, ValueError, RecursionError) as error:
        words = str(error).partition("\n")[0]
        raise MappingError(f"{name}:1: it is not readable as YAML ({words})") from None
    if document is None:
        words = "the file is empty; it must begin with two lines, version: 1 and crm: with the CRM's name"
        raise MappingError(f"{name}:1: {words}")
    if not isinstance(document, MappingType):
        hint = ", not a list: remove the dashes" if isinstance(document, list) else ""
        raise MappingError(f"{name}:1: the file must hold keys and values{hint}")
    try:
        _plain(document, count(1))
    except (ValueError, RecursionError):
        words = f"aliases make it larger than {MAX_NODES:,} entries"
        raise MappingError(f"{name}:1: {words}") from None
    return document


def _table(raw: Any) -> dict[str, Any]:
    return raw if isinstance(raw, dict) else {}


def _plain(node: Any, seen: Iterator[int] | None = None) -> Any:
    """Return the document in plain types; raises ValueError if `seen` has counted too many entries."""
    if seen and next(seen) > MAX_NODES:
        raise ValueError("too many entries")
    if isinstance(node, MappingType):
        return {key_text(key): _plain(value, seen) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(item, seen) for item in node]
    # YAML reads a day without quotes as a date; here it becomes text again.
    return node.isoformat() if isinstance(node, date) else node


def _whole_entry(location: Location) -> Location:
    """Return the whole field for a mistake in it: half a field would be another mistake."""
    if "fields" in location:
        return location[: location.index("fields") + 2]
    # An entry of a list counts as a whole too, except for deals: their other parts are checked.
    numbers = [place for place, part in enumerate(location) if isinstance(part, int)]
    return location[: numbers[0] + 1] if numbers and location[0] != "deal" else location


def _number_in_list(entry: Location) -> int:
    return entry[-1] if isinstance(entry[-1], int) else -1


def _remove(plain: Any, location: Location) -> bool:
    """Remove one entry from a document; False if there is no such entry."""
    for part in location[:-1]:
        try:
            plain = plain[part]
        except (KeyError, IndexError, TypeError):
            return False
    if not location:
        return False
    try:
        del plain[location[-1]]
    except (KeyError, IndexError, TypeError):
        return False
    return True


def line_of(document: Any, location: Location) -> int:
    """Return the line (from 1) of a key, or of the nearest key above it that is in the file."""
    node, line = document, 1
    for part in location:
        try:
            if isinstance(node, MappingType):
                key = next(key for key in node if key_text(key) == str(part))
                line = node.lc.key(key)[0] + 1  # type: ignore[attr-defined]
                node = node[key]
            else:
                line = node.lc.item(part)[0] + 1
                node = node[part]
        except (KeyError, TypeError, AttributeError, IndexError, StopIteration):
            break
    return line
