"""The demo's own page: book a meeting, change it, break a CRM and mend it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from functools import partial

from flask import Flask, Response, abort, render_template, request

from sandbox.demo.mishaps import MISHAPS, NEW_OPTION, OPTIONS, QUESTION, Mishap, mishaps_of
from sandbox.demo.sender import NotAccepted, Sender
from sandbox.demo.story import PRODUCT_DEMO, TEAM, UNREADABLE
from sandbox.pages import TEMPLATES
from sandbox.serve import Served
from sandbox.webhooks import DISCOVERY, booked, guest

KINDS = (DISCOVERY, PRODUCT_DEMO, TEAM)
HOUR = time(9, tzinfo=UTC)
LONGEST = 120
"""Characters of a name or an address."""


class Control:
    """The page, as an app for `Served`."""

    name, title = "control", "The page to make things happen"

    def __init__(self, sender: Sender, crms: Mapping[str, Served], web: str) -> None:
        """`web`: the address of the bridge."""
        self._sender, self._crms, self._web = sender, crms, web
        self._said = ""
        self.app = Flask("sandbox.demo.control", template_folder=str(TEMPLATES))
        self.app.before_request(_refuse_strangers)
        add = partial(self.app.add_url_rule, methods=["POST"])
        self.app.add_url_rule("/", "page", self._page)
        add("/bookings", "book", self._book)
        add("/bookings/<booking_id>/<change>", "change", self._change)
        add("/webhooks/<kind>", "send", self._send)
        add("/crms/<name>/<code>/break", "break", self._break)
        add("/crms/<name>/<code>/mend", "mend", self._mend)

    def _page(self) -> str:
        said, self._said = self._said, ""
        return render_template(
            "control.html",
            web=self._web,
            crms=list(self._crms.values()),
            mishaps=mishaps_of,
            bookings=list(self._sender.bookings.values())[::-1],
            kinds=KINDS,
            question=QUESTION,
            answers=(*OPTIONS, NEW_OPTION),
            tomorrow=(datetime.now(UTC) + timedelta(days=1)).date().isoformat(),
            said=said,
        )

    def _book(self) -> Response:
        form = request.form
        name, email = (form.get(key, "").strip()[:LONGEST] for key in ("name", "email"))
        kind = next((kind for kind in KINDS if kind[1] == form.get("kind")), None)
        try:
            day = datetime.fromisoformat(form.get("day", "")).date()
        except ValueError:
            day = None
        if not name or "@" not in email or kind is None or day is None:
            return self._back("Give a name, an e-mail address, a meeting type and a day.")
        first, _, last = name.rpartition(" ")
        answers = {QUESTION: form.get("answer", "")[:LONGEST]}
        who = guest(first, last, email, answers=answers)
        # Bookings of one day follow each other every half hour.
        start = datetime.combine(day, HOUR) + timedelta(minutes=30 * len(self._sender.bookings))
        payload = booked(datetime.now(UTC), start, [who], kind, 100 + len(self._sender.bookings))
        try:
            word = self._sender.send(payload)
        except NotAccepted as error:
            return self._back(str(error))
        return self._back(f"Booked for {name}: the bridge took the webhook ({word}). It is in the CRMs within seconds.")  # fmt: skip

    def _change(self, booking_id: str, change: str) -> Response:
        does = {"move": self._sender.move, "cancel": self._sender.cancel}.get(change)
        if does is None or booking_id not in self._sender.bookings:
            abort(404)
        try:
            word = does(booking_id)
        except NotAccepted as error:
            return self._back(str(error))
        done = "moved by a day" if change == "move" else "cancelled"
        return self._back(f"The booking is {done}: the bridge took the webhook ({word}). The CRMs follow within seconds.")  # fmt: skip

    def _send(self, kind: str) -> Response:
        if kind not in ("unreadable", "unsigned"):
            abort(404)
        at = datetime.now(UTC).isoformat()
        try:
            word = self._sender.send_body({**UNREADABLE[0], "at": at}, signed=kind == "unreadable")
        except NotAccepted as error:
            return self._back(f"{error} Nothing of this webhook is kept.")
        return self._back(f"The bridge took the webhook ({word}). Its page Webhooks gives the reason.")  # fmt: skip

    def _break(self, name: str, code: str) -> Response:
        crm, mishap = self._found(name, code)
        if not mishap.is_on(crm.sandbox):
            mishap.begins(crm.sandbox)
        return self._back(f"{crm.sandbox.title}: {mishap.title}. {mishap.seen}")

    def _mend(self, name: str, code: str) -> Response:
        crm, mishap = self._found(name, code)
        if mishap.ends is None:
            return self._back(f"Connect {crm.sandbox.title} again in the bridge.")
        mishap.ends(crm.sandbox)
        return self._back(f"{crm.sandbox.title}: {mishap.mended}")

    def _found(self, name: str, code: str) -> tuple[Served, Mishap]:
        crm = self._crms.get(name)
        mishap = next((mishap for mishap in MISHAPS if mishap.code == code), None)
        if crm is None or mishap not in mishaps_of(crm.sandbox):
            abort(404)
        return crm, mishap

    def _back(self, said: str) -> Response:
        self._said = said
        return Response(status=303, headers={"Location": "/"})


def _refuse_strangers() -> None:
    """Refuse a form that another site sent, and a name that was led to this machine."""
    host = request.host.partition(":")[0]
    if host not in ("127.0.0.1", "localhost"):
        abort(403)
    site = request.headers.get("Sec-Fetch-Site", "none")
    if request.method == "POST" and site not in ("same-origin", "none"):
        abort(403)
