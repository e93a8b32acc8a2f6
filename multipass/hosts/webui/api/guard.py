"""Who may ask: the same as of the host's own API and of its page."""

from __future__ import annotations

import base64
from collections.abc import Callable
from secrets import compare_digest

from fastapi import FastAPI, HTTPException, Request
from modules import shared


def guard(app: FastAPI) -> Callable[[Request], None]:
    """Opened by the host's ``--api-auth`` or by a gradio login, and where neither is set, by nothing."""

    def check(request: Request) -> None:
        open_to_all = not shared.cmd_opts.api_auth and getattr(app, "auth", None) is None
        if not (open_to_all or _has_api_credentials(request) or _is_logged_in(app, request)):
            raise HTTPException(401, "Not authenticated", headers={"WWW-Authenticate": "Basic"})

    return check


def _has_api_credentials(request: Request) -> bool:
    if not shared.cmd_opts.api_auth:
        return False
    kind, _, encoded = request.headers.get("Authorization", "").partition(" ")
    try:
        given = base64.b64decode(encoded, validate=True)
    except ValueError:
        return False
    known = [pair.strip().encode() for pair in shared.cmd_opts.api_auth.split(",")]
    return kind.lower() == "basic" and any([compare_digest(given, pair) for pair in known])  # noqa: C419 - no early end


def _is_logged_in(app: FastAPI, request: Request) -> bool:
    """Gradio 3 calls its cookie ``access-token``, gradio 4 adds an id to that."""
    tokens: dict[str, str] = getattr(app, "tokens", {})
    return any(value in tokens for name, value in request.cookies.items() if name.startswith("access-token"))
