# One image for web, worker and scheduler: only the command differs (compose.yaml, Procfile).
FROM python:3.11-slim-bookworm AS build
WORKDIR /app
RUN python -m venv /venv
COPY requirements.txt constraints.txt ./
# Only wheels: the image needs no compiler.
RUN /venv/bin/pip install --no-cache-dir --disable-pip-version-check --only-binary :all: \
    -r requirements.txt -c constraints.txt
COPY app app
COPY bin bin
COPY config config
COPY crm_adapters crm_adapters
COPY workers workers
COPY LICENSE ./
# The command `bridge` finds the environment beside its folder, and PATH finds the command.
RUN ln -s /venv .venv && ln -s ../../app/bin/bridge /venv/bin/bridge
RUN /venv/bin/python -m compileall -q app config crm_adapters workers

FROM python:3.11-slim-bookworm
RUN groupadd --system --gid 10001 bridge \
    && useradd --system --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent \
    --shell /usr/sbin/nologin bridge
COPY --from=build /venv /venv
COPY --from=build /app /app
WORKDIR /app
# The container's network decides who reaches port 8000; compose.yaml publishes it on 127.0.0.1.
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    WEB_BIND=0.0.0.0:8000
# Nothing in the image belongs to this user: it runs with a read-only root and /tmp in memory.
USER 10001:10001
EXPOSE 8000
# For web; compose.yaml turns it off for worker and scheduler, which serve no port.
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz', timeout=8)"]
CMD ["gunicorn", "--config", "config/gunicorn.py", "app:create_app()"]
