"""`bridge causes …`: why bookings are not synced, and new tries for all that share a cause."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TypeVar

import click

from app.bootstrap import Services
from app.cli.command import Answer, Group, command, listing, many
from app.cli.tables import table_of
from app.services.causes import CauseState, CauseView, NoCause, RetryPlan, RetryView

T = TypeVar("T")
STATES = click.Choice([state.value for state in CauseState])

causes = Group("causes", help="Why bookings are not synced; all that share a cause are one line.")
COLUMNS = {
    "key": "key", "state": "state", "CRM": "crm", "connection": "connection_id",
    "bookings": "bookings", "last seen (UTC)": "last_seen", "why": "sentence",
    "what to do": "advice",
}  # fmt: skip
SAMPLE_COLUMNS = {
    "delivery": "delivery_id", "booking": "booking", "state": "state", "why": "error",
    "at (UTC)": "at",
}  # fmt: skip


@command("list", "bridge causes list --state open", causes)
@click.option("--state", type=STATES, help="Only causes in this state.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1))
def list_(services: Services, state: str | None, limit: int) -> Answer:
    """List the causes for which bookings are not synced now; those seen last come first."""
    found = services.causes.listed(CauseState(state) if state else None, limit)
    empty = f"No cause is {state}." if state else "Every booking is synced, or on its way."
    return listing("causes", [view.as_json() for view in found], COLUMNS, empty)


@command("show", "bridge causes show 5d3fa81c09b2e7a4", causes)
@click.argument("key")
def show(services: Services, key: str) -> Answer:
    """Show a cause: what happened, what to do, its bookings, what a retry would take."""
    view = _found(lambda: services.causes.one(key))
    plan = services.causes.plan(key)
    shown = [*_about(view), _planned(plan)]
    if view.retry:
        shown.append(_progress(view.retry))
    table = table_of([asdict(sample) for sample in view.samples], SAMPLE_COLUMNS)
    return Answer({**view.as_json(), "plan": asdict(plan)}, [*shown, table])


@command("retry", "bridge causes retry 5d3fa81c09b2e7a4 --plan", causes)
@click.argument("key")
@click.option("--plan", "only_plan", is_flag=True, help="Only say what it would take.")
@click.option("--stop", is_flag=True, help="Stop the last retry: what has not begun stays failed.")
def retry(services: Services, key: str, only_plan: bool, stop: bool) -> Answer:
    """Try all bookings of a cause again, after new ones; exit 1 if there is none."""
    if only_plan and stop:
        raise click.UsageError("Give --plan or --stop, not both.")
    if stop:
        return _stopped(services, key)
    plan = _found(lambda: services.causes.plan(key))
    if only_plan or plan.problem:
        return Answer({"plan": asdict(plan)}, [_planned(plan)], problem=plan.problem)
    made = services.causes.retry(key, "cli")
    return Answer({"plan": asdict(plan), "retry": asdict(made)}, [_planned(plan), _progress(made)])


@command("ignore", "bridge causes ignore 5d3fa81c09b2e7a4", causes)
@click.argument("key")
@click.option("--undo", is_flag=True, help="Ignore it no longer.")
def ignore(services: Services, key: str, undo: bool) -> Answer:
    """Ignore a cause until the mapping file changes."""
    act = services.causes.unignore if undo else services.causes.ignore
    _found(lambda: act(key, "cli"))
    words = "is no longer ignored" if undo else "is ignored until the mapping file changes"
    return Answer({"key": key, "ignored": not undo}, [f"Cause {key} {words}."])


def _stopped(services: Services, key: str) -> Answer:
    last = _found(lambda: services.causes.one(key)).retry
    if last is None or not last.running:
        return Answer({"retry": None}, problem=f"No retry of cause {key} is running.")
    view = services.causes.stop(last.id, "cli")
    return Answer({"retry": asdict(view)}, ["The retry is stopped.", _progress(view)])


def _found(look: Callable[[], T]) -> T:
    try:
        return look()
    except NoCause as error:
        raise click.ClickException(f"{error} `bridge causes list` shows them.") from None


def _about(view: CauseView) -> list[str]:
    number = f"{view.bookings - 1:,}+ bookings" if view.more else many(view.bookings, "booking")
    when = f"first seen {view.first_seen:%Y-%m-%d %H:%M}, last seen {view.last_seen:%Y-%m-%d %H:%M}"
    start = f"{view.crm} {view.account} (connection {view.connection_id}): {view.state.value}"
    return [f"{start}, {number}, {when} UTC.", view.sentence, view.advice]


def _planned(plan: RetryPlan) -> str:
    if plan.problem:
        return plan.problem
    minutes = f"{plan.minutes:.0f} minutes" if plan.minutes >= 1.5 else "a minute"
    return (
        f"A retry takes {many(plan.bookings, 'booking')}, about {many(plan.calls, 'call')} to the"
        f" CRM, and about {minutes} at its limit."
    )


def _progress(view: RetryView) -> str:
    end = ", stopped" if view.stopped_at else ""
    return (
        f"The last retry, of {many(view.planned, 'booking')}{end}: {view.waiting} wait,"
        f" {view.retrying} are tried again later, {view.synced} synced, {view.failed} failed,"
        f" {view.other} other."
    )
