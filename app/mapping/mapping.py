"""A checked mapping file: the rules for each meeting type and host, and facts about them."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from typing import Any

from app.crm.objects import ObjectName
from app.domain.people import address_key
from app.mapping.schema import FormRules, MappingFile, RecordRules, Rules

Overrides = dict[str, dict[str, Any]]


class Mapping:
    """One file, one CRM. `version` is a fingerprint of its text."""

    no_company: frozenset[str] = frozenset()
    """Domains of relays and others that are no companies: they come from the settings, not the file."""

    def __init__(self, file: MappingFile, plain: dict[str, Any], version: str, text: str) -> None:
        """`plain` is the file as it was read, the base for its overrides; `text` is its whole text."""
        self.crm = file.crm
        self.version, self.text = version, text
        self.recheck_minutes = file.recheck_links_after
        self.assignment_rules = file.assignment_rules
        self.form: FormRules | None = file.form_submission
        self._base = file
        self._shared = {key: plain[key] for key in _section_keys() if key in plain}
        self._plain = plain
        self._types = _overrides(plain.get("meeting_types"), str)
        self._hosts = _overrides(plain.get("hosts"), _address)
        self._host_keys = {_address(key): key for key in plain.get("hosts") or ()}
        self._made: dict[tuple[str | None, str | None], Rules] = {}

    def rules_for(self, slug: str | None, host: str | None = None) -> Rules:
        """Return the rules for a meeting type and host, or the file's own rules if they have none.

        A host's override has priority over the meeting type's. Raises pydantic's ValidationError if
        an override does not fit, which load_mapping has excluded.
        """
        kind = slug if slug in self._types else None
        person = host if host in self._hosts else None
        if kind is None and person is None:
            return self._base
        if (kind, person) not in self._made:
            merged = self._shared
            for override in (self._types.get(kind or ""), self._hosts.get(person or "")):
                merged = lay_over(merged, override or {})
            self._made[kind, person] = Rules.model_validate(merged)
        return self._made[kind, person]

    def place(self, slug: str | None, host: str | None) -> str:
        """Return a name for the rules of a meeting type and host; it contains no address."""
        kind = slug if slug in self._types else ""
        return f"{kind}|{_short(host) if host in self._hosts else ''}"

    def rules_at(self, place: str) -> Rules | None:
        """Return the rules with that name; None if the file no longer has them."""
        kind, _, person = place.rpartition("|")
        host = next((host for host in self._hosts if _short(host) == person), None)
        if (kind and kind not in self._types) or (person and host is None):
            return None
        return self.rules_for(kind or None, host)

    def places(self) -> Iterator[tuple[tuple[str, ...], str | None, str | None]]:
        """Give the places of rules in the file: the keys above them, the meeting type, the host."""
        yield (), None, None
        for slug in self._types:
            yield ("meeting_types", slug), slug, None
        for host in self._hosts:
            for kind in (None, *self._types):
                yield ("hosts", self._host_keys[host]), kind, host

    def says(self, prefix: tuple[str, ...], location: tuple[int | str, ...]) -> bool:
        """Whether the rules at that place of the file have this key themselves."""
        node: Any = self._plain
        for part in (*prefix, *location):
            try:
                node = node[part]
            except (KeyError, IndexError, TypeError):
                return False
        return True

    def every(self) -> Iterator[Rules]:
        """Give all rules, for every meeting type with every host."""
        for slug in (None, *self._types):
            for host in (None, *self._hosts):
                yield self.rules_for(slug, host)

    def objects(self) -> list[ObjectName]:
        """Return the objects that the file writes, for at least one meeting type."""
        return [name for name in ObjectName if any(rules.sections(name) for rules in self.every())]

    def needed(self) -> frozenset[ObjectName]:
        """Return the objects that the account must have: those that the file creates for some type."""
        found = set()
        for rules in self.every():
            for name in ObjectName:
                sections = rules.sections(name)
                if any(getattr(section, "per", "") != "none" for section in sections):
                    found.add(name)
            leads_only = rules.contact is not None and rules.contact.kind == "lead"
            found -= {ObjectName.CONTACT} if leads_only else set()
        found |= {ObjectName(self.form.kind)} if self.form else set()
        return frozenset(found)

    def field_names(self, name: ObjectName) -> set[str]:
        """Return every CRM field that the file writes on an object, over all meeting types."""
        sections: list[RecordRules] = [s for rules in self.every() for s in rules.sections(name)]
        return {field for section in sections for field in section.fields}

    @property
    def needs_answers(self) -> bool:
        """Whether it is worth reading answers from meetergo that a webhook lacks."""
        return any(rules.needs_answers for rules in self.every())

    @property
    def makes_inbox_leads(self) -> bool:
        """Whether the file creates leads of the CRM's inbox instead of deals, for at least one type."""
        return any(
            deal.kind == "lead" and deal.per != "none"
            for rules in self.every()
            for deal in rules.deal
        )

    @property
    def tells_of_people(self) -> bool:
        """Whether the file writes summaries of all bookings of a person."""
        return any(source.personal for rules in self.every() for source in rules.sources())


def _section_keys() -> list[str]:
    return list(Rules.model_fields)


def _short(host: str | None) -> str:
    return hashlib.sha256((host or "").encode()).hexdigest()[:16]


def _address(key: str) -> str:
    return address_key(key)


def _overrides(raw: Any, name: Any) -> Overrides:
    entries = raw.items() if isinstance(raw, dict) else ()
    return {name(key): value if isinstance(value, dict) else {} for key, value in entries}


def lay_over(base: Any, override: Any) -> Any:
    """Apply an override to rules: keys that it does not have are inherited."""
    if not (isinstance(base, dict) and isinstance(override, dict)):
        return copy.deepcopy(override)
    # A field is replaced as a whole: halves of two sources would make no sense.
    merged = dict(base)
    for key, value in override.items():
        whole = key == "fields" and isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = base[key] | value if whole else lay_over(base.get(key), value)
    return merged
