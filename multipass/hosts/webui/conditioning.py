"""The texts of every pass, and what the host encodes them to: by each pass's own model, before anything is sampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from modules import extra_networks, processing, shared

from multipass.hosts.webui import compat, heads, hooks
from multipass.hosts.webui.heads import Size
from multipass.hosts.webui.networks import Networks
from multipass.plan import Plan
from multipass.prompts import Texts, pass_texts

CLIP_SKIP = "CLIP_stop_at_last_layers"  # the host reads the option whenever it encodes a text


class Encoded(NamedTuple):
    """A pass's texts as the host encodes them: extra networks, conditioning, unconditional conditioning."""

    networks: Any
    c: Any
    uc: Any

    def of_picture(self, place: int) -> Encoded:
        """One of the batch alone."""
        one = slice(place, place + 1)
        return Encoded(self.networks, type(self.c)((1,), self.c.batch[one]), self.uc and self.uc[one])


def first_texts(p: Any) -> Texts:
    """The request's texts for its first picture, before the host has set them up, as it will: with the styles, and
    without comments."""
    prompt, negative = (text[0] if isinstance(text, list) else text for text in (p.prompt, p.negative_prompt))
    styles = shared.prompt_styles
    return Texts(
        compat.uncommented(styles.apply_styles_to_prompt(prompt, p.styles)),
        compat.uncommented(styles.apply_negative_styles_to_prompt(negative, p.styles)),
    )


def texts_of(plan: Plan, prompts: Sequence[str], negatives: Sequence[str]) -> dict[int, list[Texts]]:
    """Each pass's texts by its index in ``plan.passes``, one per picture, where these are the request's."""
    of_pictures = [
        pass_texts(plan, Texts(prompt, negative)) for prompt, negative in zip(prompts, negatives, strict=True)
    ]
    return {index: [texts[index] for texts in of_pictures] for index, _ in plan.running}


class Conditioning:
    """The texts of one request, batch by batch.

    Args:
        networks: is told which a pass's texts name.
        setup_conds: the request's own, as its class has it.

    Attributes:
        clip_skip: the request's.
    """

    def __init__(self, p: Any, plan: Plan, networks: Networks, setup_conds: Callable[[], None]) -> None:
        self._p, self._plan, self._networks, self._setup_conds = p, plan, networks, setup_conds
        self._trajectories = plan.trajectories
        self._number_of = {index: n for n, own in enumerate(self._trajectories) for index, _ in own.passes}
        self._settings_of = dict(plan.running)
        self.clip_skip = int(p.override_settings.get(CLIP_SKIP, getattr(shared.opts, CLIP_SKIP)))
        self._texts: dict[int, list[Texts]] = {}
        self._encoded: dict[int, Encoded] = {}
        self._caches: dict[int, tuple[list[Any], list[Any]]] = {}

    def begin_batch(self, prompts: Sequence[str], negatives: Sequence[str]) -> None:
        """These are the request's texts from now on, one per picture."""
        self._texts, self._encoded = texts_of(self._plan, prompts, negatives), {}

    def forget(self) -> None:
        """Let go of all of it."""
        self._texts, self._encoded, self._caches = {}, {}, {}

    def clip_skip_of(self, index: int) -> int:
        """A pass's."""
        return self._settings_of[index].clip_skip or self.clip_skip

    def texts(self, index: int) -> tuple[list[str], list[str]]:
        """A pass's prompts and negative prompts, one per picture."""
        texts = self._texts[index]
        return [text.prompt for text in texts], [text.negative_prompt for text in texts]

    def of(self, index: int, sizes: Sequence[Size]) -> Encoded:
        """A pass's texts as they were encoded for this batch, or are now."""
        return self._encoded.get(index) or self.encode(index, sizes)

    def encode(self, index: int, sizes: Sequence[Size]) -> Encoded:
        """By the model that is in place, which is the pass's; its networks are active afterwards.

        Args:
            sizes: of each trajectory's picture.
        """
        self._encoded[index] = found = self._encode(index, self._number_of[index], sizes)
        return found

    def alone(self, index: int, sizes: Sequence[Size]) -> Encoded:
        """The same for the first trajectory, whichever the pass is of."""
        return self._encode(index, 0, sizes) if self._number_of[index] else self.of(index, sizes)

    def _encode(self, index: int, number: int, sizes: Sequence[Size]) -> Encoded:
        p = self._p
        tagged, negatives = self.texts(index)
        prompts, networks = extra_networks.parse_prompts(tagged)
        self._networks.activate(networks)
        empty = [None] * len(p.cached_c)
        c, uc = self._caches.setdefault(index, (empty, empty.copy()))  # the host's has room for one pass
        with (
            hooks.replaced(p, prompts=prompts, negative_prompts=negatives, extra_network_data=networks),
            hooks.replaced(p, cached_c=c, cached_uc=uc),
            hooks.options({CLIP_SKIP: self.clip_skip_of(index)}),
        ):
            if number == 0:
                self._setup_conds()
            else:
                self._setup_conds_for(number, sizes[number])
        compat.note_encoding(p)
        return Encoded(networks, p.c, p.uc)

    def _setup_conds_for(self, number: int, size: Size) -> None:
        """For a trajectory after the first: by its own size, prompt editing over its own steps. Not by the request's
        own method, which would encode the texts of the host's hires fix too."""
        p = self._p
        own = {**heads.fields(p, self._trajectories[number].head), **size._asdict()}
        before = {name: vars(p).get(name, hooks.ABSENT) for name in ("step_multiplier", "firstpass_steps")}
        with hooks.replaced(p, **own):
            processing.StableDiffusionProcessing.setup_conds(p)
        hooks.put_back(vars(p), before)
