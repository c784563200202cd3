"""How gunicorn serves the web process."""

import os

bind = os.environ.get("WEB_BIND", f"0.0.0.0:{os.environ.get('PORT', '8000')}")
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
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
# The URL of a webhook may contain a token, so requests are not logged.
accesslog = None
