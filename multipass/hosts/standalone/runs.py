"""One run: its folder, its pictures and its manifest, however it ends."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from PIL import Image, PngImagePlugin

from multipass.folders import begin, whole
from multipass.hosts.standalone.engine import Ready, make_ready, render
from multipass.hosts.standalone.errors import InputError
from multipass.hosts.standalone.infotext import PNG_KEY, infotext
from multipass.hosts.standalone.job import Job
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
            self.folder = begin(out / "multipass", label)
            self.name = self.folder.name
            self.manifest_path = self._write(Status.INTERRUPTED)
        except OSError as error:
            raise InputError(f"cannot write to {out}: {error.strerror or error}") from None

    def render(self, checkpoints: Checkpoints, seeds: Sequence[int], progress: Progress) -> list[Path]:
        """Render a picture for every seed, and return the files. Whatever stops it is in the manifest."""
        try:
            passes = self._make_ready(checkpoints, progress)
            files: list[Path] = []
            for number, seed in enumerate(seeds):
                again, self._seed = number + 1 < len(seeds), seed
                name = f"{number:05}-{seed}.png"
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
                    )
                self._save(image, name, infotext(self.job, seed))
                files.append(self.folder / name)
                self.images.append(ImageRecord(seed, tuple(self._passes), name))
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

    def _keep(self, name: str, seed: int, part: Segment, image: Image.Image) -> str:
        """Save a pass's picture, in the folder of the pass, and say where in the run's."""
        place = f"pass_{len(self._passes)}/{name}"
        (self.folder / place).parent.mkdir(exist_ok=True)
        self._save(image, place, infotext(self.job, seed, part))
        return place

    def _save(self, image: Image.Image, place: str, told: str) -> None:
        target = self.folder / place
        text = PngImagePlugin.PngInfo()
        text.add_text(PNG_KEY, told)
        with whole(target) as aside:
            image.save(aside, "PNG", pnginfo=text)

    def _record(self, done: PassRecord) -> None:
        self._passes.append(done)
        self._write(Status.INTERRUPTED)

    def _write(self, status: Status, error: str | None = None) -> Path:
        begun = (ImageRecord(self._seed, tuple(self._passes)),) if self._passes else ()
        return write(Manifest(self.name, status, self.job.plan, (*self.images, *begun), error), self.folder)
