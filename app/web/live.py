"""Parts of pages that bring themselves up to date: htmx asks, and gets only what has changed."""

from __future__ import annotations

import hashlib
from typing import Any

from flask import Response, make_response, render_template, request

SEEN = "seen"
"""The parameter with the digest of what the page shows already."""


def render(page: str, part: str, **values: Any) -> Response:
    """Render a page; if htmx asks for its live part, that part alone, and nothing if it is the same.

    `part` is the template of the live part; it gets `digest`, which its address hands back.
    """
    body = render_template(part, digest="", **values)
    digest = hashlib.sha256(body.encode()).hexdigest()[:16]
    if "HX-Request" not in request.headers:
        return make_response(render_template(page, digest=digest, **values))
    if request.args.get(SEEN) == digest:
        return Response(status=204)
    return make_response(render_template(part, digest=digest, **values))
