"""A run's manifest and its pictures, as ``docs/runs.md`` has them."""

from __future__ import annotations

import functools
import re
import time
from pathlib import Path
from typing import Any

import msgspec
from fastapi import HTTPException
from fastapi.responses import Response

from multipass import folders, manifest, stages
from multipass.hosts.webui import settings

_NUMBER = re.compile("[0-9]{1,6}")
_OF_IMAGES = ("original", "triptych")  # whose file the manifest tells
_MOST_LISTED = 200


def listed(most: int = 30) -> dict[str, Any]:
    """The runs that were written to last, the newest first. Of one whose manifest cannot be read nothing is told."""
    found: list[dict[str, Any]] = []
    for folder in folders.newest(_roots(), max(1, min(most, _MOST_LISTED))):
        try:
            told, when = manifest.read(folder / folders.MANIFEST_NAME), (folder / folders.MANIFEST_NAME).stat().st_mtime
        except (OSError, msgspec.MsgspecError):  # just removed, or of another version
            continue
        passes = [told.plan.label(index) for index, _ in told.plan.running]
        found.append(
            {
                "run": folder.name,
                "status": told.status.value,
                "images": len(told.images),
                "when": time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(when)),
                "passes": passes,
            }
        )
    return {"runs": found}


def tell_stages(run: str) -> dict[str, Any]:
    """What there is to see of each of a run's pictures, in the order in which it was made; the addresses are relative
    to that of the endpoints."""
    folder = _run(run)
    try:
        told = manifest.read(folder / folders.MANIFEST_NAME)
    except OSError:
        raise _no_run(run) from None
    except msgspec.MsgspecError as error:
        raise HTTPException(422, f"the manifest of {folder.name} cannot be read: {error}") from None
    images = [
        {
            "seed": record.seed,
            "stages": stages.stages(told, number, functools.partial(_address, folder, number)),
            "triptych": record.triptych and _address(folder, number, record.triptych),
        }
        for number, record in enumerate(told.images)
    ]
    found = {"run": folder.name, "status": told.status, "error": told.error, "images": images}
    return msgspec.to_builtins(found)


def _address(folder: Path, image: int, picture: str) -> str | None:
    """Of a picture that a manifest tells of, where it is on disk."""
    kind = picture.partition("/")[0].removeprefix("pass_")
    return f"runs/{folder.name}/{kind}/{image}" if folders.inside(folder, picture) else None


def tell(run: str) -> Response:
    """A run's manifest; ``latest`` is the one that was written to last."""
    try:
        content = (_run(run) / folders.MANIFEST_NAME).read_bytes()
    except FileNotFoundError:  # a temporary one, that has just had to go
        raise _no_run(run) from None
    return Response(content, media_type="application/json")


def tell_picture(run: str, of_pass: str, image: str) -> Response:
    """A pass's picture, both counted from 0, as in the manifest; or with ``original`` or ``triptych`` in place of the
    pass, that of the image."""
    if of_pass in _OF_IMAGES and _NUMBER.fullmatch(image):
        return _picture_of(run, of_pass, int(image))
    if not (_NUMBER.fullmatch(of_pass) and _NUMBER.fullmatch(image)):
        raise HTTPException(404, f"a pass and an image are numbers, got {of_pass}/{image}")
    found = folders.picture_of(_run(run), int(of_pass), int(image))
    if found is None:
        raise HTTPException(404, f"run {run} has no picture of pass {of_pass}, image {image}")
    try:
        return Response(found.read_bytes(), media_type="image/png")
    except FileNotFoundError:
        raise _no_run(run) from None


def _picture_of(run: str, kind: str, image: int) -> Response:
    folder = _run(run)
    try:
        told = manifest.read(folder / folders.MANIFEST_NAME)
        place: str | None = getattr(told.images[image], kind)
        found = folders.inside(folder, place) if place else None
        content = found.read_bytes() if found else None
    except (OSError, msgspec.MsgspecError, IndexError):
        content = None
    if content is None:
        raise HTTPException(404, f"run {run} has no {kind} of image {image}")
    return Response(content, media_type="image/png")


def _roots() -> tuple[Path, Path]:
    return settings.saved_folder(), settings.temporary_folder()


def _run(run: str) -> Path:
    found = folders.find(_roots(), run)
    if found is None:
        raise _no_run(run)
    return found


def _no_run(run: str) -> HTTPException:
    return HTTPException(404, "there is no run yet" if run == folders.LATEST else f'there is no run "{run}"')
