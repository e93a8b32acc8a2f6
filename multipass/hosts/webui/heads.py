"""How a trajectory is sampled: what its head asks for as fields of the request, and what of that this host refuses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from modules import processing, sd_samplers, shared

from multipass.hosts.webui import checkpoints, compat, hooks
from multipass.plan import Pass, Plan
from multipass.problems import Problem, hint

_OF_A_HEAD = ("steps", "sampler_name", "scheduler", "denoising_strength")
_SIDES = range(64, 16385)  # in pixels
_SCHEDULE_TOLD = "Schedule type"  # the infotext key that a sampler writes


class Size(NamedTuple):
    """In pixels."""

    width: int
    height: int

    @property
    def cut(self) -> Size:
        """To whole places of the latent."""
        return Size(*(side // 8 * 8 for side in self))


def fields(p: Any, head: Pass) -> dict[str, Any]:
    """Which fields of the request are others while the head's trajectory is sampled. What the head leaves out, and does
    not inherit in the plan, is the request's, and not there."""
    asked = {"steps": head.steps, "denoising_strength": head.denoising_strength}
    found: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    if head.sampler_name is not None or head.scheduler is not None:
        scheduler = head.scheduler or getattr(p, "scheduler", None) or "Automatic"
        # None where it is the request's own name, which the host has still to correct
        found |= compat.sampler(head.sampler_name or p.sampler_name, scheduler) or {}
    return found


def redraws(p: Any, head: Pass) -> bool:
    """Whether a refine pass samples: with a strength of 0 it only enlarges."""
    strength = p.denoising_strength if head.denoising_strength is None else head.denoising_strength
    return strength > 0


def first_size(p: Any) -> Size:
    """Of the first trajectory's picture, as the hires fix leaves it, which the host must have prepared."""
    if not getattr(p, "enable_hr", False):
        return Size(p.width, p.height)
    whole, truncated = (p.hr_upscale_to_x, p.hr_upscale_to_y), (p.truncate_x, p.truncate_y)  # these in the latent
    return Size(*(8 * (side // 8 - less) for side, less in zip(whole, truncated, strict=True)))


def sizes(plan: Plan, first: Size) -> tuple[Size, ...]:
    """Of each trajectory's picture, by that of the first. A refined one is then cut to whole places of the latent."""
    found = [first]
    size = first
    for trajectory in plan.trajectories[1:]:
        scale = trajectory.head.scale or 1
        found.append(Size(int(size.width * scale), int(size.height * scale)))
        size = found[-1].cut
    return tuple(found)


@contextmanager
def sampled_as(p: Any, head: Pass, size: Size) -> Iterator[None]:
    """While this lasts, the request is as a refine pass and the switch passes after it are sampled: as the host's hires
    fix would sample them. The picture's text tells the request's schedule type."""
    params = p.extra_generation_params
    told = {_SCHEDULE_TOLD: params.get(_SCHEDULE_TOLD, hooks.ABSENT)}
    ratio = p.get_token_merging_ratio(for_hr=True)
    if ratio != p.get_token_merging_ratio():
        params["Token merging ratio hr"] = ratio  # which the host tells of its hires fix alone
    with hooks.replaced(p, **size._asdict(), token_merging_ratio=ratio, **fields(p, head)):
        tell_seed_delta(p)
        yield
    hooks.put_back(params, told)
    compat.merge_tokens(p)


def tell_seed_delta(p: Any) -> None:
    """What the picture's text tells of a sampler that the setting acts on, where the request's is another."""
    config = sd_samplers.find_sampler_config(p.sampler_name)
    if shared.opts.eta_noise_seed_delta and config is not None and config.options.get("uses_ensd", False):
        p.extra_generation_params["ENSD"] = shared.opts.eta_noise_seed_delta


# --- what is refused --------------------------------------------------------------------------------------------------


def problems(p: Any, plan: Plan) -> Iterator[Problem]:
    """What is wrong with the heads' own fields in this host and for this request, as far as they alone tell."""
    is_img2img = isinstance(p, processing.StableDiffusionProcessingImg2Img)
    for number, trajectory in enumerate(plan.trajectories):
        place, own = f"passes[{trajectory.index}]", plan.passes[trajectory.index]
        if number == 0 and not is_img2img:
            for name in _OF_A_HEAD:
                if getattr(own, name) is not None:
                    yield Problem(f"{place}.{name}", "in txt2img it is the request's for the first pass")
            continue
        yield from _names(p, place, own)
        # the request's is hidden in txt2img, where the hires fix is off
        says_strength = is_img2img or getattr(p, "enable_hr", False) or trajectory.head.denoising_strength is not None
        if not says_strength:
            reason = "required: neither a pass before it nor the request says how much is redrawn"
            yield Problem(f"{place}.denoising_strength", reason)
    # the host reckons its hires fix's size later
    for trajectory, size in zip(plan.trajectories[1:], sizes(plan, Size(p.width, p.height))[1:], strict=True):
        if size.width not in _SIDES or size.height not in _SIDES:
            told = f"expected sides from {_SIDES[0]} to {_SIDES[-1]} pixels, got {size.width}x{size.height}"
            yield Problem(f"passes[{trajectory.index}].scale", told)


def between_latent_spaces(plan: Plan, infos: Mapping[int, Any]) -> Iterator[Problem]:
    """Upscalers that enlarge a latent which the refine pass's checkpoint cannot read. ``infos``: checkpoints by pass
    index, as far as they are known."""
    for before, trajectory in zip(plan.trajectories, plan.trajectories[1:], strict=False):
        ahead, index = before.passes[-1][0], trajectory.index
        if ahead not in infos or index not in infos or trajectory.head.upscaler not in shared.latent_upscale_modes:
            continue
        one, other = checkpoints.latents(infos[ahead]), checkpoints.latents(infos[index])
        if one and other and one is not other:
            reader = f"{infos[index].name_for_extra} ({other.value})"
            reason = f"it enlarges a latent of {one.value}, which {reader} cannot read"
            yield Problem(f"passes[{index}].upscaler", f"{reason}; name one that enlarges the picture, or none")


def _names(p: Any, place: str, own: Pass) -> Iterator[Problem]:
    if own.sampler_name is not None and compat.sampler(own.sampler_name, "Automatic") is None:
        known = [known.name for known in sd_samplers.all_samplers]
        reason = f'the webui has no sampler "{own.sampler_name}"{hint(own.sampler_name, known)}'
        yield Problem(f"{place}.sampler_name", reason)
    elif own.scheduler is not None:
        known = compat.schedulers(own.sampler_name or p.sampler_name)
        if own.scheduler not in known:
            reason = f'the webui has no schedule type "{own.scheduler}"{hint(own.scheduler, known)}'
            yield Problem(f"{place}.scheduler", reason)
    if own.upscaler is not None:
        known = [*shared.latent_upscale_modes, *(upscaler.name for upscaler in shared.sd_upscalers)]
        if own.upscaler not in known:
            reason = f'the webui has no upscaler "{own.upscaler}"{hint(own.upscaler, known)}'
            yield Problem(f"{place}.upscaler", reason)
