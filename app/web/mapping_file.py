"""The pages of one mapping file: the file in use, its check, its former versions, and previews."""

from __future__ import annotations

from dataclasses import replace

from flask import Blueprint, render_template, request
from werkzeug.exceptions import BadRequest, NotFound

from app.domain.booking import Booking
from app.domain.roles import Permission
from app.mapping.paths import plain_label
from app.mapping.questions import labels_used
from app.mapping.text_diff import differences
from app.services.made_up import MadeUp, make_booking
from app.services.mapping_trial import AccountPreview, Trial
from app.services.mapping_versions import FILE, UnknownVersion, VersionText
from app.services.questions import FormQuestion, answers_seen, questions_seen
from app.store.engine import utcnow
from app.store.models import ConnectionRow
from app.web.access import me, needs, services
from app.web.bookings import html_fields
from app.web.lookup import asked_connection, connected, find_booking, find_connection, overview
from app.web.mappings import find_provider, mapping_problems

blueprint = Blueprint("mapping_file", __name__, url_prefix="/mappings/<name>")
MOST_OFFERED = 20
"""The most stored bookings, and the most questions, that the preview's form offers."""
LONGEST = 2_000
"""The most characters of a field in the preview's form."""
FIELDS = (
    "slug", "type_name", "first_name", "last_name", "email", "phone", "timezone", "language",
    "host", "start", "minutes",
)  # fmt: skip


@blueprint.get("")
@needs(Permission.SEE_SETUP)
def show(name: str) -> str:
    """One CRM's mapping file: its text, problems, accounts, versions and questions."""
    return _file_page(name)


@blueprint.post("/check")
@needs(Permission.CHANGE_SETUP)
def check(name: str) -> str:
    """Check the file in use against an account, which is asked now; nothing is stored."""
    row = _account(name)
    if row is None:
        raise BadRequest("Choose the account to check the file against.")
    return _file_page(name, row, services().trial.check(row))


@blueprint.get("/versions/<version>")
@needs(Permission.SEE_SETUP)
def version(name: str, version: str) -> str:
    """The text of one version, and what differs from another one (`with`), or from the file."""
    shown = _read(name, version)
    other = _read(name, request.args.get("with") or FILE)
    return render_template(
        "mapping_version.html",
        provider=find_provider(name),
        shown=shown,
        other=other,
        lines=differences(shown.text, other.text),
        versions=services().versions.listed(name),
        current=services().mappings[name].version,
    )


@blueprint.get("/preview")
@needs(Permission.CHANGE_SETUP)
def ask_preview(name: str) -> str:
    """The form of a preview: a stored booking, or a made-up one."""
    return _preview_page(name, MadeUp(), request.args.get("booking", ""))


@blueprint.post("/preview")
@needs(Permission.CHANGE_SETUP)
def preview(name: str) -> str:
    """Show what a sync of a booking would do in each account, or in one; nothing is written."""
    find_provider(name)
    entered, key = _entered(), request.form.get("booking", "").strip()[:LONGEST]
    booking, problem = _booking(key, entered)
    if booking is None:
        return _preview_page(name, entered, key, problem=problem)
    row = _account(name)
    trial = services().trial
    if row is None:
        account = trial.preview_alone(name, services().shape(name), [booking])
    else:
        account = trial.preview_account(row, [booking])
    return _preview_page(name, entered, key, account, trial.doubts(name, [booking]), row=row)


def _booking(key: str, entered: MadeUp) -> tuple[Booking | None, str]:
    """The chosen or made-up booking, or why there is none."""
    if request.form.get("kind") == "stored":
        if not key:
            return None, "Choose a booking, or enter its key."
        try:
            return find_booking(key).booking, ""
        except NotFound:
            return None, "There is no such booking."
    answers = answers_seen(services().store, services().cipher)
    several = {label for label, found in answers.items() if any(isinstance(a, list) for a in found)}
    try:
        return make_booking(entered, several, utcnow()), ""
    except ValueError as error:
        return None, str(error)


def _entered() -> MadeUp:
    """What the form holds; its fields are cut at LONGEST."""
    if request.form.get("kind") != "made_up":
        return MadeUp()
    values = {field: request.form.get(field, "").strip()[:LONGEST] for field in FIELDS}
    labels, texts = request.form.getlist("question"), request.form.getlist("answer")
    pairs = [(q[:LONGEST], a[:LONGEST]) for q, a in zip(labels, texts, strict=False) if a.strip()]
    answers = tuple(pairs[: 2 * MOST_OFFERED])
    return replace(MadeUp(), cancelled="cancelled" in request.form, answers=answers, **values)


def _account(name: str) -> ConnectionRow | None:
    """The account that the form names; None if it names none. Raises NotFound."""
    find_provider(name)
    # The value 0 in the form means no account.
    chosen = None if request.form.get("connection") == "0" else asked_connection(request.form)
    row = find_connection(chosen) if chosen else None
    if row is not None and row.provider != name:
        raise NotFound("There is no such connection.")
    return row


def _read(name: str, version: str) -> VersionText:
    find_provider(name)
    try:
        return services().versions.read(version, services().mappings[name])
    except UnknownVersion as error:
        raise NotFound(str(error)) from None


def _file_page(name: str, row: ConnectionRow | None = None, trial: Trial | None = None) -> str:
    provider = find_provider(name)
    mapping = services().mappings[name]
    seen = questions_seen(services().store, services().cipher, files={name: mapping})
    return render_template(
        "mapping.html",
        provider=provider,
        providers={name: provider},
        mapping=mapping,
        path=services().mappings.path(name),
        problems=[p for p in mapping_problems() if p.provider == name],
        rows=_rows(name),
        row=row,
        trial=trial,
        versions=services().versions.listed(name),
        seen=seen,
        unused=[question for question in seen.questions if not question.used_by],
        csrf=me().csrf,
    )


def _preview_page(
    name: str,
    entered: MadeUp,
    key: str,
    account: AccountPreview | None = None,
    doubts: list[str] | None = None,
    problem: str = "",
    row: ConnectionRow | None = None,
) -> str:
    provider = find_provider(name)
    rows = _rows(name)
    chosen = row.id if row else 0 if request.method == "POST" else next((r.id for r in rows), 0)
    seen = questions_seen(services().store, services().cipher)
    return render_template(
        "mapping_preview.html",
        provider=provider,
        providers=services().providers,
        version=services().mappings[name].version,
        rows=rows,
        chosen=chosen,
        bookings=overview().bookings(MOST_OFFERED),
        key=key,
        entered=entered,
        questions=_offered(name, entered, seen.questions),
        slugs=seen.slugs,
        account=account,
        doubts=doubts,
        problem=problem,
        html_fields=html_fields(),
        csrf=me().csrf,
    )


def _offered(name: str, entered: MadeUp, seen: tuple[FormQuestion, ...]) -> list[tuple[str, str]]:
    """Questions for the form with what was entered: those entered, those of the file, those seen."""
    answered = {plain_label(label): (label, answer) for label, answer in entered.answers}
    labels = {plain_label(question.label): question.label for question in seen}
    used = sorted(labels_used(services().mappings[name]))
    wanted = dict.fromkeys([*answered, *used, *labels])
    offered = [answered.get(label, (labels.get(label, label), "")) for label in wanted]
    return offered[: max(MOST_OFFERED, len(answered))]


def _rows(name: str) -> list[ConnectionRow]:
    return [row for row in connected() if row.provider == name]
