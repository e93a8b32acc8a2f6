"""Which checkpoint is in place while a request is rendered: in the live module where that will do, else by the host."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Hashable
from contextlib import ExitStack
from typing import Any

import torch
from modules import devices, errors, processing, sd_models, sd_vae, shared
from modules.call_queue import wrap_queued_call

from multipass.cache import memory
from multipass.cache.store import CheckpointCache
from multipass.hosts.webui import architecture, compat, hooks, keys, networks, settings, whole
from multipass.hosts.webui.inplace import InPlace
from multipass.hosts.webui.shelf import Shelf
from multipass.hosts.webui.vaes import Vae
from multipass.manifest import Load, Source

cache = CheckpointCache(settings.ram_budget, settings.vram_budget)
_in_place = InPlace(cache)
_shelf = Shelf(cache)
_taken: dict[str, Load] = {}  # by file, what it took to have it in place with its UNet, until somebody asks
_SLOWEST_LAST = (Source.RESIDENT, Source.RAM, Source.DISK)


def _put(info: Any, vae: Vae | None = None, *, unet: bool = True) -> bool:
    """``InPlace.put``, and what it took."""
    started = time.perf_counter()
    done = _in_place.put(info, vae, unet=unet)
    if done and unet:
        _note(info.filename, _in_place.source, started)
    return done


def _noting(load: Callable[..., Any]) -> Callable[..., Any]:
    """What loads a whole model, and what it took."""

    @functools.wraps(load)
    def loading(*args: Any, **kwargs: Any) -> Any:
        before, kept, hits, started = compat.loaded(), compat.kept(), cache.hits, time.perf_counter()
        # a module that is built draws from the generator that the encoding of a picture draws from: no picture is to
        # differ by what was loaded for it
        with torch.random.fork_rng([devices.device] if devices.device.type == "cuda" else []):
            found = load(*args, **kwargs)
        now = compat.loaded()
        if now is not None and (before is None or now.filename != before.filename):
            was_kept = cache.hits > hits or now.filename in kept
            _note(now.filename, Source.RAM if was_kept else Source.DISK, started)
        return found

    return loading


def _note(file: str, source: Source, started: float) -> None:
    if source is not Source.RESIDENT:
        before = _taken.get(file, Load(source, 0.0))
        slower = max(before.source, source, key=_SLOWEST_LAST.index)
        _taken[file] = Load(slower, before.seconds + time.perf_counter() - started)


class _Serving:
    """The host's own changes of checkpoint, while somebody needs them to go through here: the host would load into
    whatever tensors are in place, and they may be another checkpoint's."""

    def __init__(self) -> None:
        self._holders = 0
        self._replaced = ExitStack()
        self._reload = self._reload_vae = None

    def begin(self) -> None:
        if not self._holders:
            with ExitStack() as replaced:
                if compat.LOADS_BY_PARAMETERS:
                    self._reload = sd_models.forge_model_reload
                    for module in (sd_models, processing):  # which has imported it by name
                        replaced.enter_context(hooks.replaced(module, forge_model_reload=self._served_forge))
                else:
                    self._reload, self._reload_vae = sd_models.reload_model_weights, sd_vae.reload_vae_weights
                    replaced.enter_context(hooks.replaced(sd_models, reload_model_weights=self._served))
                    replaced.enter_context(hooks.replaced(sd_vae, reload_vae_weights=self._served_vae))
                    replaced.enter_context(networks.guarded())
                self._replaced = replaced.pop_all()
        self._holders += 1

    def end(self) -> None:
        self._holders -= 1
        if not self._holders:
            self._replaced.close()
            cache.ram.outside = 0
            _shelf.free()

    def by_the_host(self, info: Any) -> bool:
        """Have its own function load, where no model of that checkpoint is kept; returns whether another is in place
        now."""
        _in_place.home()
        with ExitStack() as stack:
            if self._holders and not compat.LOADS_BY_PARAMETERS:
                stack.enter_context(hooks.replaced(sd_models, reload_model_weights=self._reload_or_take))
            return compat.load(info)

    def _served(self, sd_model: Any = None, info: Any = None, forced_reload: bool = False) -> Any:
        """``sd_models.reload_model_weights``"""
        wanted = info or sd_models.select_checkpoint()
        if not forced_reload and not compat.precision_changed():
            if _in_place.holds(wanted):
                return shared.sd_model  # a VAE of the pass's own stays
            if _put(wanted):
                if not sd_models.SkipWritingToConfig.skip:
                    shared.opts.data["sd_model_checkpoint"] = wanted.title
                return shared.sd_model
        _in_place.home()
        return self._reload_or_take(sd_model, wanted, forced_reload)

    @_noting
    def _reload_or_take(self, sd_model: Any = None, info: Any = None, forced_reload: bool = False) -> Any:
        """The same, the models that are kept at hand."""
        assert self._reload is not None
        wanted, live = info or sd_models.select_checkpoint(), compat.loaded() and shared.sd_model
        load = functools.partial(self._reload, sd_model, wanted, forced_reload)
        if live is not None and (forced_reload or not _builds_another(wanted, live)):
            return load()
        return _shelf.bring(wanted, load) or shared.sd_model

    def _served_vae(self, *args: Any, **kwargs: Any) -> Any:
        """``sd_vae.reload_vae_weights``"""
        assert self._reload_vae is not None
        with _in_place.written_to():
            return self._reload_vae(*args, **kwargs)

    @_noting
    def _served_forge(self) -> Any:
        """Forge's ``sd_models.forge_model_reload``: the model in place, and whether it was loaded now."""
        assert self._reload is not None
        data = sd_models.model_data
        wanted = data.forge_loading_parameters.get("checkpoint_info")
        forced = data.forge_hash == "" and compat.loaded() is not None
        if wanted is None or forced or data.forge_hash == str(data.forge_loading_parameters):
            return self._reload()
        return _shelf.bring(wanted, self._reload) or (shared.sd_model, False)


