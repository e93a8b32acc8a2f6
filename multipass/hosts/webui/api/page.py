"""What the page asks beside the plan: the viewer's files, and how far the passes are."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import HTTPException
from fastapi.responses import Response

from multipass import viewer
from multipass.hosts.webui import progress

_KINDS = {viewer.SCRIPT: "text/javascript", viewer.STYLE: "text/css"}


def viewer_file(name: str) -> Response:
    """The viewer's script or style."""
    if name not in _KINDS:
        raise HTTPException(404, f"the viewer has no {name}")
    # asked each time: an update of the extension must not meet an old viewer
    return Response(viewer.read(name), media_type=_KINDS[name], headers={"Cache-Control": "no-cache"})


def tell_progress() -> dict[str, Any]:
    """A bar for each pass of the pictures that are made now; none while no plan is rendered."""
    return {"passes": msgspec.to_builtins(progress.shown())}
