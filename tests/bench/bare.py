"""The endpoint to compare with: Flask, an HMAC and one durable insert, and nothing else."""

from __future__ import annotations

import hmac
import os
import sqlite3
import threading
from hashlib import sha256
from typing import Any

import psycopg
from flask import Flask, Response, abort, jsonify, request

SECRET = os.environ.get("MEETERGO_WEBHOOK_SECRETS", "").encode()
URL = os.environ.get("DATABASE_URL", "")
TABLE = "CREATE TABLE IF NOT EXISTS bare (body TEXT NOT NULL)"
app = Flask(__name__)
_mine = threading.local()


@app.get("/readyz")
def ready() -> str:
    """Answer once the table is there."""
    _connection().execute(TABLE)
    return "ready"


@app.post("/webhooks/meetergo")
def receive() -> tuple[Response, int]:
    """Verify, store, answer."""
    body = request.get_data()
    wanted = "sha256=" + hmac.new(SECRET, body, sha256).hexdigest()
    if not hmac.compare_digest(wanted, request.headers.get("X-Meetergo-Signature", "")):
        abort(401)
    sql = "INSERT INTO bare (body) VALUES (?)"
    if not URL.startswith("sqlite"):
        sql = sql.replace("?", "%s")
    _connection().execute(sql, (body.decode(),))
    return jsonify(status="accepted"), 202


def _connection() -> Any:
    """This thread's connection; each statement is a transaction, on disk when it ends."""
    if not hasattr(_mine, "connection"):
        if URL.startswith("sqlite"):
            made = sqlite3.connect(URL.partition(":///")[2], timeout=5, isolation_level=None)
            made.execute("PRAGMA journal_mode=WAL")
            made.execute("PRAGMA synchronous=FULL")
            _mine.connection = made
        else:
            url = URL.replace("postgresql+psycopg", "postgresql")
            _mine.connection = psycopg.connect(url, autocommit=True)
    return _mine.connection
