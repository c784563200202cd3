"""Makes one line of what RQ says about Redis: RQ prints a text every few seconds, or a stack."""

from __future__ import annotations

import logging
import sys

from redis.exceptions import RedisError

from app.services.outage import Outage
from app.services.redis_client import explain


def hush_outages(outage: Outage) -> None:
    """Note each failure of Redis that RQ's worker logs as a part of the outage, and drop RQ's line."""

    def tells(_record: logging.LogRecord) -> bool:
        # RQ logs while it handles the error, so that this is the error it logs about.
        error = sys.exc_info()[1]
        if not isinstance(error, RedisError):
            return True
        outage.note(explain(error))
        return False

    logging.getLogger("rq.worker").addFilter(tells)
