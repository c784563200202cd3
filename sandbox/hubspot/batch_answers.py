"""The answer to a batch: 207 where some of it went wrong."""

from __future__ import annotations

from flask import Response

from sandbox.answers import Record, make


def batch_answer(results: list[Record], errors: list[Record], good: int) -> Response:
    """What a batch came to; `good`: the status where nothing went wrong."""
    times = {k: "2026-11-24T08:00:00Z" for k in ("requestedAt", "startedAt", "completedAt")}
    body = {"status": "COMPLETE", "results": results[::-1], **times}
    if errors:
        body |= {"errors": errors, "numErrors": len(errors)}
    return make(207 if errors else good, body)
