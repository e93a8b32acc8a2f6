"""The ``multipass`` command. Bad input: exit code 2 and one line on stderr. A failure: 1. Ctrl-C: 130."""

from __future__ import annotations

import argparse
import base64
import codecs
import json
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import msgspec

from multipass import __version__, presets
from multipass.cache import MEMO_MB
from multipass.hosts.standalone.errors import InputError
from multipass.paths import parse_axis
from multipass.plan import Plan, decode, encode, json_schema
from multipass.problems import PlanError, Problem, hint
from multipass.schedule import describe

# torch takes seconds to import: what needs it is imported by the commands that do

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
_MASK = re.compile(r"^passes\[(?P<index>\d+)\]=(?P<file>.+)$")
_SIZE = re.compile(r"^(?P<width>\d{1,5})x(?P<height>\d{1,5})$")


def main(argv: Sequence[str] | None = None) -> int:  # noqa: PLR0911 - one for each way to end
    """Run the command and return its exit code. Only ``--help``, ``--version`` and bad usage exit (0 and 2)."""
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except PlanError as error:
        return _refuse("; ".join(_told(problem, arguments) for problem in error.problems))
    except InputError as error:
        return _refuse(str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("multipass"):
            raise
        return _refuse(f'{error.name} is not installed: pip install "sd-webui-multipass[demo]" brings it')
    except KeyboardInterrupt:
        _say("multipass: interrupted", to=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # who read our output has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - else the interpreter complains when it ends
        return 0
    except Exception:  # noqa: BLE001  (the last resort of a command; the traceback is for whoever reports it)
        traceback.print_exc()
        return FAILED


# --- the commands -----------------------------------------------------------------------------------------------------


def _render(arguments: argparse.Namespace) -> int:
    from multipass.hosts.standalone.checkpoints import CheckpointFolder
    from multipass.hosts.standalone.job import prepare, with_seed
    from multipass.hosts.standalone.layout import lay_out_plan

    asked = _read_plan(arguments)
    plan = msgspec.structs.replace(asked.plan, triptych=True) if arguments.triptych else asked.plan
    job = prepare(lay_out_plan(with_seed(plan)), CheckpointFolder(arguments.checkpoints))

    from multipass.hosts.standalone import report
    from multipass.hosts.standalone.memory import Checkpoints, at_most
    from multipass.hosts.standalone.progress import Bars
    from multipass.hosts.standalone.remembering import new_memo
    from multipass.hosts.standalone.runs import Run

    run = Run(job, arguments.out)
    try:
        seeds = asked.seeds or [job.seed + i for i in range(arguments.count or 1)]
        # what a triptych's pictures have in common is computed once
        memo = new_memo(MEMO_MB) if job.plan.triptych else None
        files = run.render(Checkpoints(ram=at_most(arguments.ram)), seeds, Bars(), memo)
    finally:
        _say(run.manifest_path)
        if arguments.report:
            _say(report.write(report.of_run(run.folder), run.folder / "report.html"))
    for file, image in zip(files, run.images, strict=True):
        _say(file)
        if image.triptych is not None:
            _say(run.folder / image.triptych)
    return 0


def _sweep(arguments: argparse.Namespace) -> int:
    from multipass.hosts.standalone import sweep
    from multipass.hosts.standalone.checkpoints import CheckpointFolder

    try:
        axes = [parse_axis(text) for text in arguments.axis]
    except PlanError as error:
        raise InputError(f"--axis {error}") from None
    cells = sweep.prepare_sweep(_read_plan(arguments).plan, axes, CheckpointFolder(arguments.checkpoints))
    kept = {"ram_gb": arguments.ram, "memo_mb": arguments.memo}
    sweep.render(cells, arguments.out, **kept, with_report=arguments.report, say=_say)
    return 0


def _validate(arguments: argparse.Namespace) -> int:
    from multipass.hosts.standalone.layout import lay_out_plan

    try:
        layout = lay_out_plan(_read_plan(arguments).plan)
        if arguments.checkpoints is not None:
            from multipass.hosts.standalone.checkpoints import CheckpointFolder
            from multipass.hosts.standalone.job import prepare

            prepare(layout, CheckpointFolder(arguments.checkpoints))
    except PlanError as error:
        if not arguments.json:
            raise
        errors = [{"path": problem.path, "message": problem.message} for problem in error.problems]
        _say(json.dumps({"ok": False, "errors": errors}, ensure_ascii=False))
        return BAD_INPUT
    passes = [
        {"name": layout.plan.label(p.pass_index), "first_step": p.first_step, "end_step": p.end_step}
        for p in layout.parts
    ]
    if arguments.json:
        _say(json.dumps({"ok": True, "passes": passes}, ensure_ascii=False))
    else:
        _say(describe(layout.plan, layout.parts))
    return 0


def _schema(_: argparse.Namespace) -> int:
    _say(json.dumps(json_schema(), indent=2))
    return 0


def _presets(arguments: argparse.Namespace) -> int:
    name: str | None = arguments.name
    if name is None:
        for known, description in presets.SHIPPED.items():
            _say(f"{known}: {description}")
        return 0
    if name not in presets.SHIPPED:
        raise InputError(f'there is no preset "{name}"{hint(name, [*presets.SHIPPED])}')
    _say(msgspec.json.format(encode(presets.shipped(name)), indent=2))
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from multipass.hosts.standalone import demo

    if arguments.export is not None:
        for path in demo.export(arguments.export):
            _say(path)
        return 0
    done = demo.render(arguments.out, ram_gb=arguments.ram)
    _say(f"Pictures:  {done.pictures}")
    _say(f"Manifests: {done.manifests}")
    _say(f"Grid:      {done.grid}")
    return 0


# --- input ------------------------------------------------------------------------------------------------------------

# the option that overrides a field of the plan's request
_OPTIONS = {
    "prompt": "--prompt",
    "negative_prompt": "--negative",
    "seed": "--seed",
    "steps": "--steps",
    "width": "--size",
    "height": "--size",
    "sampler_name": "--sampler",
    "scheduler": "--scheduler",
    "cfg_scale": "--cfg",
}


class _Asked(msgspec.Struct, frozen=True):
    """What a file asks for: a plan and, if it is a run's manifest, the seeds of that run's pictures."""

    plan: Plan
    seeds: tuple[int, ...] = ()


def _read_plan(arguments: argparse.Namespace) -> _Asked:
    """The plan in the file, its request overridden by the command line."""
    path: Path = arguments.plan
    try:
        content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    recorded = _recorded(content)
    plan = decode(content if recorded is None else bytes(recorded.plan))
    for mask in arguments.mask:
        plan = _masked(plan, mask)
    given = _overrides(arguments)
    # another seed, or a number of pictures, asks for others than the run's
    again = recorded is not None and "seed" not in given and getattr(arguments, "count", None) is None
    seeds = tuple(image.seed for image in recorded.images) if recorded is not None and again else ()
    if given:
        raw: Any = msgspec.to_builtins(plan)
        plan = decode(raw | {"request": raw.get("request", {}) | given})
    return _Asked(plan, seeds)


def _masked(plan: Plan, option: str) -> Plan:
    """With the mask in place of what the pass would look for."""
    found = _MASK.match(option)
    if found is None:
        raise InputError(f"--mask: expected passes[N]=FILE, as in passes[1]=people.png, got {option}")
    raw: Any = json.loads(encode(plan))
    index, path = int(found["index"]), Path(found["file"])
    if index >= len(raw["passes"]):
        raise InputError(f"--mask: there is no passes[{index}], the plan has {len(raw['passes'])}")
    try:
        mask = base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    own = {name: value for name, value in raw["passes"][index].items() if name not in ("target", "which", "on_missing")}
    raw["passes"][index] = own | {"mask": mask}
    return decode(raw)


class _Image(msgspec.Struct, frozen=True):
    seed: int


class _Recorded(msgspec.Struct, frozen=True):
    """What of a manifest says how to make its pictures."""

    plan: msgspec.Raw
    images: tuple[_Image, ...] = ()


def _recorded(content: bytes) -> _Recorded | None:
    """The manifest, or ``None`` for another thing, which then has to be a plan."""
    try:
        return msgspec.json.decode(content, type=_Recorded)
    except msgspec.MsgspecError:
        return None


def _overrides(arguments: argparse.Namespace) -> dict[str, object]:
    """What the command line says of the request's fields."""
    given = {field: getattr(arguments, field) for field in _OPTIONS if getattr(arguments, field, None) is not None}
    if arguments.size is not None:
        size = _SIZE.match(arguments.size)
        if size is None:
            raise InputError(f"--size: expected WIDTHxHEIGHT, as in 512x512, got {arguments.size}")
        given |= {"width": int(size["width"]), "height": int(size["height"])}
    return given


def _say(text: object, to: TextIO | None = None) -> None:
    print(text, file=to)


def _refuse(reason: str) -> int:
    _say(f"multipass: {' '.join(reason.split())}", to=sys.stderr)
    return BAD_INPUT


def _told(problem: Problem, arguments: argparse.Namespace) -> str:
    """The problem, its place named by the option where the command line said it."""
    field = problem.path.removeprefix("request.")
    option = _OPTIONS.get(field) if problem.path.startswith("request.") else None
    asked = "size" if option == "--size" else field
    if option is not None and getattr(arguments, asked, None) is not None:
        return f"{option}: {problem.message}"
    return str(problem) if problem.path or not hasattr(arguments, "plan") else f"{arguments.plan}: {problem}"


class _Parser(argparse.ArgumentParser):
    """argparse, its complaint in one line."""

    def error(self, message: str) -> Any:
        self.exit(BAD_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="multipass", description="Render one picture with several Stable Diffusion checkpoints.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    render = commands.add_parser("render", help="render a plan")
    _add_plan(render)
    _add_folders(render)
    render.add_argument("--count", type=_positive, metavar="N", help="pictures, each with the next seed")
    told = "one picture more: each checkpoint alone beside the plan's; as the plan's own triptych"
    render.add_argument("--triptych", action="store_true", help=told)
    _add_ram(render)
    _add_report(render)
    render.set_defaults(command=_render)

    sweep = commands.add_parser("sweep", help="render a plan with each of several values, and a grid of the pictures")
    _add_plan(sweep)
    sweep.add_argument(
        "--axis",
        action="append",
        required=True,
        metavar="PATH=VALUES",
        help="passes[1].switch_at=0:1:0.1 (first:last:step) or request.cfg_scale=4,5.5,7; a second one goes down",
    )
    _add_folders(sweep)
    _add_ram(sweep)
    sweep.add_argument(
        "--memo",
        type=_size,
        default=MEMO_MB,
        metavar="MB",
        help="RAM for what was computed, so that steps that pictures have in common are computed once; 0: none; "
        "default: %(default)s",
    )
    _add_report(sweep)
    sweep.set_defaults(command=_sweep)

    validate = commands.add_parser(
        "validate", help="say which steps each pass of a plan gets, or what is wrong with it"
    )
    _add_plan(validate)
    validate.add_argument("--checkpoints", type=Path, metavar="DIR", help="look for the plan's checkpoints, too")
    validate.add_argument("--json", action="store_true", help="answer in JSON, counting steps from 0")
    validate.set_defaults(command=_validate)

    schema = commands.add_parser("schema", help="print the JSON Schema of a plan")
    schema.set_defaults(command=_schema)

    listed = commands.add_parser("presets", help="list the presets that come along, or print the plan of one")
    listed.add_argument("name", nargs="?", metavar="NAME")
    listed.set_defaults(command=_presets)

    demo = commands.add_parser("demo", help="render the demo with the bundled checkpoints")
    demo.add_argument("--out", type=Path, default=Path("multipass-demo"), metavar="DIR", help="default: %(default)s")
    demo.add_argument(
        "--export",
        type=Path,
        metavar="DIR",
        help="copy the bundled checkpoints where a webui finds them, render nothing",
    )
    _add_ram(demo)
    demo.set_defaults(command=_demo)
    return parser


def _add_folders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoints", type=Path, required=True, metavar="DIR", help="the folder of .safetensors")
    parser.add_argument("--out", type=Path, default=Path("multipass-out"), metavar="DIR", help="default: %(default)s")


def _add_ram(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ram",
        type=_size,
        default=0.0,
        metavar="GB",
        help="RAM in which checkpoints are kept; default: what is free, less a reserve",
    )


def _add_report(parser: argparse.ArgumentParser) -> None:
    told = "write an HTML page, too, in which passes and pictures are compared; needs no server and no network"
    parser.add_argument("--report", action="store_true", help=told)


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "plan",
        type=Path,
        metavar="PLAN.json",
        help="the plan, or a run's passes.json; - reads it from the standard input",
    )
    parser.add_argument(
        "--mask",
        action="append",
        default=[],
        metavar="PASS=FILE",
        help="passes[1]=people.png: what that subject pass repaints, white, in place of what it would look for",
    )
    request = parser.add_argument_group("in place of the plan's request")
    request.add_argument("--prompt")
    request.add_argument("--negative", dest="negative_prompt", metavar="NEGATIVE")
    request.add_argument("--seed", type=int, help="-1: any")
    request.add_argument("--steps", type=int)
    request.add_argument("--size", metavar="WIDTHxHEIGHT")
    request.add_argument("--sampler", dest="sampler_name", metavar="SAMPLER")
    request.add_argument("--scheduler")
    request.add_argument("--cfg", type=float, dest="cfg_scale", metavar="CFG")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _size(text: str) -> float:
    number = float(text)
    if not 0 <= number < math.inf:
        raise ValueError(text)
    return number


_size.__name__ = "number of at least 0"
_positive.__name__ = "whole number of at least 1"  # argparse tells it

if __name__ == "__main__":
    sys.exit(main())
