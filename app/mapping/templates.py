"""Templates in mapping files: Jinja2 reduced to text functions, with limits on time and size."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache, wraps
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from jinja2 import Template, TemplateError, Undefined, meta, nodes, pass_context
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS

from app.domain.text import cut
from app.mapping.paths import FIXED_ROOTS, ROOTS, check_path, plain_label
from app.mapping.transforms import ZONES, check_form

MAX_SOURCE = 4_000
"""Most characters of a template itself."""
MAX_RESULT = 100_000
"""Most characters of a rendered template, and of every text while it is rendered."""
MAX_WORK = 2_000_000
"""Most characters that filters, sums and methods may process for one rendering."""
TURN = 200
"""The cost of each part of a loop's body, on every turn: at most 10,000 parts in all."""
MAX_ITEMS = 5_000
"""Most entries of a list."""
ITEM = 20
"""The cost of an entry of a list, in characters."""
MAX_NUMBER = 10**15
_PLAIN_FILTERS = (
    "abs", "capitalize", "default", "d", "escape", "e", "first", "float", "last", "length",
    "count", "list", "lower", "sort", "striptags", "title", "trim", "unique", "upper",
)  # fmt: skip
_PLAIN_TESTS = (
    "defined", "undefined", "none", "boolean", "true", "false", "integer", "float", "number",
    "string", "mapping", "sequence", "iterable", "lower", "upper", "in", "==", "eq", "equalto",
    "!=", "ne", ">", "gt", "greaterthan", "ge", ">=", "<", "lt", "lessthan", "<=", "le",
)  # fmt: skip
_ONE_BY_ONE = tuple(FILTERS[name] for name in ("list", "sort", "unique"))
"""Filters that treat every character of a text as an entry."""
_METHODS = {
    str: {"lower", "upper", "title", "strip", "startswith", "endswith", "split", "capitalize"},
    dict: {"get", "items", "keys", "values"},
}
_LOOP = {"index", "index0", "first", "last", "length"}
_ALLOWED = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.For, nodes.If, nodes.Assign,
    nodes.Name, nodes.Const, nodes.Tuple, nodes.List, nodes.Dict, nodes.Pair, nodes.Keyword,
    nodes.CondExpr, nodes.Filter, nodes.Test, nodes.Call, nodes.Getattr, nodes.Getitem,
    nodes.Slice, nodes.Concat, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv,
    nodes.Mod, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos, nodes.Compare, nodes.Operand,
)  # fmt: skip
"""The allowed parts of a template; any other part of Jinja2, now or later, is refused."""
_FAILURES = (
    TemplateError, ArithmeticError, TypeError, ValueError, LookupError, AttributeError,
    RecursionError,
)  # fmt: skip
_left: ContextVar[list[int]] = ContextVar("_left")
"""The work that the present rendering may still do."""


def _spend(cost: int) -> None:
    left = _left.get()
    left[0] -= cost
    if left[0] < 0:
        raise ValueError("the template takes too much computing time")


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    return ITEM * len(value) if isinstance(value, (list, tuple, dict)) else 1


def _bounded(value: Any) -> Any:
    if isinstance(value, str) and len(value) > MAX_RESULT:
        raise ValueError(f"the template gives more than {MAX_RESULT} characters")
    if isinstance(value, list) and len(value) > MAX_ITEMS:
        raise ValueError(f"a list in a template has at most {MAX_ITEMS} entries")
    return value


