"""A checkpoint by the name a person wrote, as the webui lists it; never a guess, never a fallback. And its kind."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from modules import sd_models

from multipass import kinds, titles
from multipass.cache import header
from multipass.hosts.webui import vaes
from multipass.hosts.webui.vaes import Vae
from multipass.kinds import Family, Kind
from multipass.plan import Plan
from multipass.problems import PlanError, Problem, hint


class Named(NamedTuple):
    """What a pass names of the host's: a ``CheckpointInfo`` and a VAE; ``None`` where it leaves that to the host."""

    checkpoint: Any
    vae: Vae | None


def resolve_all(plan: Plan) -> dict[int, Named]:
    """What every running pass names, by index.

    Raises:
        PlanError: for every name that is not exactly one the webui lists, with its place.
    """
    found: dict[int, Named] = {}
    problems: list[Problem] = []
    for index, own in plan.running:
        checkpoint = vae = None
        try:
            if own.checkpoint is not None:
                checkpoint = resolve(own.checkpoint)
        except LookupError as error:
            if plan.passes[index].checkpoint is not None:  # an inherited name is told once, where it was written
                problems.append(Problem(f"passes[{index}].checkpoint", str(error.args[0])))
        try:
            if own.vae is not None:
                vae = vaes.resolve(own.vae)
        except LookupError as error:
            problems.append(Problem(f"passes[{index}].vae", str(error.args[0])))
        found[index] = Named(checkpoint, vae)
    if problems:
        raise PlanError(*problems)
    return found


def resolve(name: str) -> Any:
    """The ``CheckpointInfo`` for a title, short title, file name or hash; of ``name [hash]`` the hash decides.

    Raises:
        LookupError: with the reason, fit for people.
    """
    exact = sd_models.checkpoint_aliases.get(name)
    if exact is not None:
        return exact
    hashed = titles.split(name)
    if hashed is None:
        raise LookupError(f'the webui lists no checkpoint "{name}"{_hint(name)}')
    bare, wanted = hashed
    by_hash = sd_models.checkpoint_aliases.get(wanted)
    if by_hash is not None:
        return by_hash
    by_name = sd_models.checkpoint_aliases.get(bare)
    if by_name is None:
        raise LookupError(f'the webui lists no checkpoint "{name}", by name or by hash{_hint(bare)}')
    # listed, but the host has not hashed the file yet
    if by_name.calculate_shorthash() is None or not by_name.sha256.startswith(wanted):
        raise LookupError(f'"{bare}" is there, but as [{by_name.shorthash}] and not as [{wanted}]')
    return by_name


def same(one: object, other: object) -> bool:
    """Whether two names that the webui lists are one checkpoint's."""
    infos = [sd_models.checkpoint_aliases.get(name) for name in (one, other)]
    return one == other or (infos[0] is not None and infos[0] is infos[1])


def check_together(plan: Plan, infos: Mapping[int, Any]) -> None:
    """That these checkpoints, by pass index, can be read and share their trajectories, as far as their headers tell.

    Raises:
        PlanError: for every one that does not, where it is named.
    """
    found: dict[int, tuple[str, Kind]] = {}
    unreadable: dict[str, Problem] = {}
    for index, info in sorted(infos.items()):
        try:
            found[index] = info.name_for_extra, _kind(info.filename)
        except header.HeaderError as error:
            reason = f"{info.name_for_extra} is not a readable safetensors file: {error}"
            unreadable.setdefault(info.filename, Problem(f"passes[{index}].checkpoint", reason))
    problems = [*unreadable.values(), *kinds.clashes(plan, found)]
    if problems:
        raise PlanError(*problems)


def family(info: Any) -> Family | None:
    """A checkpoint's; ``None`` where its file does not tell. Raises HeaderError."""
    return _kind(info.filename).family


def latents(info: Any) -> Family | None:
    """The family whose latent space a checkpoint has; ``None`` where its file does not tell. Raises HeaderError."""
    found = family(info)
    return found.latents if found is not None else None


def _kind(filename: str) -> Kind:
    """Nothing is known of other formats (.ckpt, .gguf) without loading them: the host decides. Raises HeaderError."""
    path = Path(filename)
    if path.suffix.lower() != ".safetensors":
        return Kind()
    try:
        stat = path.stat()
    except OSError as error:
        raise header.HeaderError(error.strerror or str(error)) from None
    return _kind_of_version(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=1024)
def _kind_of_version(path: Path, _modified: int, _size: int) -> Kind:
    return kinds.recognise({name: tensor.shape for name, tensor in header.read(path).items()})


def title(info: Any) -> str:
    """``name [hash]``; hashes the file if nobody has yet (the host keeps the result)."""
    info.calculate_shorthash()
    return info.short_title


def _hint(name: str) -> str:
    return hint(name, [info.name_for_extra for info in sd_models.checkpoints_list.values()])
