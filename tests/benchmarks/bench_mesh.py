"""What stage 4 costs: extraction, visibility against embree, the full differentiable step, and how both grow. By hand:

pip install embreex && OMP_NUM_THREADS=2 python tests/benchmarks/bench_mesh.py [--plot FILE.png] [--repeat N]

The mesh is a ball with bumps from a DMTet of as many layers as give the number of faces, the camera one from which it
covers 37 per cent of the picture, the texture field the lab's. Everything is measured once in every round, one after
another, so that what else the machine does meets all alike; the fastest round is told, and the median. CPU seconds are
those of all threads together: on a machine that is busy with something else they say more than the wall clock, so the
growth is fitted to them.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from torch import Tensor

from geodream_lib.cameras import orbit, rays
from geodream_lib.field import HashEncoding, TextureDecoder
from geodream_lib.mesh import DMTet, FlexiCubes, render_normals, render_texture
from geodream_lib.mesh.visibility import visible_faces
from geodream_lib.presets import load_preset

GROWING = ("visibility", "embree, rays", "normals, forward and back")
LAYERS = {5_000: 26, 10_000: 38, 20_000: 54, 40_000: 76, 80_000: 106}  # of the DMTet, by faces
SIZES = (128, 256, 512, 1024)
GOALS = {
    "marching tetrahedra, 128 layers": 1.5,
    "normals, forward and back, 40000 faces, 512 px": 0.6,
    "normals, forward and back, 40000 faces, 1024 px": 2.0,
    "texture, forward and back, 40000 faces, 512 px": 0.6,
    "texture, forward and back, 40000 faces, 1024 px": 2.0,
}
FASTER_THAN_EMBREE = 3.0


@dataclass
class Work:
    """Something to be measured, and the seconds of its rounds: wall, CPU."""

    name: str
    run: Callable[[], object]
    rounds: list[tuple[float, float]] = field(default_factory=list)

    def measure(self) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        self.run()
        self.rounds.append((time.perf_counter() - wall, time.process_time() - cpu))

    @property
    def cpu(self) -> float:
        """Least CPU seconds of a round."""
        return min(cpu for _, cpu in self.rounds)


def ball(points: Tensor) -> Tensor:
    return points.norm(dim=-1) - 0.6 + 0.06 * (9 * points).sin().prod(-1)


@dataclass
class Scene:
    """One camera before a mesh."""

    vertices: Tensor
    faces: Tensor
    size: int

    def __post_init__(self) -> None:
        self.cameras = orbit([30.0], 20.0, 2.5, 40.0, self.size)

    def visibility(self) -> Tensor:
        w2c = self.cameras.w2c
        local = torch.einsum("nij,vj->nvi", w2c[:, :3, :3], self.vertices) + w2c[:, None, :3, 3]
        return visible_faces(local, self.cameras.intrinsics, self.faces, self.size, self.size)[0]

    def normals(self) -> None:
        vertices = self.vertices.clone().requires_grad_()
        render_normals(self.cameras, vertices, self.faces, torch.zeros(1, 3)).square().mean().backward()

    def texture(self, color: Callable[[Tensor], Tensor]) -> None:
        vertices = self.vertices.clone().requires_grad_()
        render_texture(self.cameras, vertices, self.faces, color, torch.zeros(1, 3)).square().mean().backward()


class Embree:
    """The first face that the ray of every pixel meets, by embree as embreex brings it."""

    def __init__(self, scene: Scene):
        origins, directions = (part.reshape(-1, 3).contiguous().numpy() for part in rays(scene.cameras))
        self.origins, self.directions, self.size = np.ascontiguousarray(origins), directions, scene.size
        self.triangles = scene.vertices[scene.faces].numpy()

    def build(self) -> None:
        """The scene of a mesh that has moved; embree builds its tree before the first ray."""
        self.scene = EmbreeScene()
        TriangleMesh(self.scene, self.triangles)
        self.scene.run(self.origins[:1], self.directions[:1])

    def cast(self) -> Tensor:
        """All rays in one call, in float32, which is how trimesh asks."""
        return torch.from_numpy(self.scene.run(self.origins, self.directions)).reshape(self.size, self.size)


def texture_field() -> Callable[[Tensor], Tensor]:
    settings = load_preset("lab").field
    encoding = HashEncoding(settings.levels, 2, settings.log2_table, settings.base_resolution, settings.growth)
    decoder = TextureDecoder(encoding.dimension)
    return lambda points: decoder(encoding((points + 1) / 2), points)


def make_scenes() -> dict[tuple[int, int], Scene]:
    """By faces and pixels: all numbers of faces at 512 pixels, all sizes at 40000 faces."""
    scenes = {}
    for faces, layers in LAYERS.items():
        mesh = [part.detach() for part in DMTet.from_sdf(ball, layers).mesh()]
        for size in SIZES if faces == 40_000 else (512,):
            scenes[faces, size] = Scene(*mesh, size)
    return scenes


def make_works(scenes: dict[tuple[int, int], Scene]) -> dict[str, Work]:
    color, works = texture_field(), []
    dmtet, flexicubes = DMTet.from_sdf(ball, 128), FlexiCubes.from_sdf(ball, 128)
    works.append(Work("marching tetrahedra, 128 layers", dmtet.mesh))
    works.append(Work("FlexiCubes, 128 cubes", flexicubes.mesh))
    for (faces, size), scene in scenes.items():
        what = f"{faces} faces, {size} px"
        embree = Embree(scene)
        works.append(Work(f"embree, tree, {what}", embree.build))
        works.append(Work(f"embree, rays, {what}", embree.cast))
        works.append(Work(f"visibility, {what}", scene.visibility))
        works.append(Work(f"normals, forward and back, {what}", scene.normals))
        if faces == 40_000:
            works.append(Work(f"texture, forward and back, {what}", lambda scene=scene: scene.texture(color)))
    return {work.name: work for work in works}


def exponent(scales: list[float], seconds: list[float]) -> float:
    """Of the power law that fits best."""
    return float(np.polyfit(np.log(scales), np.log(seconds), 1)[0])


def growth(works: dict[str, Work], what: str) -> dict[str, tuple[list[float], list[float]]]:
    """CPU seconds against faces at 512 pixels, and against pixels at 40000 faces."""
    by_faces = [works[f"{what}, {faces} faces, 512 px"].cpu for faces in LAYERS]
    by_pixels = [works[f"{what}, 40000 faces, {size} px"].cpu for size in SIZES]
    return {"faces": (list(LAYERS), by_faces), "pixels": ([size**2 for size in SIZES], by_pixels)}


def report(works: dict[str, Work], scenes: dict[tuple[int, int], Scene]) -> None:
    """What has a goal, what it is compared with, and how the cost grows."""
    largest = "40000 faces, 1024 px"
    print(f"{'':<52} fastest  median     CPU    goal")
    for work in works.values():
        if work.name in GOALS or largest in work.name or work.name.startswith("FlexiCubes"):
            wall = [seconds for seconds, _ in work.rounds]
            goal = f"{GOALS[work.name]:6.1f}s" if work.name in GOALS else ""
            print(f"{work.name:<52} {min(wall):6.3f}s {statistics.median(wall):6.3f}s {work.cpu:6.3f}s {goal}")
    tree, cast, ours = (works[f"{what}, {largest}"].rounds for what in ("embree, tree", "embree, rays", "visibility"))
    with_tree = statistics.median((t[0] + c[0]) / o[0] for t, c, o in zip(tree, cast, ours, strict=True))
    without = statistics.median(c[0] / o[0] for c, o in zip(cast, ours, strict=True))
    embree = Embree(scenes[40_000, 1024])
    embree.build()
    agreement = (embree.cast() == scenes[40_000, 1024].visibility()).float().mean()
    print(
        f"visibility of {largest}: embree takes {with_tree:.1f} times as long with its tree, {without:.1f} times "
        f"without (medians of the rounds, goal {FASTER_THAN_EMBREE}); same face in {agreement:.3%} of the pixels"
    )
    for what in GROWING:
        for scale, (scales, seconds) in growth(works, what).items():
            listed = " ".join(f"{x:.4g}:{y:.3f}s" for x, y in zip(scales, seconds, strict=True))
            print(f"{what} grows with {scale}^{exponent(scales, seconds):.2f}: {listed}")


def plot(works: dict[str, Work], path: str) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for what in GROWING:
        for axis, (scale, values) in zip(axes, growth(works, what).items(), strict=True):
            axis.loglog(*values, marker="o", label=f"{what}: {scale}$^{{{exponent(*values):.2f}}}$")
    axes[0].set_xlabel("faces, at 512² pixels")
    axes[0].set_xticks(list(LAYERS), [f"{faces}" for faces in LAYERS])
    axes[1].set_xlabel("pixels, at 40000 faces")
    axes[1].set_xticks([size**2 for size in SIZES], [f"{size}²" for size in SIZES])
    for axis in axes:
        axis.set_xticks([], minor=True)
        axis.grid(True, which="both", alpha=0.3)
        axis.legend()
    axes[0].set_ylabel("CPU seconds")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3, help="rounds after the first, which compiles the kernels")
    parser.add_argument("--plot", metavar="FILE", help="draw cost against faces and pixels")
    arguments = parser.parse_args()
    scenes = make_scenes()
    works = make_works(scenes)
    for _ in range(1 + arguments.repeat):
        for work in works.values():
            work.measure()
    for work in works.values():
        del work.rounds[0]
    report(works, scenes)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    if arguments.plot:
        plot(works, arguments.plot)


if __name__ == "__main__":
    main()
