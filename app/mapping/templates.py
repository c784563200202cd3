"""Templates in mapping files: Jinja2 in its sandbox, with a booking's values as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_RESULT = 20_000
"""Characters that a rendered template may have."""

_environment = ImmutableSandboxedEnvironment(
    autoescape=False,
    finalize=lambda value: "" if value is None else value,
)


@lru_cache(maxsize=512)
def _compile(source: str) -> Template:
    return _environment.from_string(source)


def check_template(source: str) -> str:
    """Give the source back; raise ValueError with Jinja's words where it does not compile."""
    try:
        _compile(source)
    except TemplateError as error:
        raise ValueError(f"the template does not compile: {error}") from None
    return source


def render(source: str, context: Mapping[str, Any]) -> str:
    """Render a checked template. Text in braces inside the data stays text.

    Raises ValueError where the template reaches for something forbidden or grows too long.
    """
    try:
        text = _compile(source).render(context)
    except (TemplateError, ArithmeticError, TypeError, ValueError) as error:
        raise ValueError(f"the template failed: {error}") from None
    if len(text) > MAX_RESULT:
        raise ValueError(f"the template gives more than {MAX_RESULT} characters")
    return text