def _counted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter, test or method that counts its input as work and limits its result."""

    each = ITEM if function in _ONE_BY_ONE else 1

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        _spend(1 + each * sum(map(_size, (*args, *kwargs.values()))))
        result = function(*args, **kwargs)
        return _bounded(list(result) if isinstance(result, Iterator) else result)

    return call


def _text(value: Any) -> str:
    """Return a value as people read it; refuse objects that are no values of a booking."""
    if value is None or isinstance(value, Undefined):
        return str(value or "")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, (list, tuple)):
        return _join(value, ", ")
    if isinstance(value, (str, int, float)):
        return str(value)
    raise ValueError(f"a {type(value).__name__} is not a text; name one of its entries")


def _concat(parts: Iterable[Any]) -> str:
    texts = [_text(part) for part in parts]
    size = sum(map(len, texts))
    _spend(size)
    if size > MAX_RESULT:
        raise ValueError(f"the template gives more than {MAX_RESULT} characters")
    return "".join(texts)


def _join(value: Any, separator: str = "") -> str:
    items = list(value)
    _spend(len(items))
    return _concat([part for item in items for part in (separator, item)][1:])


def _replace(value: Any, old: str, new: str) -> str:
    text, old, new = _text(value), _text(old), _text(new)
    if len(text) + (text.count(old) * max(0, len(new) - len(old))) > MAX_RESULT:
        raise ValueError(f"the template gives more than {MAX_RESULT} characters")
    return text.replace(old, new)


def _truncate(value: Any, limit: int = 255) -> str:
    return cut(_text(value), max(1, int(limit)))


def _int(value: Any, default: int = 0) -> int:
    # Long texts of digits take long to convert.
    return int(FILTERS["int"](value, default)) if len(str(value)) <= 40 else default


def _round(value: Any, places: int = 0) -> float:
    if not 0 <= int(places) <= 15:
        raise ValueError("round takes 0 to 15 places")
    return round(float(value), int(places))


def _divides(by: int | None = None) -> Callable[..., bool]:
    def test(value: Any, number: Any = by) -> bool:
        if not (isinstance(value, (int, float)) and isinstance(number, (int, float))):
            raise ValueError("odd, even and divisibleby work on numbers")
        return bool(value % number == 0)

    return test


def _moment(form: str) -> Callable[..., str]:
    def show(value: Any, zone: str = "UTC", form: str = form) -> str:
        """Return a time on the clock of a zone such as `Europe/Berlin`; the form is for strftime."""
        if not isinstance(value, datetime):
            return ""
        if len(form) > 50:
            raise ValueError("a form of a date has at most 50 characters")
        try:
            return value.astimezone(ZoneInfo(zone)).strftime(form)
        except (ZoneInfoNotFoundError, ValueError, OverflowError, OSError):
            raise ValueError(f"there is no time zone {zone!r}, or the form is wrong") from None

    return show


def _paced(value: Any, weight: int) -> Iterator[Any]:
    """Give the items of a loop, and count each turn as work."""
    for item in value:
        _spend(weight * TURN)
        yield item


class _Generator(CodeGenerator):
    """Compiles `~` into a call that limits texts: doubling a text 40 times would fill the memory."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.concat_bounded((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class _Environment(ImmutableSandboxedEnvironment):
    """Allows only the listed filters and methods: no Python, no files and no endless work."""

    code_generator_class = _Generator
    intercepted_binops = frozenset({"+", "*", "%", "//", "/", "-"})
    concat_bounded = staticmethod(_concat)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Add texts and small numbers; refuse all other operations that can grow."""
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            return _concat((left, right))
        for side in (left, right):
            if isinstance(side, bool) or not isinstance(side, (int, float)):
                raise ValueError(f"{operator} works on numbers")
            if abs(side) > MAX_NUMBER:
                raise ValueError("the number is too large")
        return super().call_binop(context, operator, left, right)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return an entry of a table; a question may have the name of one of Python's own methods."""
        if isinstance(obj, dict) and attribute not in _METHODS[dict]:
            return self.getitem(obj, attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return an entry of a table, a list or a text; never an attribute."""
        try:
            return obj[argument]
        except (TypeError, LookupError):
            if isinstance(argument, str) and (argument[:2] == "__" or not isinstance(obj, dict)):
                return self.unsafe_undefined(obj, argument)
            return self.undefined(obj=obj, name=argument)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        """Refuse at once: a forbidden attribute is not the same as an empty one."""
        raise SecurityError(f"{attribute!r} of a {type(obj).__name__} is not allowed in templates")

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Allow only data, a few methods of texts and tables, and the position in a loop."""
        if isinstance(obj, LoopContext):
            return attr in _LOOP
        return any(isinstance(obj, kind) and attr in names for kind, names in _METHODS.items())

    def wrap_str_format(self, value: Any) -> None:
        """Block `"{}".format`: it reaches into objects, and its widths can fill the memory."""

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call one of the listed methods, and count it as work."""
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if not __self.is_safe_attribute(owner, name, __obj):
            raise SecurityError("a template may call only the methods of texts and tables")
        _spend(_size(owner))
        # Jinja2 passes these to every call inside a loop.
        own = {key: kwargs[key] for key in kwargs if key not in ("_loop_vars", "_block_vars")}
        return _counted(__obj)(*args, **own)

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        for loop in list(source.find_all(nodes.For)):
            weight = nodes.Const(1 + sum(1 for _ in loop.find_all(nodes.Node)))
            loop.iter = nodes.Filter(loop.iter, "_paced", [weight], [], None, None)
        return super()._generate(source, *args, **kwargs)


@pass_context
def _finalize(_: Any, value: Any) -> str:
    # With the context as an argument, Jinja2 does not compute constants when it loads a template.
    return _text(value)


_environment = _Environment(autoescape=False, finalize=_finalize, extensions=(), optimized=False)
_environment.globals.clear()
_environment.filters = {
    name: _counted(function)
    for name, function in (
        {name: FILTERS[name] for name in _PLAIN_FILTERS}
        | {
            "int": _int,
            "join": _join,
            "replace": _replace,
            "round": _round,
            "string": _text,
            "truncate": _truncate,
            "date": _moment("%Y-%m-%d"),
            "time": _moment("%H:%M"),
            "datetime": _moment("%Y-%m-%d %H:%M"),
        }
    ).items()
} | {"_paced": _paced}
_environment.tests = {name: TESTS[name] for name in _PLAIN_TESTS} | {
    "even": _divides(2),
    "odd": lambda value: not _divides(2)(value),
    "divisibleby": _divides(),
}


@lru_cache(maxsize=512)
def _compile(source: str) -> Template:
    return _environment.from_string(source)


def check_template(source: str) -> str:
    """Return the source; raise ValueError if it does not compile or uses forbidden parts."""
    if len(source) > MAX_SOURCE:
        raise ValueError(f"a template has at most {MAX_SOURCE} characters")
    try:
        tree = _environment.parse(source)
        _check_parts(tree)
        _compile(source)
    except TemplateError as error:
        raise ValueError(f"the template does not compile: {error}{_instead(source)}") from None
    except (RecursionError, SyntaxError, MemoryError):
        raise ValueError("the template is nested too deeply") from None
    return source


def _instead(source: str) -> str:
    """Return a guess at what a template that does not compile means, as the end of a sentence."""
    if re.search("[“”„‟‘’‚«»]", source):
        return "; templates do not accept curly quotes: write straight ones, ' or \""
    asked = re.search(r"answers\.([^|}]+)", source)
    if asked and not re.fullmatch(r"[\w.]+\s*", asked[1]):
        return "; a question with blanks or signs is written answers['…']"
    return ""


def _check_form(node: nodes.Filter) -> None:
    """Check zone and form of a date if the template has them as constants."""
    given = dict(zip(("zone", "form"), node.args, strict=False))
    given |= {str(named.key): named.value for named in node.kwargs}
    zone, form = given.get("zone"), given.get("form")
    if isinstance(form, nodes.Const):
        check_form(str(form.value))
    if isinstance(zone, nodes.Const) and zone.value not in ZONES:
        raise ValueError(
            f"there is no time zone {zone.value!r}; a zone comes first, then the form: "
            f"{node.name}('Europe/Berlin', '%d.%m.%Y')"
        )


def _check_parts(tree: nodes.Template) -> None:
    """Raise ValueError for forbidden parts of a template, and for unknown names."""
    for node in tree.find_all(nodes.Node):
        if not isinstance(node, _ALLOWED):
            raise ValueError(f"a template may not use {type(node).__name__.lower()}")
        for kind, known in ((nodes.Filter, _environment.filters), (nodes.Test, _environment.tests)):
            if isinstance(node, kind) and (node.name not in known or node.name.startswith("_")):
                there = ", ".join(sorted(n for n in known if n.isalnum()))
                word = kind.__name__.lower()
                raise ValueError(f"there is no {word} {node.name!r}; there are: {there}")
        if isinstance(node, nodes.Filter) and node.name in ("date", "time", "datetime"):
            _check_form(node)
    for loop in tree.find_all(nodes.For):
        if loop.recursive or any(True for child in loop.body for _ in _loops(child)):
            raise ValueError("a template may not have a loop inside a loop")
    names = {node.name for node in tree.find_all(nodes.Name) if node.ctx == "load"}
    for root in sorted((meta.find_undeclared_variables(tree) | names & {"self"}) - ROOTS):
        raise ValueError(f"there is no {root!r}; there are: {', '.join(sorted(ROOTS))}")
    for root, name in _members(tree):
        if root in FIXED_ROOTS and (root, name) != ("meeting_type", "metadata"):
            check_path(f"{root}.{name}")


def is_constant(source: str) -> bool:
    """Whether a template gives its own text for every booking."""
    return not re.search(r"\{[{%#]", source)


def _loops(node: nodes.Node) -> list[nodes.Node]:
    own = [node] if isinstance(node, nodes.For) else []
    return [*own, *node.find_all(nodes.For)]


def _members(tree: nodes.Template) -> Iterator[tuple[str, str]]:
    """Give each name that is read: (`answers`, `Q`) for answers.Q, answers["Q"], answers.get("Q")."""
    asked: list[tuple[nodes.Node, Any]] = []
    for attribute in tree.find_all(nodes.Getattr):
        asked.append((attribute.node, attribute.attr))
    for item in tree.find_all(nodes.Getitem):
        asked.append((item.node, item.arg))
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Getattr) and call.node.attr == "get" and call.args:
            asked.append((call.node.node, call.args[0]))
    for node, name in asked:
        label = name.value if isinstance(name, nodes.Const) else name
        if isinstance(node, nodes.Name) and not isinstance(label, nodes.Node):
            yield node.name, str(label)


@lru_cache(maxsize=512)
def names_in(source: str) -> frozenset[str]:
    """Return the roots that a template reads from (`attendee`, `person`), and `answers:<label>`."""
    tree = _environment.parse(source)
    found = {node.name for node in tree.find_all(nodes.Name) if node.ctx == "load"}
    asked = [label for root, label in _members(tree) if root == "answers"]
    return frozenset(found | {f"answers:{plain_label(label)}" for label in asked})


@lru_cache(maxsize=512)
def questions_in(source: str) -> frozenset[str]:
    """Return the questions in a template, as they are written there."""
    asked = {label for root, label in _members(_environment.parse(source)) if root == "answers"}
    return frozenset(asked - _METHODS[dict])


def render(source: str, context: Mapping[str, Any]) -> str:
    """Render a checked template. Text in braces inside the data stays text.

    Raises ValueError if the template uses forbidden parts or grows too long.
    """
    parts, size = [], 0
    token = _left.set([MAX_WORK])
    try:
        for part in _compile(source).generate(context):
            parts.append(part)
            size += len(part)
            if size > MAX_RESULT:
                break
    except _FAILURES as e:
        raise ValueError(f"the template failed: {e}") from None
    finally:
        _left.reset(token)
    return str(_bounded("".join(parts)))
