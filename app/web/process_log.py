"""gunicorn's own log, in the one shape that all lines of this service have."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import structlog
from gunicorn.glogging import Logger

from app.web.request_id import REQUEST_ID, ROUTE
from config.logging import start_logging

log = structlog.get_logger(__name__)


class ProcessLog(Logger):  # type: ignore[misc]
    """Hands gunicorn's lines on, instead of writing text of its own."""

    def setup(self, cfg: Any) -> None:
        """Begin the log of this process; gunicorn calls this in the master, before it forks."""
        self.cfg = cfg
        self._access_log_enabled = bool(cfg.accesslog)
        self.loglevel = self.LOG_LEVELS.get(cfg.loglevel.lower(), self.error_log.level)
        start_logging("web")
        self.error_log.setLevel(self.loglevel)
        for own in (self.error_log, self.access_log):
            own.handlers[:] = []
            own.propagate = True

    def access(self, resp: Any, req: Any, environ: Any, request_time: timedelta) -> None:
        """Write a line for a request, if gunicorn was told to (`--access-logfile -`).

        It has the route in place of the address, which may hold a token or a search.
        """
        if self._access_log_enabled:
            log.info(
                "request",
                request_id=environ.get(REQUEST_ID),
                method=req.method,
                route=environ.get(ROUTE),
                status=int(resp.status_code),
                milliseconds=round(request_time.total_seconds() * 1000, 1),
            )
