"""The answer to a batch: 207 if some of it failed."""

from __future__ import annotations

from flask import Response

from sandbox.answers import Record, make


def batch_answer(results: list[Record], errors: list[Record], good: int) -> Response:
    """Return the answer to a batch; `good`: the status if nothing failed."""
    times = {k: "2026-11-24T08:00:00Z" for k in ("requestedAt", "startedAt", "completedAt")}
    body = {"status": "COMPLETE", "results": results[::-1], **times}
    if errors:
        body |= {"errors": errors, "numErrors": len(errors)}
    return make(207 if errors else good, body)
