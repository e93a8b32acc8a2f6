"""Which checkpoint is in place while a request is rendered: in the live module where that will do, else by the host."""

from __future__ import annotations

import contextlib
import time
from contextlib import ExitStack
from typing import Any

from modules import errors, processing, sd_models, sd_vae, shared
from modules.call_queue import wrap_queued_call

from multipass.cache.store import CheckpointCache
from multipass.hosts.webui import compat, hooks, networks, settings
from multipass.hosts.webui.inplace import InPlace
from multipass.hosts.webui.vaes import Vae
from multipass.manifest import Load, Source

cache = CheckpointCache(settings.ram_budget, settings.vram_budget)
_live = InPlace(cache)
_taken: dict[str, Load] = {}  # by file, what it took to have it in place with its UNet, until somebody asks
_SLOWEST_LAST = (Source.RESIDENT, Source.RAM, Source.DISK)


def _put(info: Any, vae: Vae | None = None, *, unet: bool = True) -> bool:
    """``InPlace.put``, and what it took."""
    started = time.perf_counter()
    done = _live.put(info, vae, unet=unet)
    if done and unet:
        _note(info.filename, _live.source, started)
    return done


def _noting(load: Any) -> Any:
    """The host's function that loads, and what it took."""

    def loading(*args: Any, **kwargs: Any) -> Any:
        before, kept, started = compat.loaded(), compat.kept(), time.perf_counter()
        found = load(*args, **kwargs)
        now = compat.loaded()
        if now is not None and (before is None or now.filename != before.filename):
            _note(now.filename, Source.RAM if now.filename in kept else Source.DISK, started)
        return found

    return loading


def _note(file: str, source: Source, started: float) -> None:
    if source is not Source.RESIDENT:
        before = _taken.get(file, Load(source, 0.0))
        slower = max(before.source, source, key=_SLOWEST_LAST.index)
        _taken[file] = Load(slower, before.seconds + time.perf_counter() - started)


class _Serving:
    """The host's own changes of checkpoint, while somebody needs them to go through here: the host would load into
    whatever tensors are in place, and they may be another checkpoint's. In Forge they are only timed."""

    def __init__(self) -> None:
        self._holders = 0
        self._replaced = ExitStack()
        self._reload = self._reload_vae = None

    def begin(self) -> None:
        if not self._holders:
            with ExitStack() as replaced:
                if compat.LOADS_BY_PARAMETERS:  # nothing to serve
                    for home in (sd_models, processing):
                        replaced.enter_context(
                            hooks.replaced(home, forge_model_reload=_noting(home.forge_model_reload))
                        )
                else:
                    self._reload = _noting(sd_models.reload_model_weights)
                    self._reload_vae = sd_vae.reload_vae_weights
                    replaced.enter_context(hooks.replaced(sd_models, reload_model_weights=self._served))
                    replaced.enter_context(hooks.replaced(sd_vae, reload_vae_weights=self._served_vae))
                    replaced.enter_context(networks.guarded())
                self._replaced = replaced.pop_all()
        self._holders += 1

    def end(self) -> None:
        self._holders -= 1
        if not self._holders:
            self._replaced.close()

    def by_the_host(self, info: Any) -> bool:
        """Load with its own function; returns whether anything was loaded."""
        _live.home()
        with ExitStack() as stack:
            if self._reload is not None and self._holders:
                stack.enter_context(hooks.replaced(sd_models, reload_model_weights=self._reload))
            return compat.load(info)

    def _served(self, sd_model: Any = None, info: Any = None, forced_reload: bool = False) -> Any:
        """``sd_models.reload_model_weights``"""
        assert self._reload is not None
        wanted = info or sd_models.select_checkpoint()
        if not forced_reload and not compat.precision_changed():
            if _live.holds(wanted):
                return shared.sd_model  # a VAE of the pass's own stays
            if _put(wanted):
                if not sd_models.SkipWritingToConfig.skip:
                    shared.opts.data["sd_model_checkpoint"] = wanted.title
                return shared.sd_model
        _live.home()
        return self._reload(sd_model, info, forced_reload)

    def _served_vae(self, *args: Any, **kwargs: Any) -> Any:
        """``sd_vae.reload_vae_weights``"""
        assert self._reload_vae is not None
        with _live.written_to():
            return self._reload_vae(*args, **kwargs)


