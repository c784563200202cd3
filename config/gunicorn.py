"""How gunicorn serves the web process."""

import os

bind = os.environ.get("WEB_BIND", f"0.0.0.0:{os.environ.get('PORT', '8000')}")
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
worker_class = "gthread"
threads = 8
# Seconds: longer than one call to a CRM during a connect.
timeout = 60
graceful_timeout = 10
# The address of a webhook may carry a token, so requests are not logged.
accesslog = None