def _builds_another(info: Any, model: Any) -> bool:
    """Whether the host builds a model for that checkpoint instead of loading into the one it has."""
    return compat.IS_FORGE_FAMILY or (architecture.suits(model) and not architecture.fits(info, model))


_serving = _Serving()


def note_loaded(model: Any) -> None:
    """From ``on_model_loaded``."""
    keys.note_loaded(model)
    whole.note_built(model)


def in_place() -> Hashable:
    """Which weights the live model has, networks aside: two that are equal are the same."""
    model = shared.sd_model
    if compat.IS_FORGE_FAMILY:
        return keys.Key.of_live(model).checkpoint, whole.form_of(model)
    current = _in_place.current
    checkpoint = (current or keys.Key.of_live(model)).checkpoint
    return checkpoint, whole.form_of(model), current is not None and _in_place.is_lossy


def clear() -> None:
    """Let go of all that is not in use. Not while a picture is made."""
    cache.clear()
    _shelf.free()


def register(*_: Any) -> None:
    """From ``on_app_started``: follow the setting."""
    settings.on_managing(wrap_queued_call(manage))
    manage()


def manage() -> None:
    """Begin or end to keep checkpoints in the cache without a plan too, as the setting is."""
    wanted = settings.manages()
    if wanted == _in_place.managed:
        return
    _in_place.managed = wanted
    if wanted:
        _serving.begin()
    else:
        _serving.end()
        _in_place.home()


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
        memory.register_for(devices.device)
        _in_place.stores_fp8, _in_place.was_lossy = settings.stores_fp8(), False
        _serving.begin()
        self._serving = True

    def took(self, info: Any) -> Load:
        """What it took to have a checkpoint in place, since this was last asked of it: where its UNet was, and the
        seconds until it was in place."""
        return _taken.pop(info.filename, Load(Source.RESIDENT, 0.0))

    def forget_taken(self) -> None:
        """What has been loaded so far was none of a pass's that is still to come."""
        _taken.clear()

    @property
    def lossy(self) -> bool:
        """Whether any pass so far had a UNet that was kept as fp8."""
        return _in_place.was_lossy

    def put(self, info: Any, vae: Vae | None = None) -> bool:
        """Put a checkpoint in place.

        Returns:
            whether the module is the one that was there before: with another, whatever acted on it does no longer.

        Raises:
            what the host raises while it reads; then what was in place before is in place again.
        """
        if self.put_in_place(info, vae):
            return True
        loaded = _serving.by_the_host(info)
        if _in_place.had_no_room or (loaded and _shelf.had_no_room):
            budget = f"{cache.ram.budget / settings.GB:.1f} GB of RAM for checkpoints (Settings > Multipass)"
            name = info.name_for_extra
            self._p.comment(f"Multipass: {budget} do not hold {name} beside another, so it is read at every switch")
        if loaded:
            compat.prepare_loaded(self._p)
        if vae is not None and not self.put_in_place(info, vae):
            reason = "there is no room in memory" if _in_place.had_no_room else "in the middle of a picture"
            raise RuntimeError(f"the webui cannot give {info.title} another VAE: {reason}")
        return not loaded

    def put_in_place(self, info: Any, vae: Vae | None = None, *, unet: bool = True) -> bool:
        """The same if that takes no other module than the live one, and no more memory than there is; else ``False``,
        and nothing has changed. ``unet``: as ``InPlace.put`` has it."""
        before = _in_place.current
        done = _put(info, vae, unet=unet)
        if done and _in_place.current != before:
            compat.prepare_loaded(self._p)
        return done

    def merge(self) -> None:
        """Have the active networks merged into what is in place, where that can be done without the host."""
        _in_place.merge()

    def unmerge(self) -> None:
        """Take them out again."""
        _in_place.unmerge()

    def read_ahead(self, info: Any, vae: Vae | None = None) -> None:
        """Begin to read what ``put`` will need next."""
        if not settings.reads_ahead():
            return
        with contextlib.suppress(OSError):  # told when it is needed
            if _builds_another(info, shared.sd_model):
                _shelf.read_ahead(info)
            else:
                _in_place.read_ahead(info, vae)

    def end(self) -> None:
        """The host's own tensors, functions and checkpoint are back.

        A failure here must not hide what came before it: it is reported, and the host loads by its options again when
        the next picture begins. So does a Forge that had no model before.
        """
        cache.stop_reading_ahead()
        _in_place.stores_fp8 = False
        try:
            _in_place.unmerge()
            if not (_in_place.managed and self._before is not None and _in_place.put(self._before)):
                _in_place.home()
                if self._before is not None:
                    _serving.by_the_host(self._before)
            if self._serving:
                self._serving = False
                _serving.end()
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
                compat.choose(self._chosen_before)
                _in_place.abandon()
                compat.load_anew(self._before)
