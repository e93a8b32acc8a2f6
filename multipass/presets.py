"""Presets: plans with a name, those that come along and those that people save, a file each in one folder."""

from __future__ import annotations

from pathlib import Path

import msgspec

from multipass.folders import whole
from multipass.plan import Plan, decode, encode
from multipass.problems import PlanError, Problem

SHIPPED = {
    "Coarse to fine": "A fast checkpoint lays the picture out, a quality checkpoint enlarges and refines it. In "
    "img2img, give the request a high denoising strength.",
    "Style transfer chain": "The picture is restyled at 0.70, then finished at 0.15. Put the style's LoRA into the "
    "second pass's prompt: the third has a text of its own, so that the LoRA stays out of it.",
    "Progressive detail": "Redrawn three times, each time larger and with less strength: 0.80, 0.40, 0.20. Each time "
    "as a whole: tiles are not a part of it.",
    "Pony to Animagine": "Pony for the anatomy, Animagine for the style, each with its own quality tags. What the "
    "picture shows goes into the common text, which is joined to both.",
    "Toon to photo": "A cartoon checkpoint for composition and light, enlarged and redrawn by a photographic one.",
    "Subject on scene": "Write the prompt as scene BREAK common BREAK subject: first the scene is drawn, then the "
    "person in it is repainted from their own text, checkpoint or LoRA. For a second person add BREAK and their text.",
}
"""Those that come along, and what they are for. They name no checkpoints, which are others for everybody: the passes'
names tell which kind belongs there."""

_FOLDER = Path(__file__).parent / "shipped_presets"
_SUFFIX = ".json"
_LONGEST = 200  # bytes; file systems take 255, and a file that is being written has a longer name
_UNSAFE = frozenset('/\\:*?"<>|')
_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in "0123456789¹²³")}


class UnknownPresetError(PlanError):
    """There is no preset of that name."""


class ShippedPresetError(PlanError):
    """A preset that comes along, which is not written to."""


def shipped(name: str) -> Plan:
    """One of ``SHIPPED``."""
    return decode((_FOLDER / f"{name}{_SUFFIX}").read_bytes())


def is_shipped(name: str) -> bool:
    """Whether it is the name of one that comes along, or would be taken for it where file systems ignore case."""
    return name.casefold() in {known.casefold() for known in SHIPPED}


def names(folder: Path) -> list[str]:
    """Those that people have saved, in alphabetical order; there may be no such folder yet."""
    found = (path.name.removesuffix(_SUFFIX) for path in folder.glob(f"*{_SUFFIX}"))
    return sorted((name for name in found if _reason(name) is None and not is_shipped(name)), key=str.casefold)


def read(folder: Path, name: str) -> Plan:
    """Raises UnknownPresetError; PlanError for what is no name or, in the file, no plan; OSError."""
    if name in SHIPPED:
        return shipped(name)
    try:
        return decode(_path(folder, name).read_bytes())
    except FileNotFoundError:
        raise _unknown(name) from None


def write(folder: Path, name: str, plan: Plan) -> bool:
    """Save a plan, whole or not at all; the folder is made if it is not there.

    Names that differ in case alone are one preset's, as many file systems have it: it takes the new spelling.

    Returns:
        whether there was none of that name before.

    Raises:
        ShippedPresetError, PlanError: for a name that cannot be written to.
        OSError: where the file cannot be.
    """
    path = _own_path(folder, name)
    folder.mkdir(parents=True, exist_ok=True)
    other = _spelled_otherwise(folder, name)
    is_new = other is None and not path.exists()
    with whole(path) as aside:
        aside.write_bytes(msgspec.json.format(encode(plan).encode(), indent=2) + b"\n")
        if other is not None:
            other.replace(path)
    return is_new


def delete(folder: Path, name: str) -> None:
    """Remove the one that is spelled exactly so.

    Raises UnknownPresetError, ShippedPresetError, PlanError for what is no name; OSError.
    """
    path = _own_path(folder, name)
    if _spelled_otherwise(folder, name) is not None:  # the file system may take it for the same
        raise _unknown(name)
    try:
        path.unlink()
    except FileNotFoundError:
        raise _unknown(name) from None


def _spelled_otherwise(folder: Path, name: str) -> Path | None:
    """The file of a preset whose name differs in case alone, where there is none that is spelled so."""
    known = names(folder)
    alike = (other for other in known if other.lower() == name.lower())
    return None if name in known else next((_path(folder, other) for other in alike), None)


def _own_path(folder: Path, name: str) -> Path:
    if is_shipped(name):
        reason = f'"{name}" comes with Multipass and stays as it is: choose another name'
        raise ShippedPresetError(Problem("name", reason))
    return _path(folder, name)


def _path(folder: Path, name: str) -> Path:
    """A file in the folder, on every system, and no way out of it."""
    reason = _reason(name)
    if reason is not None:
        raise PlanError(Problem("name", reason))
    return folder / f"{name}{_SUFFIX}"


def _reason(name: str) -> str | None:
    """Why a name is none."""
    if not name.strip():
        return "a preset needs a name"
    if name != name.strip() or name.startswith("."):
        return "a preset's name does not begin with a dot or a space, nor end with a space"
    if _UNSAFE & set(name) or any(ord(character) < 32 for character in name):
        return "a preset's name has none of / \\ : * ? \" < > | and no line breaks"
    if name.partition(".")[0].rstrip().upper() in _DEVICES:
        return f"{name} is the name of a device where Windows reads it"
    try:
        length = len(name.encode())
    except UnicodeError:
        return "not a text"
    return f"expected at most {_LONGEST} bytes, got {length}" if length > _LONGEST else None


def _unknown(name: str) -> UnknownPresetError:
    return UnknownPresetError(Problem("name", f'there is no preset "{name}"'))
