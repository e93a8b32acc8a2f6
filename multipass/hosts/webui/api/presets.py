"""Presets, kept in the webui's data folder."""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse, Response

from multipass import presets
from multipass.hosts.webui import settings
from multipass.plan import decode, encode


def listed() -> dict[str, Any]:
    """Those that come along, then those that people have saved."""
    shipped = [{"name": name, "shipped": True, "description": told} for name, told in presets.SHIPPED.items()]
    own = [{"name": name, "shipped": False, "description": ""} for name in presets.names(settings.presets_folder())]
    return {"presets": [*shipped, *own]}


def tell(name: str) -> Response:
    """The plan."""
    return Response(encode(presets.read(settings.presets_folder(), name)), media_type="application/json")


def put(body: bytes, name: str) -> Response:
    """Save the plan in the body: 201 where there was none of that name, else 200."""
    return JSONResponse({"name": name}, 201 if presets.write(settings.presets_folder(), name, decode(body)) else 200)


def delete(name: str) -> dict[str, str]:
    """Let go of one that somebody has saved."""
    presets.delete(settings.presets_folder(), name)
    return {"name": name}
