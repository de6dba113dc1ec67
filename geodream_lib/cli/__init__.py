"""`geodream ...`: one subcommand for the whole of Algorithm 1, one for each of its stages (see `commands`)."""

import argparse
import errno
import logging
import os
import platform
import sys
import warnings
from pathlib import Path
from typing import NoReturn

from geodream_lib import __version__
from geodream_lib.cli import commands
from geodream_lib.errors import InputError

STAGES = {
    "views": "stage 1: predict the source views around a reference view",
    "volume": "stage 2: build the cost volume, the native 3D prior, from the views",
    "refine": "stage 3: refine the volume and a texture field under the 2D prior",
    "mesh": "stage 4: turn the field into a mesh, refine it, bake its texture",
}
# Large tensors are allocated and freed in every step. By default glibc asks the system for each and hands it back, and
# the system clears every page again: kept memory makes such steps 1.4 times faster. glibc reads these at start only.
ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code is 0, 1 (doctor or verify: a problem), 2 (bad input) or 130 (interrupted).

    Args:
        arguments: without the program's name; None takes the process's own (and may start the process again, with the
            allocator's settings).
    """
    parsed = _parser().parse_args(arguments)
    if arguments is None and parsed.command is not commands.doctor:
        _keep_freed_memory()
    _quiet_libraries()
    try:
        code = parsed.command(parsed)
        sys.stdout.flush()
        return code
    except (InputError, FloatingPointError) as error:
        return commands.fail(str(error))
    except BrokenPipeError:  # whoever read the output left (`| head`); Python must not flush into the void at its exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return commands.fail(f"{error}; free some space, the same command goes on from what is finished")
    except KeyboardInterrupt:
        print("geodream: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as for every other bad input."""
        self.exit(commands.fail(f"{message}; see {self.prog} --help"))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="geodream", description="A prompt goes in, a textured mesh comes out (GeoDream).")
    parser.add_argument("--version", action="version", version=f"geodream {__version__}")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = subparsers.add_parser(
        "generate",
        help="all stages: prompt to textured mesh; run again to resume",
        description="All stages, from a prompt to a textured mesh. The same command again resumes an interrupted run.",
    )
    command.add_argument("prompt", metavar="PROMPT", help='such as "a red mushroom on a log"')
    command.add_argument("--image", type=Path, metavar="FILE", help="reference picture, instead of a predicted one")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of everything random (default: 0)")
    command.add_argument("--out", type=Path, metavar="DIR", help="the run's folder (default: runs/<the prompt>)")
    command.add_argument("--until", choices=STAGES, default="mesh", metavar="STAGE", help=f"stop after {_names()}")
    _add_settings(command)
    command.set_defaults(command=commands.generate)

    command = subparsers.add_parser(
        "sweep",
        help="all stages for every prompt of a list, here or on a Ray cluster",
        description="A run for every prompt. The same command again skips what is finished and tries the rest.",
    )
    command.add_argument("prompts", type=Path, metavar="FILE", help="one prompt a line, or a JSON list")
    command.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="(default: %(default)s)")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of everything random (default: 0)")
    command.add_argument("--ray", metavar="ADDRESS", help="of a Ray cluster: auto, HOST:PORT, or local to start one")
    _add_settings(command)
    command.set_defaults(command=commands.sweep)

    for stage, what in STAGES.items():
        command = subparsers.add_parser(
            stage, help=f"{what}, in an existing run", description=f"{what[0].upper()}{what[1:]}."
        )
        command.add_argument(
            "run", type=Path, metavar="RUN", help="a folder made by geodream generate (see its --until)"
        )
        command.set_defaults(command=commands.one_stage, stage=stage)

    command = subparsers.add_parser(
        "reconstruct",
        help="posed images to a mesh, without a prompt",
        description="A mesh from images with known cameras (a folder with transforms.json in the NeRF layout).",
    )
    command.add_argument("views", type=Path, metavar="VIEWS_DIR", help="folder with transforms.json and its images")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the mesh is written")
    command.add_argument("--preset", default="lab", help="(default: lab)")
    command.add_argument(
        "--fit-steps",
        type=int,
        default=300,
        metavar="N",
        help="steps that move the volume until it shows what the images show; 0 for imagined views (default: 300)",
    )
    command.set_defaults(command=commands.reconstruct)

    command = subparsers.add_parser(
        "export",
        help="a run's mesh with fewer faces, a larger texture, other formats",
        description="The final mesh of a run for other programs: decimated, with a new atlas, baked anew, measured.",
    )
    command.add_argument("run", type=Path, metavar="RUN", help="a folder made by geodream generate")
    command.add_argument("--faces", type=int, metavar="N", help="most faces (default: all)")
    command.add_argument("--texture", type=int, default=2048, metavar="N", help="side in texels (default: %(default)s)")
    command.add_argument("--normal-map", action="store_true", help="keep the relief of the faces that --faces removes")
    command.add_argument(
        "--format", dest="formats", default="glb", metavar="LIST", help="glb, obj, ply, with commas (default: glb)"
    )
    command.add_argument("--out", type=Path, metavar="DIR", help="where asset.* is written (default: RUN/mesh)")
    command.set_defaults(command=commands.export)

    command = subparsers.add_parser(
        "evaluate",
        help="scores of finished runs: retrieval, FID, Janus, colours, shape",
        description="Measure finished runs. Each gets an evaluation.json; what cannot be measured is named.",
    )
    command.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders made by geodream generate")
    command.add_argument("--preset", default="lab", help="whose evaluators: lab, colab or paper (default: lab)")
    command.add_argument("--out", type=Path, metavar="FILE", help="write all scores and their means as JSON")
    command.add_argument(
        "--reference", type=Path, metavar="DIR", help="pictures for the FID (default: exact renders, in the lab only)"
    )
    command.set_defaults(command=commands.evaluate)

    _add_lab(subparsers.add_parser("lab", help="the lab's main job on many prompts: report"))

    _add_weights(subparsers.add_parser("weights", help="public networks: list, fetch, convert, verify"))

    command = subparsers.add_parser(
        "plan",
        help="what a run will take, before anything is loaded",
        description="Steps, arithmetic and memory of every stage, counted without weights; and whether it fits here.",
    )
    command.add_argument("--image", action="store_true", help="of a run that starts from a reference picture")
    _add_settings(command)
    command.set_defaults(command=commands.plan)

    command = subparsers.add_parser("doctor", help="what is installed and active, and how to get the rest")
    command.set_defaults(command=commands.doctor)
    return parser


