"""What all commands share: an example in the help, `--json`, services on demand, exit codes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.table import Table

from app.cli.later import later_of
from app.cli.tables import print_table, table_of

HELP = {"help_option_names": ["-h", "--help"]}
FAILED, USAGE = 1, 2
"""Exit codes: nothing was done or a check failed; the command was written wrongly."""


class Needs(Enum):
    """What a command gets as its first argument."""

    NOTHING = "nothing"
    LATER = "later"
    """The Later: the command asks for services itself, or goes without."""
    WIRED = "wired"
    """Services whose database may not fit the code."""
    DATABASE = "database"
    """Services with a database that fits."""


@dataclass(frozen=True)
class Answer:
    """What a command has to say: for scripts, and for people."""

    data: object
    """What `--json` prints; the names in it stay."""
    shown: Sequence[str | Table] = ()
    """Without `--json`: sentences and tables."""
    problem: str = ""
    """Why nothing was done, or what a check found: goes to stderr, and the exit code is 1."""
    warnings: Sequence[str] = ()
    """Go to stderr, and change nothing else."""


def listing(
    name: str, items: Sequence[Mapping[str, object]], columns: Mapping[str, str], empty: str
) -> Answer:
    """The answer of a command that lists things: a table, or a sentence if there are none."""
    return Answer({name: items}, [table_of(items, columns) if items else empty])


def many(number: int, one: str, more: str = "") -> str:
    """A number with its noun: 1 booking, 2 bookings."""
    return f"{number:,} {one if number == 1 else more or one + 's'}"


class Group(click.Group):
    """A group of commands."""

    def __init__(self, name: str, help: str) -> None:
        super().__init__(name, help=help, context_settings=HELP)

    def get_short_help_str(self, limit: int = 45) -> str:
        """Return the line in a list of commands."""
        return _first_clause(self.help)


class Command(click.Command):
    """A command that returns an Answer."""

    def __init__(self, *args: Any, example: str, needs: Needs, **kwargs: Any) -> None:
        super().__init__(*args, **{"context_settings": HELP, **kwargs})
        self.example, self.needs = example, needs
        self.epilog = f"\b\nExample:\n  {example}"
        self.params.append(
            click.Option(["--json", "as_json"], is_flag=True, help="Print JSON, for scripts.")
        )

    def get_short_help_str(self, limit: int = 45) -> str:
        """Return the line in a list of commands."""
        return _first_clause(self.help)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments; with --json a mistake in them is told as JSON too."""
        as_json = "--json" in args
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if as_json:
                _fail(error.format_message(), USAGE)
            raise

    def invoke(self, ctx: click.Context) -> None:
        """Run the command and print its answer."""
        if not ctx.params.pop("as_json"):
            self._show(self._run(ctx))
            return
        try:
            answer = self._run(ctx)
        except click.Abort:
            _fail("Stopped: nobody agreed. Add --yes, if the command has it.", FAILED)
        except click.ClickException as error:
            _fail(error.format_message(), error.exit_code)
        except SystemExit as end:
            if not isinstance(end.code, str):
                raise
            _fail(end.code, FAILED)
        click.echo(as_json_text(answer.data))
        if answer.problem:
            _fail(answer.problem, FAILED)

    def _run(self, ctx: click.Context) -> Answer:
        first: tuple[object, ...] = ()
        if self.needs is not Needs.NOTHING:
            later = later_of(ctx)
            if self.needs is Needs.LATER:
                first = (later,)
            else:
                first = (later.take() if self.needs is Needs.DATABASE else later.wired(),)
        if self.callback is None:
            raise TypeError(f"{self.name} has no function")
        answer = ctx.invoke(self.callback, *first, **ctx.params)
        if not isinstance(answer, Answer):
            raise TypeError(f"{self.name} returns no Answer")
        return answer

    def _show(self, answer: Answer) -> None:
        for part in answer.shown:
            if isinstance(part, str):
                click.echo(part)
            else:
                print_table(part)
        if answer.problem:
            click.echo(f"Error: {answer.problem}", err=True)
        for line in answer.warnings:
            click.echo(f"Warning: {line}", err=True)
        if answer.problem:
            raise SystemExit(FAILED)


def command(
    name: str, example: str, group: Group | None = None, needs: Needs = Needs.DATABASE
) -> Callable[[Callable[..., Answer]], Command]:
    """Make a function a command, with an example for its help; `group`: also add it there."""

    def decorate(function: Callable[..., Answer]) -> Command:
        made = click.command(name, cls=Command, example=example, needs=needs)(function)
        if group is not None:
            group.add_command(made)
        return made

    return decorate


def as_json_text(data: object) -> str:
    """Data as one JSON document."""
    return json.dumps(data, indent=2, ensure_ascii=False, default=_simple)


def _first_clause(text: str | None) -> str:
    return re.split(r"[;:]|\.\s|\.$", (text or "").strip(), maxsplit=1)[0]


def _simple(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"no JSON for {type(value).__name__}")


def _fail(message: str, code: int) -> NoReturn:
    click.echo(json.dumps({"error": message}, ensure_ascii=False), err=True)
    raise SystemExit(code)
