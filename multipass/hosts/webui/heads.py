"""How a trajectory is sampled: what its head asks for as fields of the request, and what of that this host refuses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from modules import processing, sd_samplers, shared

from multipass.hosts.webui import checkpoints, compat, hooks
from multipass.kinds import Family
from multipass.plan import Pass, PassKind, Plan
from multipass.problems import Problem, hint
from multipass.subjects import Region, working_size

# what is the request's for the first pass in txt2img
OF_A_HEAD = ("steps", "sampler_name", "scheduler", "denoising_strength")
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

    def scaled(self, scale: float) -> Size:
        """Cut to whole pixels."""
        return Size(int(self.width * scale), int(self.height * scale))


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
    """Whether a refine or subject pass samples: with a strength of 0 it only enlarges."""
    strength = p.denoising_strength if head.denoising_strength is None else head.denoising_strength
    return strength > 0


def knows_sizes(p: Any) -> bool:
    """Whether the first trajectory's picture is of the request's size, before the host has prepared anything."""
    if isinstance(p, processing.StableDiffusionProcessingImg2Img):
        return bool(p.init_images) and p.image_mask is None  # a request that is only looked at has no picture
    return not getattr(p, "enable_hr", False)


def first_size(p: Any) -> Size:
    """Of the first trajectory's picture, as the hires fix leaves it, which the host must have prepared."""
    if not getattr(p, "enable_hr", False):
        return Size(p.width, p.height)
    whole, truncated = (p.hr_upscale_to_x, p.hr_upscale_to_y), (p.truncate_x, p.truncate_y)  # these in the latent
    return Size(*(8 * (side // 8 - less) for side, less in zip(whole, truncated, strict=True)))


def pasted_size(p: Any) -> Size | None:
    """Of the picture that the host pastes the first trajectory's into, where the request inpaints only what is masked.
    The host must have prepared it."""
    return Size(*p.overlay_images[0].size) if pastes(p) else None


def pastes(p: Any) -> bool:
    """Whether the host pastes the picture into the one that it inpaints a part of. In a batch of files the place may be
    left from the file before."""
    return getattr(p, "paste_to", None) is not None and bool(p.overlay_images)


def sizes(plan: Plan, first: Size, pasted: Size | None = None) -> tuple[Size, ...]:
    """Of each trajectory's picture, by that of the first. A refined one is then cut to whole places of the latent, and
    so is one that is enlarged before a subject of it is repainted.

    Args:
        pasted: of the picture that a subject pass gets in place of the one before it, if that is another.
    """
    found = [first]
    size = first
    for trajectory in plan.trajectories[1:]:
        head = trajectory.head
        if head.kind is PassKind.SUBJECT:
            size, pasted = pasted or size, None
            size = size.scaled(head.scale).cut if head.scale is not None else size
            found.append(size)
        else:
            found.append(size.scaled(head.scale or 1))
            size = found[-1].cut
    return tuple(found)


def sampled_sizes(plan: Plan, whole: Sequence[Size], families: Mapping[int, Family | None]) -> tuple[Size, ...]:
    """What each trajectory's model sees, for pictures of these sizes: of a repaint its working size.

    Args:
        families: by pass index, as far as they are known.
    """
    scene = families.get(plan.running[0][0])
    found: list[Size] = []
    for trajectory, size in zip(plan.trajectories, whole, strict=True):
        head = trajectory.head
        if head.kind is PassKind.SUBJECT:
            seen = working_size(Region.of(head), size, scene, families.get(trajectory.index))
            found.append(Size(*seen))
        else:
            found.append(size)
    return tuple(found)


@contextmanager
def sampled_as(p: Any, head: Pass, size: Size) -> Iterator[None]:
    """While this lasts, the request is as a later trajectory is sampled: as the host's hires fix would sample that of a
    refine pass, and its img2img that of a subject pass. The picture's text tells the request's schedule type."""
    params = p.extra_generation_params
    told = {_SCHEDULE_TOLD: params.get(_SCHEDULE_TOLD, hooks.ABSENT)}
    is_subject = head.kind is PassKind.SUBJECT
    ratio = (
        processing.StableDiffusionProcessingImg2Img.get_token_merging_ratio(p)
        if is_subject
        else p.get_token_merging_ratio(for_hr=True)
    )
    if ratio != p.get_token_merging_ratio() and not is_subject:
        params["Token merging ratio hr"] = ratio  # which the host tells of its hires fix alone
    with ExitStack() as afterwards:  # in the reverse order
        afterwards.callback(compat.merge_tokens, p)
        afterwards.callback(hooks.put_back, params, told)
        asked = {**size._asdict(), "token_merging_ratio": ratio, **fields(p, head)}
        afterwards.enter_context(hooks.replaced(p, **asked))
        tell_seed_delta(p)
        yield


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
            for name in OF_A_HEAD:
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
        head = trajectory.head
        for name in ("width", "height"):
            side = getattr(head, name)
            if side is not None and (side % 8 or side not in _SIDES):
                reason = f"expected a multiple of 8 from {_SIDES[0]} to {_SIDES[-1] // 8 * 8}, got {side}"
                yield Problem(f"passes[{trajectory.index}].{name}", reason)


def between_latent_spaces(plan: Plan, infos: Mapping[int, Any]) -> Iterator[Problem]:
    """Upscalers that enlarge a latent which the refine pass's checkpoint cannot read. ``infos``: checkpoints by pass
    index, as far as they are known."""
    for before, trajectory in zip(plan.trajectories, plan.trajectories[1:], strict=False):
        ahead, index = before.passes[-1][0], trajectory.index
        if before.head.kind is PassKind.SUBJECT:  # which leaves pixels
            continue
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
    if own.upscaler is not None and own.kind is PassKind.SUBJECT and own.upscaler in shared.latent_upscale_modes:
        yield Problem(f"{place}.upscaler", "a subject pass enlarges the picture, and this enlarges latents")
    elif own.upscaler is not None:
        known = [*shared.latent_upscale_modes, *(upscaler.name for upscaler in shared.sd_upscalers)]
        if own.upscaler not in known:
            reason = f'the webui has no upscaler "{own.upscaler}"{hint(own.upscaler, known)}'
            yield Problem(f"{place}.upscaler", reason)
