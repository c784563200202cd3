"""POST /webhooks/meetergo: a fast and true answer; a webhook answered with 202 is on disk."""

from __future__ import annotations

import structlog
from flask import Blueprint, Response, current_app, jsonify, request
from structlog.contextvars import bind_contextvars
from werkzeug.exceptions import BadRequest, Unauthorized, UnsupportedMediaType

from app.bootstrap import Services
from app.domain.json_text import NotJson
from app.security.signatures import BadSignature
from app.services.sources import DEFAULT_SOURCE

log = structlog.get_logger(__name__)
blueprint = Blueprint("webhooks", __name__, url_prefix="/webhooks/meetergo")


@blueprint.post("")
@blueprint.post("/<source>")
@blueprint.post("/<source>/<token>")
def receive(source: str = DEFAULT_SOURCE, token: str | None = None) -> tuple[Response, int]:
    """Verify, store, wake, answer."""
    services: Services = current_app.extensions["services"]
    if not (request.mimetype == "application/json" or request.mimetype.endswith("+json")):
        raise UnsupportedMediaType("Send the webhook as application/json.")
    headers = {
        name[5:].replace("_", "-").lower(): value
        for name, value in request.environ.items()
        if name.startswith("HTTP_")
    }
    try:
        rules = services.sources.rules(source)
        # Refuse what can be refused without the body: then nobody has to send or hold 256 KiB.
        services.intake.must_claim(rules, headers, token)
        body = request.get_data(cache=False)
        services.intake.verify(rules, headers, body, token)
    except BadSignature:
        # One sentence for every reason, so that a forger learns nothing.
        raise Unauthorized("The webhook is not signed with a secret known here.") from None
    try:
        answer = services.intake.accept(rules, body)
    except NotJson as error:
        raise BadRequest(f"The webhook was not accepted: {error}.") from None
    bind_contextvars(event_id=answer.event_id)
    log.debug("webhook_stored", source=source, state=answer.verdict.value)
    if answer.process:
        services.waker.process()
    if answer.confirm:
        services.waker.confirm()
    return jsonify(status=answer.verdict.value, event_id=answer.event_id), 202
