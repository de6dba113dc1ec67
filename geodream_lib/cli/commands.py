"""What the subcommands of `geodream` do: each takes what the parser read, prints, and gives an exit code.

Heavy imports are inside the commands: `geodream --help` answers at once.
"""

import argparse
import os
import sys
import time


def generate(arguments: argparse.Namespace) -> int:
    """A prompt goes in, a mesh comes out; or the stages up to `--until`."""
    from geodream_lib.pipeline import draw_pictures, run_stage
    from geodream_lib.processes import current_processes
    from geodream_lib.run import STAGES, create_run

    processes = current_processes()
    with processes.main_first():
        run = create_run(
            arguments.prompt,
            arguments.out,
            arguments.preset,
            arguments.seed,
            arguments.image,
            dict(arguments.overrides),
            arguments.fidelity,
        )
    seconds = {}
    for stage in STAGES[: STAGES.index(arguments.until) + 1]:
        started = time.monotonic()
        if run_stage(run, stage):
            seconds[stage] = time.monotonic() - started
    if not processes.is_main:
        return 0
    if arguments.until == STAGES[-1] and not all(picture.exists() for picture in run.pictures):
        started = time.monotonic()
        draw_pictures(run)
        seconds["pictures"] = time.monotonic() - started
    made = run.products(arguments.until)[-1:] + (run.pictures if arguments.until == STAGES[-1] else [])
    for path in made:
        print(path)
    took = ", ".join(f"{stage} {value:.0f} s" for stage, value in seconds.items())
    print(took or "everything was there already; delete an artifact to have it and what follows made again")
    return 0


def one_stage(arguments: argparse.Namespace) -> int:
    """One stage of a run that was started before."""
    from geodream_lib.pipeline import run_stage
    from geodream_lib.processes import current_processes
    from geodream_lib.run import open_run

    run, stage = open_run(arguments.run), arguments.stage
    product, started = run.products(stage)[-1], time.monotonic()
    made = run_stage(run, stage)
    if not current_processes().is_main:
        return 0
    if made:
        print(product)
        print(f"{stage} {time.monotonic() - started:.0f} s")
    else:
        print(f"{product} is there already; delete it to have it and what follows made again")
    return 0


def sweep(arguments: argparse.Namespace) -> int:
    """A run for every prompt of a list; 1 if one of them failed."""
    from geodream_lib.sweep import Recipe, sweep
    from geodream_lib.yardstick import read_prompts

    recipe = Recipe(arguments.preset, arguments.seed, dict(arguments.overrides), arguments.fidelity)
    swept = sweep(read_prompts(arguments.prompts), arguments.out, recipe, arguments.ray)
    for folder in swept.folders:
        print(folder)
    for prompt, reason in swept.failed.items():
        fail(f"{prompt}: {reason}")
    if swept.failed:
        print(f"{len(swept.failed)} failed; the same command tries them again", file=sys.stderr)
    return 1 if swept.failed else 0


def reconstruct(arguments: argparse.Namespace) -> int:
    """Posed images to a mesh, without a prompt."""
    from geodream_lib.presets import load_preset
    from geodream_lib.reconstruct import reconstruct

    started = time.monotonic()
    reconstruct(arguments.views, arguments.out, load_preset(arguments.preset), arguments.fit_steps)
    print(arguments.out)
    print(f"reconstruct {time.monotonic() - started:.0f} s")
    return 0


def export(arguments: argparse.Namespace) -> int:
    """A run's mesh as files for other programs, with as many faces and texels as they want."""
    from geodream_lib.export import export_asset
    from geodream_lib.mesh import format_mesh_report
    from geodream_lib.run import open_run

    exported = export_asset(
        open_run(arguments.run),
        arguments.out,
        faces=arguments.faces,
        texture=arguments.texture,
        normal_map=arguments.normal_map,
        formats=arguments.formats,
    )
    for path in exported.files:
        print(path)
    print(format_mesh_report(exported.report))
    return 0


def evaluate(arguments: argparse.Namespace) -> int:
    """The scores of finished runs; 2 if one of them could not be measured."""
    from geodream_lib.metrics import format_table
    from geodream_lib.presets import load_preset
    from geodream_lib.storage import write_json
    from geodream_lib.yardstick import measure_runs

    measured = measure_runs(arguments.runs, load_preset(arguments.preset), arguments.reference)
    if arguments.out is not None:
        write_json(arguments.out, measured.as_json())
    if measured.evaluations:
        print(format_table([evaluation.scores for evaluation in measured.evaluations]))
    for name, reason in measured.missing.items():
        print(f"not measured by {name}: {reason}")
    for reason in measured.skipped.values():
        fail(reason)
    return 2 if measured.skipped else 0


def lab(arguments: argparse.Namespace) -> int:
    """The lab's preset on a list of prompts, measured, as a page."""
    from geodream_lib.data import data_folder
    from geodream_lib.lab.survey import report
    from geodream_lib.metrics import format_table
    from geodream_lib.yardstick import read_prompts

    prompts = read_prompts(arguments.prompts or data_folder() / "prompts" / "lab_prompts.json")
    measured = report(prompts, arguments.out, arguments.steps_fast)
    if measured.evaluations:
        print(format_table([evaluation.scores for evaluation in measured.evaluations]))
    for name in ("report.json", "report.html"):
        print(arguments.out / name)
    for name, reason in measured.skipped.items():
        fail(f"{name}: {reason}")
    return 2 if measured.skipped else 0


def plan(arguments: argparse.Namespace) -> int:
    """What a run will take, and whether this machine has it."""
    from geodream_lib.plan import check_plan, device_memory, format_plan, make_plan
    from geodream_lib.presets import load_preset

    preset = load_preset(arguments.preset, dict(arguments.overrides), arguments.fidelity)
    steps = make_plan(preset, arguments.image)
    print(format_plan(preset, steps))
    memory = device_memory(preset)
    if memory is None:
        print("\nNo CUDA device was found here to compare with.")
    else:
        check_plan(preset, steps, memory)
        print(f"\nIt fits: this device has {memory / 2**30:.1f} GB.")
    return 0


def doctor(arguments: argparse.Namespace) -> int:
    """What is installed and active, and how to get the rest."""
    from geodream_lib.doctor import format_report, report

    checks = report()
    print(format_report(checks))
    return 1 if any(check.status == "problem" for check in checks) else 0


def weights(arguments: argparse.Namespace) -> int:
    """Public networks: what there is, get, convert and check."""
    if arguments.action == "fetch":
        # Downloads of gigabytes show how far they are; it is read when the hub's library is imported.
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "0"
    from geodream_lib.weights.commands import convert_file, fetch_network, list_networks, verify_networks

    if arguments.action == "fetch":
        lines = fetch_network(arguments.name, arguments.folder, arguments.repo, arguments.offline, arguments.yes)
    elif arguments.action == "convert":
        options = (arguments.config, arguments.tokenizer, arguments.image_encoder)
        lines = convert_file(arguments.name, arguments.file, *options)
    else:
        lines = verify_networks(arguments.name) if arguments.action == "verify" else list_networks()
    while True:
        try:
            print(next(lines))
        except StopIteration as end:
            return end.value


def fail(message: str) -> int:
    """Say in one line what was wrong; the exit code of bad input."""
    print(f"geodream: error: {' '.join(message.split())}", file=sys.stderr)
    return 2
