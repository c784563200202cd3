"""How gunicorn serves the web process."""

import time
from typing import Any

from config.settings import SettingsError, load_listening

try:
    _listening = load_listening()
except SettingsError as error:
    raise SystemExit(f"The web process cannot start:\n{error}") from None
bind = _listening.address
workers = _listening.web_concurrency
# Reads requests and sends answers without a thread, and ends slow connections.
worker_class = "app.web.front.FrontWorker"
threads = 8
# Connections of one process; above that, the oldest unfinished one is closed.
worker_connections = 400
# One request per connection: no part of one request can be read as the next one.
keepalive = 0
sendfile = False
# Seconds: longer than one call to a CRM while a person connects it.
timeout = 60
graceful_timeout = 10
# No control from outside, and no header may set the path where the service is mounted.
control_socket_disable = True
forwarder_headers = ""
# Lines in the one shape of this service's log. A line for each request is written only with
# GUNICORN_CMD_ARGS="--access-logfile=-"; it has no address, which may contain a token.
logger_class = "app.web.process_log.ProcessLog"
accesslog = None

BOOT_SECONDS = 30.0


def on_reload(arbiter: Any) -> None:
    """Let the workers of the reload before begin to serve, before this one replaces them.

    gunicorn ends the old workers as soon as the new ones are forked. Reloads that come faster than
    a worker starts would leave nobody to serve.
    """
    ends = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < ends and not all(map(_serves, arbiter.WORKERS.values())):
        time.sleep(0.1)


def _serves(worker: Any) -> bool:
    """Whether a worker has begun its loop, which notes a time of the monotonic clock."""
    try:
        noted: float = worker.tmp.last_update()
    except (OSError, ValueError):
        return True  # it has ended
    return noted <= time.monotonic()
