"""Reads mapping files; every error names file, line and key, and all of a file come at once."""

from __future__ import annotations

import copy
from collections.abc import Mapping as MappingType
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from app.domain.errors import MappingError
from app.mapping.schema import Mapping, MappingFile, Rules

Location = tuple[int | str, ...]


def load_mapping(path: Path, crm: str) -> Mapping:
    """Read and check one file for a provider. Raises MappingError with one line per problem."""
    try:
        document = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MappingError(f"{path}: there is no such mapping file") from None
    except (MarkedYAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or "it is not readable as YAML"
        raise MappingError(f"{path.name}:{line}: {problem}") from None
    if not isinstance(document, MappingType):
        raise MappingError(f"{path.name}:1: the file must hold keys and values")
    return _check(path.name, document, crm)


def _check(name: str, document: Any, crm: str) -> Mapping:
    plain = _plain(document)
    problems: list[str] = []
    base: Rules | None = None
    try:
        whole = MappingFile.model_validate(plain)
        base = whole
        if whole.crm != crm:
            line = line_of(document, ("crm",))
            problems.append(f"{name}:{line}: crm: this is the file of {crm}, not of {whole.crm}")
    except ValidationError as error:
        problems += _explain(name, document, error, ())
    by_slug: dict[str, Rules] = {}
    overrides = plain.get("meeting_types")
    shared = {key: plain[key] for key in Rules.model_fields if key in plain}
    for slug, override in overrides.items() if isinstance(overrides, dict) and base else ():
        merged = _merge(shared, override)
        try:
            by_slug[str(slug)] = Rules.model_validate(merged)
        except ValidationError as error:
            problems += _explain(name, document, error, ("meeting_types", slug))
    if problems or base is None:
        raise MappingError("\n".join(problems))
    return Mapping(crm, base, by_slug)


def _merge(base: Any, override: Any) -> Any:
    """Lay an override over the file's own rules: what it does not say is inherited."""
    if not (isinstance(base, dict) and isinstance(override, dict)):
        return copy.deepcopy(override)
    # A field is replaced whole: half of one source and half of another makes no sense.
    merged = dict(base)
    for key, value in override.items():
        whole = key == "fields" and isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = base[key] | value if whole else _merge(base.get(key), value)
    return merged


def _plain(node: Any) -> Any:
    if isinstance(node, MappingType):
        return {str(key): _plain(value) for key, value in node.items()}
    return [_plain(item) for item in node] if isinstance(node, list) else node


def _explain(name: str, document: Any, error: ValidationError, prefix: Location) -> list[str]:
    lines = []
    for item in error.errors():
        location = prefix + tuple(item["loc"])
        message = str(item["msg"]).removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "this key is not known here"
        key = ".".join(str(part) for part in location)
        lines.append(f"{name}:{line_of(document, location)}: {key}: {message}")
    return lines


def line_of(document: Any, location: Location) -> int:
    """The line (from 1) of a key, or of the nearest one above it that is in the file."""
    node, line = document, 1
    for part in location:
        try:
            if isinstance(node, MappingType):
                line = node.lc.key(part)[0] + 1  # type: ignore[attr-defined]
            else:
                line = node.lc.item(part)[0] + 1
            node = node[part]
        except (KeyError, TypeError, AttributeError, IndexError):
            break
    return line
