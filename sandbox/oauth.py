"""OAuth as the CRMs have it: consent, codes, tokens and their end."""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from flask import Response, redirect, render_template, request

from sandbox.answers import make

if TYPE_CHECKING:
    from sandbox.core import Sandbox

CLIENT_ID, CLIENT_SECRET = "sandbox-client", "sandbox-secret-for-tests"
CODE_LIFETIME = 300.0
"""The lifetime of an authorization code in seconds."""

FOR_EVER = 1e12
"""Seconds."""


@dataclass
class Grant:
    """One consent: the valid tokens and their end."""

    scopes: list[str]
    refresh_token: str
    access_tokens: dict[str, float] = field(default_factory=dict)
    """Token -> the time.monotonic() at which it ends."""
    dead: bool = False


def add_routes(crm: Sandbox) -> None:
    """Add the CRM's OAuth paths."""
    add = crm.app.add_url_rule
    add(crm.authorize_path, "authorize", partial(authorize, crm), methods=["GET", "POST"])
    add(crm.token_path, "token", partial(token, crm), methods=["POST"])
    if crm.revoke_path:
        add(crm.revoke_path, "revoke", partial(revoke, crm), methods=["POST"])
    if crm.introspect_path:
        add(crm.introspect_path, "introspect", partial(introspect, crm), methods=["POST"])


def is_path(crm: Sandbox, path: str) -> bool:
    """Whether this is an OAuth path, which needs no token."""
    return path in (crm.authorize_path, crm.token_path, crm.revoke_path, crm.introspect_path)


def scopes_of_call(crm: Sandbox) -> list[str] | None:
    """Return the scopes of a call's key or access token; None if it has no valid one."""
    scopes = _scopes_of_key(crm)
    if scopes is None:
        grant = _grant_of(crm, request.headers.get("Authorization", ""))
        scopes = None if grant is None else grant.scopes
    return scopes


def authorize(crm: Sandbox) -> Response | str:
    """Show the consent page, and redirect after its answer."""
    given = request.values
    scopes = given.get("scope", "").split() or list(crm.fixed_scopes)
    scopes = [s for s in (*scopes, *given.get("optional_scope", "").split())
              if s not in crm.withheld]  # fmt: skip
    if given.get("client_id") != CLIENT_ID or given.get("response_type") != "code":
        return make(400, {"error": "invalid_request"})
    if crm.pkce and given.get("code_challenge_method") != "S256":
        return make(400, {"error": "invalid_request", "error_description": "PKCE is missing"})
    if request.method == "GET":
        return render_template("consent.html", crm=crm, scopes=scopes, fields=given.to_dict())
    if request.form.get("decision") != "allow":
        query = {"error": "access_denied", "state": given.get("state", "")}
        return redirect(f"{given['redirect_uri']}?{urlencode(query)}", 302)
    code = secrets.token_urlsafe(16)
    with crm.lock:
        crm.codes[code] = {
            "challenge": given.get("code_challenge"),
            "redirect_uri": given["redirect_uri"],
            "scopes": scopes,
            "until": time.monotonic() + CODE_LIFETIME,
        }
    query = {"code": code, "state": given.get("state", "")}
    return redirect(f"{given['redirect_uri']}?{urlencode(query)}", 302)


def token(crm: Sandbox) -> Response:
    """Trade a code or a refresh token for an access token."""
    with crm.lock:
        crm.calls_to_token += 1
    if request.mimetype != "application/x-www-form-urlencoded" or request.args:
        return make(400, {"error": "invalid_request"})
    if not _client_is_known(crm):
        return make(401, {"error": "invalid_client"})
    with crm.lock:
        if request.form.get("grant_type") == "authorization_code":
            return _trade_code(crm)
        if request.form.get("grant_type") == "refresh_token":
            return _trade_refresh(crm)
    return make(400, {"error": "unsupported_grant_type"})


def _client_is_known(crm: Sandbox) -> bool:
    if crm.client_auth == "basic":
        raw = request.headers.get("Authorization", "").removeprefix("Basic ")
        return raw == base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
    form = request.form
    return (form.get("client_id"), form.get("client_secret")) == (CLIENT_ID, CLIENT_SECRET)


def _trade_code(crm: Sandbox) -> Response:
    entry = crm.codes.pop(request.form.get("code", ""), None)
    if not entry or entry["until"] < time.monotonic():
        return make(400, {"error": "invalid_grant", "error_description": "bad code"})
    if entry["redirect_uri"] != request.form.get("redirect_uri"):
        return make(400, {"error": "invalid_grant", "error_description": "redirect_uri"})
    if crm.pkce:
        digest = hashlib.sha256(request.form.get("code_verifier", "").encode()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != entry["challenge"]:
            return make(400, {"error": "invalid_grant", "error_description": "PKCE"})
    grant = Grant(entry["scopes"], secrets.token_urlsafe(32))
    crm.grants.append(grant)
    return _issue(crm, grant)


def _trade_refresh(crm: Sandbox) -> Response:
    for grant in crm.grants:
        if grant.refresh_token == request.form.get("refresh_token") and not grant.dead:
            if crm.rotates:
                grant.refresh_token = secrets.token_urlsafe(32)
            return _issue(crm, grant)
    return crm.dead_grant()


def _issue(crm: Sandbox, grant: Grant) -> Response:
    token = f"{crm.name}-{secrets.token_urlsafe(32)}"
    grant.access_tokens[token] = time.monotonic() + (crm.lifetime or FOR_EVER)
    answer = {
        "access_token": token,
        "token_type": "bearer",
        "scope": crm.scope_separator.join(grant.scopes),
    }
    if crm.lifetime:
        answer |= {"refresh_token": grant.refresh_token, "expires_in": int(crm.lifetime)}
    return make(200, crm.token_answer(answer))


def introspect(crm: Sandbox) -> Response:
    """Return the introspection of an access token."""
    if not _client_is_known(crm):
        return make(401, {"error": "invalid_client"})
    now = time.monotonic()
    with crm.lock:
        for grant in crm.grants:
            left = grant.access_tokens.get(request.form.get("token", ""), 0.0) - now
            if left > 0:
                return make(200, crm.introspection(grant, left))
    return make(200, {"active": False})


def revoke(crm: Sandbox) -> Response:
    """End a grant by its refresh token, or by its access token if it has no other (RFC 7009, 2.1)."""
    if crm.revoke_needs_client and not _client_is_known(crm):
        return make(401, {"error": "invalid_client"})
    with crm.lock:
        crm.revocations += 1
        for grant in crm.grants:
            if grant.refresh_token == request.form.get("token"):
                # Access tokens stay valid until they expire, as in the real CRMs.
                grant.dead = True
            elif not crm.lifetime and request.form.get("token") in grant.access_tokens:
                grant.access_tokens.clear()
                grant.dead = True
    return make(200, {})


def _grant_of(crm: Sandbox, header: str) -> Grant | None:
    token = header.removeprefix("Bearer ")
    for grant in crm.grants:
        if grant.access_tokens.get(token, 0.0) > time.monotonic():
            return grant
    return None


def _scopes_of_key(crm: Sandbox) -> list[str] | None:
    sent = request.headers.get(crm.key_header, "")
    if crm.key_prefix and not sent.startswith(crm.key_prefix):
        return None
    return crm.keys.get(sent.removeprefix(crm.key_prefix))
