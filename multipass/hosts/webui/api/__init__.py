"""The endpoints under ``/multipass/v1/``, there with and without ``--api``; shapes as in ``docs/api.md``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import Depends, FastAPI

from multipass.hosts.webui.api import cache, choices, imports, page, presets, runs, texts
from multipass.hosts.webui.api.bodies import asked_with_body, told
from multipass.hosts.webui.api.guard import guard
from multipass.hosts.webui.api.validate import validate
from multipass.plan import json_schema

PREFIX = "/multipass/v1"


def register(_: Any, app: FastAPI) -> None:
    """From ``on_app_started``: add the routes."""
    guarded = [Depends(guard(app))]

    def add(method: str, path: str, route: Callable[..., Any]) -> None:
        app.add_api_route(f"{PREFIX}/{path}", route, methods=[method], dependencies=guarded)

    add("GET", "schema", json_schema)
    add("POST", "validate", asked_with_body(validate))
    add("POST", "texts", asked_with_body(texts.of_passes))
    add("POST", "tokens", asked_with_body(texts.tokens))
    add("GET", "choices", told(choices.choices))
    add("GET", "presets", told(presets.listed))
    add("GET", "presets/{name:path}", told(presets.tell))  # with a path in it, it is told that it is none
    add("PUT", "presets/{name:path}", asked_with_body(presets.put))
    add("DELETE", "presets/{name:path}", told(presets.delete))
    add("POST", "import/prompt", asked_with_body(imports.prompt))
    add("POST", "import/file", asked_with_body(imports.file))
    add("GET", "cache", cache.tell)
    add("POST", "cache/clear", cache.clear)
    # plain strings: what is not a number is not there
    add("GET", "runs", runs.listed)
    add("GET", "runs/{run}", runs.tell)
    add("GET", "runs/{run}/stages", runs.tell_stages)
    add("GET", "runs/{run}/{of_pass}/{image}", runs.tell_picture)
    add("GET", "progress", page.tell_progress)
    add("GET", "viewer/{name}", page.viewer_file)
