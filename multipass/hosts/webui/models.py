"""Which checkpoint is in place while a request is rendered: in the live module where that will do, else by the host."""

from __future__ import annotations

import contextlib
from contextlib import ExitStack
from typing import Any

from modules import errors, sd_models, sd_vae, shared

from multipass.hosts.webui import compat, hooks
from multipass.hosts.webui.inplace import InPlace
from multipass.hosts.webui.vaes import Vae


class Models:
    """The models of one request, from before the host has loaded its first until the host is as it was.

    Between ``serve`` and ``end`` the host's own changes of checkpoint go through this too: it would load into whatever
    tensors are in place, and they may be another checkpoint's.
    """

    def __init__(self, p: Any) -> None:
        self._p = p
        self._before, self._chosen_before = compat.loaded(), compat.chosen()
        self._noted = {name: shared.opts.data.get(name, hooks.ABSENT) for name in ("sd_checkpoint_hash",)}
        self._in_place = InPlace()
        self._serving = ExitStack()
        self._reload = self._reload_vae = None

    def serve(self) -> None:
        """From now on the host loads through this."""
        if compat.LOADS_BY_PARAMETERS:
            return
        self._reload, self._reload_vae = sd_models.reload_model_weights, sd_vae.reload_vae_weights
        self._serving.enter_context(hooks.replaced(sd_models, reload_model_weights=self._served))
        self._serving.enter_context(hooks.replaced(sd_vae, reload_vae_weights=self._served_vae))

    def put(self, info: Any, vae: Vae | None = None) -> bool:
        """Put a checkpoint in place.

        Returns:
            whether the module is the one that was there before: with another, whatever acted on it does no longer.

        Raises:
            what the host raises while it reads; then what was in place before is in place again.
        """
        if self.put_in_place(info, vae):
            return True
        loaded = self._put_by_the_host(info)
        if vae is not None and not self.put_in_place(info, vae):
            raise RuntimeError(f"the webui cannot give {info.title} another VAE in the middle of a picture")
        return not loaded

    def put_in_place(self, info: Any, vae: Vae | None = None) -> bool:
        """The same if that takes no other module than the live one; else ``False``, and nothing has changed."""
        before = self._in_place.current
        done = self._in_place.put(info, vae)
        if done and self._in_place.current != before:
            compat.prepare_loaded(self._p)
        return done

    def end(self) -> None:
        """The host's own tensors, functions and checkpoint are back.

        A failure here must not hide what came before it: it is reported, and the host loads by its options again when
        the next picture begins. So does a Forge that had no model before.
        """
        self._serving.close()
        try:
            self._in_place.home()
            compat.choose(self._chosen_before)
            if self._before is not None:
                compat.load(self._before)
                hooks.put_back(shared.opts.data, self._noted)  # reForge forgets it where the model is still there
            if not compat.IS_FORGE_FAMILY:
                sd_vae.reload_vae_weights()  # by the options; nothing where that is the one in place
        except Exception:  # noqa: BLE001 - see above
            errors.report("Multipass could not put the model back and has it loaded anew", exc_info=True)
            with contextlib.suppress(Exception):
                compat.load_anew(self._before)

    def _put_by_the_host(self, info: Any) -> bool:
        """By its own function, which may be held; returns whether it loaded anything."""
        self._in_place.home()
        with ExitStack() as stack:
            if self._reload is not None:
                stack.enter_context(hooks.replaced(sd_models, reload_model_weights=self._reload))
            loaded = compat.load(info)
        if loaded:
            compat.prepare_loaded(self._p)
        return loaded

    # --- in the place of the host's own ------------------------------------------------------------------------------

    def _served(self, sd_model: Any = None, info: Any = None, forced_reload: bool = False) -> Any:
        """``sd_models.reload_model_weights``"""
        assert self._reload is not None
        if forced_reload or compat.precision_changed():
            self._in_place.home()
            return self._reload(sd_model, info, forced_reload)
        wanted, current = info or sd_models.select_checkpoint(), self._in_place.current
        if current is None or current.filename != wanted.filename:  # a VAE of the pass's own stays
            self.put(wanted)
        return shared.sd_model

    def _served_vae(self, *args: Any, **kwargs: Any) -> Any:
        """``sd_vae.reload_vae_weights``"""
        assert self._reload_vae is not None
        with self._in_place.written_to():
            return self._reload_vae(*args, **kwargs)
