"""Templates in mapping files: Jinja2 cut down to what text needs, bounded in time and size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from jinja2 import Template, TemplateError, meta, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.filters import FILTERS
from jinja2.sandbox import ImmutableSandboxedEnvironment

from app.mapping.paths import FIXED_ROOTS, ROOTS, check_path, plain_label

MAX_SOURCE = 4_000
"""Characters that a template may have itself."""
MAX_RESULT = 20_000
"""Characters that a rendered template may have, and every text on the way there."""
MAX_NUMBER = 10**15
_PLAIN_FILTERS = (
    "abs", "capitalize", "default", "d", "escape", "e", "first", "float", "int", "last", "length",
    "count", "list", "lower", "round", "sort", "string", "striptags", "title", "trim", "unique",
    "upper",
)  # fmt: skip
_METHODS = {
    str: {"lower", "upper", "title", "strip", "startswith", "endswith", "split", "capitalize"},
    dict: {"get", "items", "keys", "values"},
}
_FORBIDDEN = (
    nodes.Macro, nodes.CallBlock, nodes.Import, nodes.FromImport, nodes.Include, nodes.Extends,
    nodes.Block, nodes.Pow,
)  # fmt: skip


def _bounded(text: str) -> str:
    if len(text) > MAX_RESULT:
        raise ValueError(f"the template gives more than {MAX_RESULT} characters")
    return text


def _join(value: Any, separator: str = "") -> str:
    return _concat([part for item in value for part in (separator, item)][1:])


def _concat(parts: Any) -> str:
    texts = ["" if part is None else str(part) for part in parts]
    if sum(map(len, texts)) > MAX_RESULT:
        raise ValueError(f"the template gives more than {MAX_RESULT} characters")
    return "".join(texts)


def _replace(value: Any, old: str, new: str) -> str:
    text = str(value)
    if len(text) + (text.count(old) * max(0, len(new) - len(old))) > MAX_RESULT:
        raise ValueError(f"the template gives more than {MAX_RESULT} characters")
    return text.replace(old, new)


def _truncate(value: Any, limit: int = 255) -> str:
    return str(value)[: max(0, int(limit))]


def _moment(form: str) -> Callable[..., str]:
    def show(value: Any, zone: str = "UTC", form: str = form) -> str:
        """A time on the clock of a zone, as `Europe/Berlin`; the form as strftime takes it."""
        if not isinstance(value, datetime):
            return ""
        if len(form) > 50:
            raise ValueError("a form of a date has at most 50 characters")
        try:
            return value.astimezone(ZoneInfo(zone)).strftime(form)
        except (ZoneInfoNotFoundError, ValueError, OverflowError):
            raise ValueError(f"there is no time zone {zone!r}, or the form is wrong") from None

    return show


class _Generator(CodeGenerator):
    """Compiles `~` into a call that keeps texts bounded: doubling a text 40 times is a bomb."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.concat_bounded((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class _Environment(ImmutableSandboxedEnvironment):
    """Nothing but the listed filters and methods; no way to Python, to files or to endless work."""

    code_generator_class = _Generator
    intercepted_binops = frozenset({"+", "*", "%", "//", "/", "-"})
    concat_bounded = staticmethod(_concat)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Sums of texts and of small numbers; everything else that grows is refused."""
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            return _concat((left, right))
        for side in (left, right):
            if isinstance(side, bool) or not isinstance(side, (int, float)):
                raise ValueError(f"{operator} works on numbers")
            if abs(side) > MAX_NUMBER:
                raise ValueError("the number is too large")
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Only data, and a few methods of texts and tables."""
        for kind, names in _METHODS.items():
            if isinstance(obj, kind):
                return attr in names
        return False


_environment = _Environment(
    autoescape=False,
    finalize=lambda value: "" if value is None else value,
    extensions=(),
)
_environment.globals.clear()
_environment.filters = {name: FILTERS[name] for name in _PLAIN_FILTERS} | {
    "join": _join,
    "replace": _replace,
    "truncate": _truncate,
    "date": _moment("%Y-%m-%d"),
    "time": _moment("%H:%M"),
    "datetime": _moment("%Y-%m-%d %H:%M"),
}


@lru_cache(maxsize=512)
def _compile(source: str) -> Template:
    return _environment.from_string(source)


def check_template(source: str) -> str:
    """Give the source back; raise ValueError where it does not compile or reaches too far."""
    if len(source) > MAX_SOURCE:
        raise ValueError(f"a template has at most {MAX_SOURCE} characters")
    try:
        tree = _environment.parse(source)
        _compile(source)
    except TemplateError as error:
        raise ValueError(f"the template does not compile: {error}") from None
    for node in tree.find_all(_FORBIDDEN):
        raise ValueError(f"a template has no {type(node).__name__.lower()}")
    for loop in tree.find_all(nodes.For):
        if loop.recursive or any(True for child in loop.body for _ in _loops(child)):
            raise ValueError("a loop inside a loop is not for a mapping file")
    for root in sorted(meta.find_undeclared_variables(tree) - ROOTS):
        raise ValueError(f"there is no {root!r}; there are: {', '.join(sorted(ROOTS))}")
    for part in tree.find_all(nodes.Getattr):
        if isinstance(part.node, nodes.Name) and part.node.name in FIXED_ROOTS:
            check_path(f"{part.node.name}.{part.attr}")
    return source


def _loops(node: nodes.Node) -> list[nodes.Node]:
    own = [node] if isinstance(node, nodes.For) else []
    return [*own, *node.find_all(nodes.For)]


@lru_cache(maxsize=512)
def names_in(source: str) -> frozenset[str]:
    """The roots that a template reads from (`attendee`, `person`), and `answers:<label>`."""
    tree = _environment.parse(source)
    found = {node.name for node in tree.find_all(nodes.Name) if node.ctx == "load"}
    asked = [(part.node, part.attr) for part in tree.find_all(nodes.Getattr)]
    for part in tree.find_all(nodes.Getitem):
        if isinstance(part.arg, nodes.Const):
            asked.append((part.node, str(part.arg.value)))
    for node, label in asked:
        if isinstance(node, nodes.Name) and node.name == "answers":
            found.add(f"answers:{plain_label(label)}")
    return frozenset(found)


def render(source: str, context: Mapping[str, Any]) -> str:
    """Render a checked template. Text in braces inside the data stays text.

    Raises ValueError where the template reaches for something forbidden or grows too long.
    """
    parts, size = [], 0
    try:
        for part in _compile(source).generate(context):
            parts.append(part)
            size += len(part)
            if size > MAX_RESULT:
                break
    except (
        TemplateError,
        ArithmeticError,
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
    ) as e:
        raise ValueError(f"the template failed: {e}") from None
    return _bounded("".join(parts))
