"""Where the time and the memory of a cost volume go; random weights and images, real poses. Run by hand:

OMP_NUM_THREADS=2 python tests/benchmarks/bench_cost_volume.py [--lab] [--repeat N]

Full size is the released one: GeoDream's 14 views of 256 pixels, 96^3 voxels, enlarged to 150^3; --lab is a notebook's.
The first round is what a fresh process pays; of the others the fastest is told, step by step. CPU seconds of two
threads are about twice the wall's, more where threads wait for others.
"""

import argparse
import resource
import sys
import time

import torch

from geodream_lib.cameras import Cameras, orbit
from geodream_lib.views.sampling import pose_cameras, released_viewpoints
from geodream_lib.volume import CostVolumeNetworks, build_cost_volume, normalize_cameras, resize_volume

STEPS = ("pyramid of f_2D", "fuse", "compress", "project, variance", "f_3D", "lay out", "resize")


class Clock:
    """Wall and CPU seconds between marks."""

    def __init__(self) -> None:
        self.rounds: list[list[tuple[float, float]]] = []

    def start(self) -> None:
        self.rounds.append([])
        self._last = time.perf_counter(), time.process_time()

    def mark(self, *_: object) -> None:
        now = time.perf_counter(), time.process_time()
        self.rounds[-1].append((now[0] - self._last[0], now[1] - self._last[1]))
        self._last = now


def scene(lab: bool) -> tuple[Cameras, int, int]:
    """Cameras in the cube, voxels per axis, and voxels after enlarging."""
    if lab:
        azimuth = torch.arange(12) * 30.0
        return orbit(azimuth, 20 * torch.sin(azimuth), 2.75, 40.0, 128), 48, 48
    cameras = pose_cameras(released_viewpoints("text"), 0.0, 1.2, 49.13, 256)
    return normalize_cameras(cameras[0], cameras, near=0.5, far=1.8)[0], 96, 150


def measure(lab: bool, rounds: int) -> Clock:
    cameras, resolution, enlarged = scene(lab)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(len(cameras), cameras.height, cameras.width, 3, generator=generator)
    torch.manual_seed(0)
    networks = CostVolumeNetworks().eval()
    clock = Clock()
    networks.feature_net.register_forward_hook(clock.mark)
    networks.compress.register_forward_pre_hook(clock.mark)
    networks.compress.register_forward_hook(clock.mark)
    networks.regularizer.register_forward_pre_hook(clock.mark)
    networks.regularizer.register_forward_hook(clock.mark)
    for _ in range(rounds):
        clock.start()
        volume = build_cost_volume(images, cameras, networks, resolution, pixel_center=0.0)
        clock.mark()
        resize_volume(volume, enlarged)
        clock.mark()
    seen = volume.mask.float().mean()
    print(f"{len(cameras)} views of {cameras.height}, {resolution}^3 voxels, {seen:.0%} of them seen")
    return clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lab", action="store_true", help="12 views of 128 pixels, 48^3 voxels")
    parser.add_argument("--repeat", type=int, default=5, help="rounds after the first")
    arguments = parser.parse_args()
    clock = measure(arguments.lab, 1 + arguments.repeat)
    first, *others = ([sum(part) for part in zip(*steps, strict=True)] for steps in clock.rounds)
    best = min(range(len(others)), key=lambda i: others[i][0], default=-1) + 1
    total = clock.rounds[best]
    wall = sum(step[0] for step in total)
    for name, (step_wall, step_cpu) in zip(STEPS, total, strict=True):
        print(f"  {name:<18} {step_wall:6.3f} s  {step_wall / wall:4.0%}   CPU {step_cpu:6.3f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30
    print(
        f"fastest round {wall:.2f} s; first round {first[0]:.2f} s (CPU {first[1]:.2f} s); peak memory {peak:.2f} GiB"
    )
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")


if __name__ == "__main__":
    main()
