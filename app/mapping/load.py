"""Reads mapping files; every error names file, line and key, and all of a file come at once."""

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
"""How often a file is looked at anew after something wrong was left out."""
MAX_BYTES = 1_000_000
"""A file larger than this is no mapping file."""
MAX_NODES = 50_000
"""Entries that a file may have once its aliases are resolved: a few lines can make billions."""


MAX_DEPTH = 40
"""Levels of keys and lists in a file."""
MAX_ALIASES = 1_000


class _Composer(Composer):
    """ruamel's composer with bounds, told at the place in the text where it is crossed."""

    def __init__(self, loader: Any = None) -> None:
        super().__init__(loader=loader)
        self._depth = self._aliases = self._nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose one node and all in it. Raises ComposerError, OutOfTime."""
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
    """Something wrong with a file: where, and what in one sentence."""

    line: int
    key: str
    message: str


class MappingText:
    """A mapping file as text with lines, whatever is wrong with it."""

    def __init__(self, name: str, text: str, crm: str) -> None:
        """Read a file's text. Raises MappingError where it is not YAML at all."""
        self.name, self._text = name, text
        self.version = hashlib.sha256(text.encode()).hexdigest()[:12]
        self._document = _parse(name, text)
        self._crm = crm
        self.mistakes: list[Mistake] = []
        self.warnings: list[Mistake] = []
        """What may be right: it keeps no file from being used."""
        self._gone: dict[Location, list[int]] = {}
        """Lists -> the entries that were left out of them."""
        self._wrong: set[Location] = set()
        """What was left out elsewhere."""
        self.mapping: Mapping | None = None
        """The mapping without what is wrong in it; None where nothing is left."""
        self.reread()

    def reread(self) -> None:
        """Look at the file anew, with no mistake noted but its own."""
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
            other = f"a file for {crm} is wanted, and this one is for {file.crm}"
            self.note(("crm",), words if hint else other)
        shared = {key: plain[key] for key in Rules.model_fields if key in plain}
        groups = {key: _table(plain.get(key)) for key in ("meeting_types", "hosts")}
        for group, overrides in groups.items():
            for name, override in overrides.items():
                self._override(shared, override, (group, name))
        for host in groups["hosts"]:
            if not is_address(host):
                words = f"{quoted(host)} is no e-mail address, so no host ever fits; write one, as "
                self.note(("hosts", host), f"{words}mary@yourcompany.example")
        for slug, first in groups["meeting_types"].items():
            for host, second in groups["hosts"].items():
                both = lay_over(lay_over(shared, first), second)
                if not self._fits(both):
                    self.note(("hosts", host), f"does not fit together with meeting_types.{slug}")
        return Mapping(file, plain, self.version, self._text)

    def _whole(self, plain: dict[str, Any], prefix: Location, model: Any) -> Any:
        """Validate; leave out what is wrong and validate again, so that the rest can be looked at."""
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
                self.note(prefix, "an override holds keys and values")
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
        """Note every mistake and take it out; False where nothing could be taken out."""
        entries = set()
        for location, message in explain(error, plain):
            self.note(prefix + location, message)
            entries.add(_whole_entry(location))
        if not prefix:
            # What the file lacks is noted; with it the rest can be looked at.
            for key, value in (("version", 1), ("crm", self._crm)):
                if plain.get(key) is None or (key,) in entries:
                    plain[key] = value
                    entries.discard((key,))
                    entries.add(())
        removed = () in entries and not prefix
        # The last of a list first, so that the others keep their places.
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
        """Whether there was a mistake at a place, so that nothing more can be said of it."""
        place = self._original(location)
        return any(place[: len(part)] == part for part in self._wrong)

    def _original(self, location: Location) -> Location:
        """A place as it was before anything was taken out of a list above it."""
        for place, part in enumerate(location):
            if isinstance(part, int):
                number = part
                for gone in sorted(self._gone.get(location[:place], ())):
                    number += gone <= number
                location = (*location[:place], number, *location[place + 1 :])
        return location

    def note(self, location: Location, message: str) -> None:
        """Add a mistake at a place of the file; once."""
        mistake = self._at(location, message)
        if mistake not in self.mistakes:
            self.mistakes.append(mistake)

    def warn(self, location: Location, message: str) -> None:
        """Add what may be a mistake at a place of the file; once."""
        warning = self._at(location, message)
        if warning not in self.warnings:
            self.warnings.append(warning)

    def _at(self, location: Location, message: str) -> Mistake:
        look_at_the_clock()
        location = in_document(self._document, self._original(location))
        key = ".".join(str(part) for part in location)
        return Mistake(line_of(self._document, location), key, message)

    def lines(self) -> list[str]:
        """Every mistake as `file:line: key: what is wrong`, in the order of the lines."""
        return self._as_lines(self.mistakes)

    def warning_lines(self) -> list[str]:
        """Every warning in the same form."""
        return self._as_lines(self.warnings)

    def _as_lines(self, found: list[Mistake]) -> list[str]:
        ordered = sorted(found, key=lambda mistake: mistake.line)
        named = ((m, f"{m.key}: " if m.key else "") for m in ordered)
        return [f"{self.name}:{m.line}: {key}{m.message}" for m, key in named]


def load_mapping(path: Path, crm: str) -> Mapping:
    """Read and check one file for a provider. Raises MappingError with one line per problem."""
    return _sound(read_text(path, crm))


def mapping_of(text: str, crm: str) -> Mapping:
    """The mapping of a text that was a file once. Raises MappingError where it is none any more."""
    return _sound(MappingText(f"{crm}.yaml", text, crm))


def _sound(text: MappingText) -> Mapping:
    if text.mistakes or text.mapping is None:
        raise MappingError("\n".join(text.lines()))
    return text.mapping


def read_text(path: Path, crm: str) -> MappingText:
    """Read a file with all its mistakes. Raises MappingError where there is no YAML to look at."""
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
    """The document with its lines, which nobody changes: one text is often read several times."""
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
        words = (
            "the file is empty; it begins with two lines, version: 1 and crm: with the CRM's name"
        )
        raise MappingError(f"{name}:1: {words}")
    if not isinstance(document, MappingType):
        hint = ", no list: take the dashes away" if isinstance(document, list) else ""
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
    """The document in plain types; raises ValueError where `seen` has counted too many entries."""
    if seen and next(seen) > MAX_NODES:
        raise ValueError("too many entries")
    if isinstance(node, MappingType):
        return {key_text(key): _plain(value, seen) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(item, seen) for item in node]
    # A day is written without quotes, and what pydantic takes for a number is none.
    return node.isoformat() if isinstance(node, date) else node


def _whole_entry(location: Location) -> Location:
    """A field with something wrong in it goes as a whole: half of one is another mistake."""
    if "fields" in location:
        return location[: location.index("fields") + 2]
    # So does one of a list, but for deals: what is right in one of those is looked at.
    numbers = [place for place, part in enumerate(location) if isinstance(part, int)]
    return location[: numbers[0] + 1] if numbers and location[0] != "deal" else location


def _number_in_list(entry: Location) -> int:
    return entry[-1] if isinstance(entry[-1], int) else -1


def _remove(plain: Any, location: Location) -> bool:
    """Take one entry out of a document; False where there is no such entry."""
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
    """The line (from 1) of a key, or of the nearest one above it that is in the file."""
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
