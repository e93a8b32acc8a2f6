"""One run: its folder, its pictures and its manifest, however it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec
from PIL import Image, PngImagePlugin

from multipass import drawing, folders, triptych
from multipass.cache.memo import Memo
from multipass.hosts.standalone.engine import Ready, make_ready, render
from multipass.hosts.standalone.errors import InputError
from multipass.hosts.standalone.infotext import PNG_KEY, infotext
from multipass.hosts.standalone.job import Job, alone
from multipass.hosts.standalone.memory import Checkpoints
from multipass.hosts.standalone.progress import Progress
from multipass.manifest import ImageRecord, Manifest, PassRecord, Status, write
from multipass.schedule import Segment


class Run:
    """A run's folder ``<out>/multipass/<date>/<run>``, made when this is.

    The manifest in it is rewritten, whole, after every pass; until the run ends it says ``interrupted``, so that
    it is true however the process ends.

    Args:
        label: a word for people, becomes the end of the folder's name.

    Raises:
        InputError: where the folder cannot be written.
    """

    def __init__(self, job: Job, out: Path, label: str = "") -> None:
        self.job = job
        self.images: list[ImageRecord] = []
        self._seed = 0  # of the picture in the making, as these are
        self._passes: list[PassRecord] = []
        try:
            self.folder = folders.begin(out / "multipass", label)
            self.name = self.folder.name
            self.manifest_path = self._write(Status.INTERRUPTED)
        except OSError as error:
            raise InputError(f"cannot write to {out}: {error.strerror or error}") from None

    def render(
        self, checkpoints: Checkpoints, seeds: Sequence[int], progress: Progress, memo: Memo | None = None
    ) -> list[Path]:
        """Render a picture for every seed, and return the files. Whatever stops it is in the manifest.

        Args:
            memo: of what UNets have answered in this run and others; ``None``: nothing is remembered.
        """
        try:
            passes = self._make_ready(checkpoints, progress)
            files: list[Path] = []
            for number, seed in enumerate(seeds):
                again, self._seed = number + 1 < len(seeds), seed
                name = folders.picture_name(number, seed)
                with progress.picture(self.job, number + 1, len(seeds)) as watcher:
                    image = render(
                        self.job,
                        passes,
                        checkpoints,
                        seed,
                        watcher,
                        record=self._record,
                        keep=partial(self._keep, name, seed) if self.job.plan.save_passes else None,
                        again=again,
                        memo=memo,
                    )
                self._save(image, name, infotext(self.job, seed))
                files.append(self.folder / name)
                drawn = None
                if self.job.plan.triptych:
                    alone_by = partial(self._alone, passes=passes, store=checkpoints, progress=progress, memo=memo)
                    drawn = self._draw_triptych(image, name, seed, alone_by)
                self.images.append(ImageRecord(seed, tuple(self._passes), name, triptych=drawn))
                self._passes.clear()
                self._write(Status.INTERRUPTED)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                self._write(Status.INTERRUPTED, "interrupted")
            else:
                self._write(Status.FAILED, f"{type(error).__name__}: {error}")
            raise
        finally:
            checkpoints.expect_nothing()
        self._write(Status.DONE)
        return files

    def _make_ready(self, checkpoints: Checkpoints, progress: Progress) -> dict[int, Ready]:
        """Encode every text before anything is sampled."""
        passes: dict[int, Ready] = {}
        parts = self.job.parts
        for number, part in enumerate(parts):
            file = self.job.checkpoints[part.pass_index]
            progress.loading(file.name, number + 1, len(parts))
            passes[part.pass_index] = make_ready(self.job, part, checkpoints)
        progress.loaded()
        return passes

    def _draw_triptych(self, image: Image.Image, name: str, seed: int, alone_by: Callable[..., Image.Image]) -> str:
        """Render the picture by each checkpoint alone, save all in a row, and say where in the run's folder."""
        sampled = [part.pass_index for part in self.job.parts if part.end_step > part.first_step]
        made = [alone_by(index, seed) for index in triptych.alone(sampled, self.job.titles)]
        labels = triptych.labels(sampled, self.job.titles)
        font = drawing.bundled_font(drawing.text_pixels(image.height))
        place = folders.of_triptych(name)
        (self.folder / place).parent.mkdir(exist_ok=True)
        self._save(drawing.draw_triptych(made, image, labels, font), place, infotext(self.job, seed))
        return place

    def _alone(
        self,
        index: int,
        seed: int,
        *,
        passes: Mapping[int, Ready],
        store: Checkpoints,
        progress: Progress,
        memo: Memo | None,
    ) -> Image.Image:
        job = alone(self.job, index)
        ready = {index: msgspec.structs.replace(passes[index], size=job.size)}
        with progress.picture(job, 1, 1) as watcher:
            return render(job, ready, store, seed, watcher, record=lambda _: None, memo=memo)

    def _keep(self, name: str, seed: int, part: Segment, image: Image.Image, *, is_mask: bool = False) -> str:
        """Save a pass's picture, or its mask, in the folder of the pass, and say where in the run's."""
        place = (folders.of_mask if is_mask else folders.of_pass)(self.job.parts.index(part), name)
        (self.folder / place).parent.mkdir(exist_ok=True)
        self._save(image, place, infotext(self.job, seed, part))
        return place

    def _save(self, image: Image.Image, place: str, told: str) -> None:
        target = self.folder / place
        text = PngImagePlugin.PngInfo()
        text.add_text(PNG_KEY, told)
        with folders.whole(target) as aside:
            image.save(aside, "PNG", pnginfo=text)

    def _record(self, done: PassRecord) -> None:
        self._passes.append(done)
        self._write(Status.INTERRUPTED)

    def _write(self, status: Status, error: str | None = None) -> Path:
        begun = (ImageRecord(self._seed, tuple(self._passes)),) if self._passes else ()
        return write(Manifest(self.name, status, self.job.plan, (*self.images, *begun), error), self.folder)
