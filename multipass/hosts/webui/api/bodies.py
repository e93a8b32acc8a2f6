"""What is asked in a body, and what is told where that is refused: one form of errors for all."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from multipass.presets import ShippedPresetError, UnknownPresetError
from multipass.problems import PlanError, Problem, explain

_STATUS: dict[type[PlanError], int] = {UnknownPresetError: 404, ShippedPresetError: 409}
_Body = TypeVar("_Body")


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an endpoint is asked, as JSON."""


def read(body: bytes, kind: type[_Body]) -> _Body:
    """The body as declared. Raises PlanError, with the place."""
    try:
        raw = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise PlanError(Problem("", f"not JSON: {error}")) from None
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise PlanError(explain(str(error), msgspec.inspect.type_info(kind), raw)) from None


def problems(error: PlanError) -> list[dict[str, str]]:
    """As all endpoints tell them."""
    return [{"path": problem.path, "message": problem.message} for problem in error.problems]


def told(act: Callable[..., Any]) -> Callable[..., Any]:
    """A route, which the host runs on a thread: what is refused is told, with 422 if it has no status of its own, and
    with 500 what the file system refuses."""

    @functools.wraps(act)
    def route(*args: Any, **kwargs: Any) -> Any:
        try:
            return act(*args, **kwargs)
        except PlanError as error:
            return JSONResponse({"errors": problems(error)}, _STATUS.get(type(error), 422))
        except OSError as error:
            return JSONResponse({"errors": problems(PlanError(Problem("", str(error))))}, 500)

    # fastapi would look for the annotations' names here, not where they were written
    vars(route)["__signature__"] = inspect.signature(act, eval_str=True)
    return route


def asked_with_body(act: Callable[..., Any]) -> Callable[..., Any]:
    """The same of an ``act(body)`` with a body of any kind, and with the path's parameters by name."""

    answer = told(act)

    async def route(request: Request) -> Any:
        # some wait for a picture in the making, which must not keep the server from answering others
        return await run_in_threadpool(answer, await request.body(), **request.path_params)

    return route
