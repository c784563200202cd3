"""How gunicorn serves the web process."""

import os

bind = os.environ.get("WEB_BIND", f"0.0.0.0:{os.environ.get('PORT', '8000')}")
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
# Reads requests and sends answers without a thread, and ends slow ones.
worker_class = "app.web.front.FrontWorker"
threads = 8
# Connections of one process; over that the oldest unfinished one is ended.
worker_connections = 400
# One request a connection: nothing of one can be taken for a part of the next.
keepalive = 0
sendfile = False
# Seconds: longer than one call to a CRM during a connect.
timeout = 60
graceful_timeout = 10
# Nobody steers this from outside, and no header may say where the service is mounted.
control_socket_disable = True
forwarder_headers = ""
# The address of a webhook may carry a token, so requests are not logged.
accesslog = None