_serving = _Serving()


def register(*_: Any) -> None:
    """From ``on_app_started``: follow the setting."""
    settings.on_managing(wrap_queued_call(manage))
    manage()


def manage() -> None:
    """Begin or end to keep checkpoints in the cache without a plan too, as the setting is."""
    wanted = settings.manages() and not compat.IS_FORGE_FAMILY
    if wanted == _live.managed:
        return
    _live.managed = wanted
    if wanted:
        _serving.begin()
    else:
        _serving.end()
        _live.home()


class Models:
    """The models of one request, from before the host has loaded its first until the host is as it was."""

    def __init__(self, p: Any) -> None:
        self._p = p
        self._before, self._chosen_before = compat.loaded(), compat.chosen()
        self._serving = False
        self._noted = {name: shared.opts.data.get(name, hooks.ABSENT) for name in ("sd_checkpoint_hash",)}

    def serve(self) -> None:
        """From now on the host loads through the cache."""
        _taken.clear()
        _serving.begin()
        self._serving = True

    def took(self, info: Any) -> Load:
        """What it took to have a checkpoint in place, since this was last asked of it: where its UNet was, and the
        seconds until it was in place."""
        return _taken.pop(info.filename, Load(Source.RESIDENT, 0.0))

    def put(self, info: Any, vae: Vae | None = None) -> bool:
        """Put a checkpoint in place.

        Returns:
            whether the module is the one that was there before: with another, whatever acted on it does no longer.

        Raises:
            what the host raises while it reads; then what was in place before is in place again.
        """
        if self.put_in_place(info, vae):
            return True
        if _live.had_no_room:
            budget = f"{cache.ram.budget / settings.GB:.1f} GB of RAM for checkpoints (Settings > Multipass)"
            self._p.comment(f"Multipass: {budget} do not hold {info.name_for_extra} too, so it is read at every switch")
        loaded = _serving.by_the_host(info)
        if loaded:
            compat.prepare_loaded(self._p)
        if vae is not None and not self.put_in_place(info, vae):
            reason = "there is no room in memory" if _live.had_no_room else "in the middle of a picture"
            raise RuntimeError(f"the webui cannot give {info.title} another VAE: {reason}")
        return not loaded

    def put_in_place(self, info: Any, vae: Vae | None = None, *, unet: bool = True) -> bool:
        """The same if that takes no other module than the live one, and no more memory than there is; else ``False``,
        and nothing has changed. ``unet``: as ``InPlace.put`` has it."""
        before = _live.current
        done = _put(info, vae, unet=unet)
        if done and _live.current != before:
            compat.prepare_loaded(self._p)
        return done

    def merge(self) -> None:
        """Have the active networks merged into what is in place, where that can be done without the host."""
        _live.merge()

    def unmerge(self) -> None:
        """Take them out again."""
        _live.unmerge()

    def read_ahead(self, info: Any, vae: Vae | None = None) -> None:
        """Begin to read what ``put`` will need next."""
        if settings.reads_ahead():
            _live.read_ahead(info, vae)

    def end(self) -> None:
        """The host's own tensors, functions and checkpoint are back.

        A failure here must not hide what came before it: it is reported, and the host loads by its options again when
        the next picture begins. So does a Forge that had no model before.
        """
        cache.stop_reading_ahead()
        try:
            _live.unmerge()
            if self._serving:
                self._serving = False
                _serving.end()
            if not (_live.managed and self._before is not None and _live.put(self._before)):
                _live.home()
            compat.choose(self._chosen_before)
            if self._before is not None:
                compat.load(self._before)
                hooks.put_back(shared.opts.data, self._noted)  # reForge forgets it where the model is still there
            if not compat.IS_FORGE_FAMILY:
                sd_vae.reload_vae_weights()  # by the options; nothing where that is the one in place
        except Exception:  # noqa: BLE001 - see above
            errors.report("Multipass could not put the model back and has it loaded anew", exc_info=True)
            with contextlib.suppress(Exception):
                if self._serving:
                    _serving.end()
                _live.abandon()
                compat.load_anew(self._before)
