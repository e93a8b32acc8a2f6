"""Checkpoints in a folder: found by name or hash, recognised by their header, hashed once. Loads no weights."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from multipass import kinds, titles
from multipass.cache import header
from multipass.hosts.standalone.errors import InputError
from multipass.kinds import Family, Kind
from multipass.plan import PlanError, Problem

SUFFIX = ".safetensors"
SHORT_HASH = 10
_HASH = re.compile(r"^(?:[0-9a-fA-F]{10}|[0-9a-fA-F]{64})$")
_LAYER = re.compile(r"^(cond_stage_model|conditioner\.embedders\.0)\..*\.encoder\.layers\.(?P<number>\d+)\.")


class CheckpointFile:
    """One checkpoint file. What is asked about it is read once.

    Attributes:
        path: where it is.
        name: its path in the checkpoint folder without the extension, with ``/``.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self._hashed: tuple[int, ...] | None = None

    @cached_property
    def sha256(self) -> str:
        """Of the whole file, in hexadecimal digits."""
        digest = hashlib.sha256()
        self._hashed = self._version()
        with self.path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    @property
    def changed(self) -> bool:
        """Whether another file is there than the one that was hashed, as its time, size and inode tell."""
        try:
            return self._hashed is not None and self._hashed != self._version()
        except OSError:
            return True

    @property
    def short_hash(self) -> str:
        """The webui's hash of a checkpoint: the first ten digits."""
        return self.sha256[:SHORT_HASH]

    @property
    def title(self) -> str:
        """``name [hash]``: how pictures and manifests name it, and how any host finds it again."""
        return f"{self.name} [{self.short_hash}]"

    @cached_property
    def header(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor. Raises InputError for a file that is not whole or not safetensors."""
        try:
            return {name: tensor.shape for name, tensor in header.read(self.path).items()}
        except header.HeaderError as error:
            raise InputError(f"{self.path} is not a readable safetensors file: {error}") from None

    def _version(self) -> tuple[int, ...]:
        stat = self.path.stat()
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    @property
    def family(self) -> Family:
        """Recognised by its text encoders. Raises InputError for what is neither SD 1.x nor SDXL."""
        family = kinds.by_text_encoder(self.header)
        if family is not Family.SD1 and family is not Family.SDXL:
            raise InputError(f"{self.path} is neither an SD 1.x nor an SDXL checkpoint: it has neither's text encoders")
        return family

    @property
    def kind(self) -> Kind:
        """What it must have in common with the others of its trajectory. Raises InputError, without a UNet too."""
        channels = kinds.unet_channels(self.header)
        if channels is None:
            raise InputError(f"{self.path} has no UNet")
        return Kind(self.family, channels)

    @property
    def text_layers(self) -> int:
        """How many layers the (first) text encoder has: the highest clip skip."""
        layers = (_LAYER.search(key) for key in self.header)
        return 1 + max((int(found["number"]) for found in layers if found), default=0)

    @cached_property
    def config_path(self) -> Path | None:
        """The original config that describes it, or ``None`` where it is of its family's usual sizes.

        That is the ``.yaml`` of its own name beside it; else, if there is exactly one beside it that bears no
        checkpoint's name, that one: it is shared. Raises InputError where more than one could be meant.
        """
        own = self.path.with_suffix(".yaml")
        if own.is_file():
            return own
        shared = sorted(p for p in self.path.parent.glob("*.yaml") if not p.with_suffix(SUFFIX).exists())
        if len(shared) > 1:
            names = ", ".join(p.name for p in shared)
            raise InputError(f"which config describes {self.path}: {names}? Name one {own.name}")
        return shared[0] if shared else None

    @cached_property
    def config(self) -> dict[str, Any] | None:
        """The original config's content. Raises InputError where it is not one."""
        if self.config_path is None:
            return None
        try:
            content = yaml.safe_load(self.config_path.read_text(encoding="utf-8"))
        except (OSError, UnicodeError, yaml.YAMLError) as error:
            raise InputError(f"{self.config_path} is not a readable config: {' '.join(str(error).split())}") from None
        model = content.get("model") if isinstance(content, dict) else None
        if not isinstance(model, dict) or not isinstance(model.get("params"), dict):
            raise InputError(f"{self.config_path} is not a model's original config: it has no model.params")
        return content


class CheckpointFolder:
    """The checkpoints under a folder, subfolders included. Raises InputError where there is no such folder."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise InputError(f"there is no folder {root} with checkpoints")
        self.root = root
        self.files = tuple(
            CheckpointFile(path, path.relative_to(root).with_suffix("").as_posix())
            for path in sorted(root.rglob(f"*{SUFFIX}"))
        )

    def find(self, asked: str, place: str) -> CheckpointFile:
        """The checkpoint that ``asked`` means, as in the webui: a name, never a part of one, never a fallback.

        A name is a path in the folder or a file name, each with or without the extension; or a hash; or
        ``name [hash]``, where the hash decides and finds a renamed file too.

        Raises:
            PlanError: with ``place``, if none or several are meant.
        """
        named = titles.split(asked)
        found = list(self._by_hash(named[1], named[0]) if named else self._by_name(asked))
        if not named and not found and _HASH.match(asked):
            found = list(self._by_hash(asked, ""))
        if not found:
            raise PlanError(Problem(place, self._missing(asked, named[0] if named else asked)))
        if len(found) > 1 and len({file.sha256 for file in found}) > 1:  # copies of one checkpoint are no question
            several = ", ".join(file.title for file in found)
            raise PlanError(Problem(place, f"{asked!r} could be any of {several}"))
        return found[0]

    def told(self) -> str:
        """What is here, for an error message."""
        names = ", ".join(file.name for file in self.files[:20]) + (", ..." if len(self.files) > 20 else "")
        return f"{self.root} has {names}" if names else f"{self.root} has no {SUFFIX} files"

    def _by_name(self, name: str) -> Iterator[CheckpointFile]:
        bare = name.replace("\\", "/").removesuffix(SUFFIX)
        exact = [file for file in self.files if file.name == bare]
        yield from exact or (file for file in self.files if file.path.stem == bare)

    def _by_hash(self, start: str, name: str) -> Iterator[CheckpointFile]:
        # hashing reads the whole file, so the one of that name first
        likely = list(self._by_name(name))
        for files in (likely, self.files):
            found = [file for file in files if file.sha256.startswith(start.lower())]
            yield from found
            if found:
                return

    def _missing(self, asked: str, name: str) -> str:
        here = list(self._by_name(name))
        if here:
            return f"no checkpoint has the hash of {asked!r}, {name} is {here[0].title}"
        known = {spelled: file.name for file in self.files for spelled in (file.path.stem, file.name)}
        near = difflib.get_close_matches(name, known, n=1)
        hint = f", did you mean {known[near[0]]!r}?" if near else ""
        return f"no checkpoint {asked!r}{hint} ({self.told()})"