def _add_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument("--preset", default="lab", help="all numbers of a run: lab, colab or paper (default: lab)")
    command.add_argument(
        "--fidelity",
        default="paper",
        help="where the paper's text and the released code disagree: paper or released (default: paper)",
    )
    command.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        type=_override,
        metavar="KEY=VALUE",
        help="change one number of the preset, such as refine.steps=500; can be given more than once",
    )


def _add_lab(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    action = actions.add_parser(
        "report",
        help="run the lab's preset on a list of prompts, measure it, write a page with pictures",
        description="Runs that are there are resumed or reused. A prompt takes minutes; see also --steps-fast.",
    )
    action.add_argument(
        "--out", type=Path, default=Path("runs") / "lab_report", metavar="DIR", help="(default: %(default)s)"
    )
    action.add_argument("--prompts", type=Path, metavar="FILE", help="JSON list (default: the 35 of data/prompts)")
    action.add_argument("--steps-fast", action="store_true", help="a twentieth of all steps: to try the command")
    action.set_defaults(command=commands.lab)


def _add_weights(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION", dest="action")
    parser.set_defaults(command=commands.weights)
    actions.add_parser("list", help="every public network: whether it is ready, size, stage, licence")
    action = actions.add_parser("fetch", help="download a network (or take files you have) and make it ready")
    action.add_argument("name", metavar="NAME", help="such as sd21-base; see geodream weights list")
    action.add_argument("--from", dest="folder", type=Path, metavar="DIR", help="files downloaded by hand")
    action.add_argument("--repo", metavar="OWNER/NAME", help="another repository on the hub, if the usual one is gone")
    action.add_argument("--offline", action="store_true", help="touch no network")
    action.add_argument("--yes", action="store_true", help="accept the licence without being asked")
    action = actions.add_parser("convert", help="make a network ready from a checkpoint file you have")
    action.add_argument("name", metavar="NAME", help="such as zero123")
    action.add_argument("file", type=Path, metavar="FILE", help=".ckpt, .pt, .pth or .safetensors")
    action.add_argument("--config", type=Path, metavar="JSON", help="sizes, if they are not the released ones")
    action.add_argument("--tokenizer", type=Path, metavar="DIR", help="of MVDream (default: of sd21-base or sd15)")
    action.add_argument(
        "--image-encoder", type=Path, metavar="DIR", help="CLIP's image tower, for a Zero123 that has none"
    )
    action = actions.add_parser("verify", help="check files, parameters, shapes and numbers of ready networks")
    action.add_argument("name", nargs="?", metavar="NAME", help="(default: all that are ready)")


def _names() -> str:
    return ", ".join(STAGES)


def _override(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE, such as refine.steps=500")
    return key, value


def _keep_freed_memory() -> None:
    """Start this process again with `ALLOCATOR` set; not where one of its variables is (so once at most)."""
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc" and not ALLOCATOR.keys() & os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | ALLOCATOR)


def _quiet_libraries() -> None:
    """Let the library's own messages and progress bars be seen, not those of what it is built on."""
    for name, value in {
        "TRANSFORMERS_VERBOSITY": "error",
        "DIFFUSERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }.items():
        os.environ.setdefault(name, value)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("geodream: %(message)s"))
    logger = logging.getLogger("geodream_lib")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
