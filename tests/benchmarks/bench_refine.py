"""What a step of stage 3 costs on a CPU: the lab's red mushroom, two views of 64 pixels. Run by hand:

OMP_NUM_THREADS=2 NUMBA_NUM_THREADS=2 python tests/benchmarks/bench_refine.py [--rounds N] [--cost-law [--plot FILE]]

1. The field step (render and back) against the plain renderer of plain_field.py, and how far both pictures are from one
   with eight times as many sections.
2. Whole steps under VSD and SDS: render, encode, ask the networks, go back, step every optimiser.

The plain steps run in a process of their own, with the system's memory allocator; the library's run with the settings
that `geodream` gives it. Steps of all kinds take turns, so that what else runs on the machine is felt by all.

With --cost-law instead: how the field step grows with rays, views, sections and voxels (see cost_law.py).
"""

import argparse
import multiprocessing
import os
import resource
import statistics
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from geodream_lib.cli import ALLOCATOR

Seconds = dict[str, float]


def work(pipe: Connection) -> None:
    """A process that takes the steps it is asked for by name, and knows the pictures' errors and its own memory."""
    import torch
    from refine_steps import STEPS, picture_errors

    steps = {}
    while (asked := pipe.recv()) != "stop":
        if asked == "errors":
            pipe.send(picture_errors())
        elif asked == "memory":
            unit = 1 if sys.platform == "darwin" else 1024
            pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30)
        elif asked == "torch":
            cpu = torch.backends.cpu.get_cpu_capability()
            pipe.send(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {cpu}")
        else:
            if asked not in steps:
                steps[asked] = STEPS[asked]()
            pipe.send(steps[asked]())


class Worker:
    """Such a process, with more in its environment."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.pipe, theirs = multiprocessing.get_context("spawn").Pipe()
        before = dict(os.environ)
        os.environ.update(environment)
        self.process = multiprocessing.get_context("spawn").Process(target=work, args=(theirs,), daemon=True)
        self.process.start()
        os.environ.clear()
        os.environ.update(before)

    def ask(self, what: str) -> object:
        self.pipe.send(what)
        return self.pipe.recv()

    def stop(self) -> None:
        self.pipe.send("stop")
        self.process.join()


def take_turns(workers: dict[str, Worker], rounds: dict[str, int]) -> dict[str, list[Seconds]]:
    """So many rounds of each kind of step, after one that is not counted, evenly mixed."""
    seconds, total = {kind: [] for kind in rounds}, max(rounds.values())
    for kind in rounds:
        workers[kind].ask(kind)
    for i in range(total):
        for kind, count in rounds.items():
            if (i + 1) * count // total > i * count // total:
                seconds[kind].append(workers[kind].ask(kind))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="steps under VSD and SDS; of the field a third of it")
    parser.add_argument("--cost-law", action="store_true", help="how the field step grows, instead of the table")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="picture of the cost law")
    arguments = parser.parse_args()
    if arguments.cost_law:
        from cost_law import format_law, measure_law, plot_law

        law = measure_law()
        print(format_law(law))
        if arguments.plot is not None:
            plot_law(law, arguments.plot)
        return
    plain, ours = Worker({}), Worker(ALLOCATOR)
    workers = {"plain": plain, "field": ours, "VSD": ours, "SDS": ours}
    few, many = max(1, arguments.rounds // 3), arguments.rounds
    seconds = take_turns(workers, {"plain": few, "field": few, "VSD": many, "SDS": many})
    median = {kind: statistics.median(sum(step.values()) for step in steps) for kind, steps in seconds.items()}
    errors = ours.ask("errors")
    print(f"field step, plain  {median['plain']:6.3f} s   {errors[1]:.2f} dB   peak {plain.ask('memory'):.2f} GiB")
    print(f"field step         {median['field']:6.3f} s   {errors[0]:.2f} dB")
    print(f"                   {median['plain'] / median['field']:6.1f} times as fast")
    for kind in ("VSD", "SDS"):
        print(f"{kind} step           {median[kind]:6.3f} s")
        for part in seconds[kind][-1]:
            share = statistics.median(step[part] for step in seconds[kind])
            print(f"  {part:<24} {share:6.3f} s  {share / median[kind]:4.0%}")
    print(f"peak {ours.ask('memory'):.2f} GiB; {ours.ask('torch')}")
    for worker in (plain, ours):
        worker.stop()


if __name__ == "__main__":
    main()
