"""The native 3D prior: how near the cost volume's surface is to the true one, by exact and by predicted views."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from geodream_lib import cameras as cam
from geodream_lib.fit import fit_volume
from geodream_lib.lab.geometry import mesh as true_mesh
from geodream_lib.lab.measure.strangers import STRANGERS, shown, surface, visual_hull
from geodream_lib.lab.measure.views import ELEVATION, SPHERE, exact_views, held_out_objects
from geodream_lib.metrics.shape import RADIUS, ShapeScores, compare_shapes
from geodream_lib.presets import Preset
from geodream_lib.views import RelativePose, Zero123
from geodream_lib.views.sampling import MVDREAM_REFERENCES, pose_cameras, sample_mvdream_viewpoints, sample_viewpoints
from geodream_lib.views.sources import predict_with_zero123
from geodream_lib.volume import CostVolumeNetworks, build_cost_volume, load_cost_volume_networks, volume_mesh

Strategy = Callable[[int, torch.Generator, float], list[RelativePose]]
EXACT_VIEWS = 8
TRUE_CELLS = 128  # a side, of the true meshes
SEEDS = 5  # of the two samplings that figure 9 compares


def in_true_frame(mesh: trimesh.Trimesh, true: trimesh.Trimesh) -> ShapeScores:
    """Scores of a mesh where it lies, at the scale at which the true one's furthest vertex has distance 0.8."""
    scale = RADIUS / np.linalg.norm(true.vertices, axis=1).max()
    return compare_shapes(*(trimesh.Trimesh(m.vertices * scale, m.faces, process=False) for m in (mesh, true)))


def built(
    images: Float[Tensor, "n h w 3"], cameras: cam.Cameras, networks: CostVolumeNetworks, preset: Preset
) -> trimesh.Trimesh:
    """The surface of the volume of some views."""
    volume = build_cost_volume(images, cameras, networks, preset.volume.resolution)
    return volume_mesh(volume, networks.decoder, preset.volume.mesh_resolution)


def built_and_fitted(
    images: Float[Tensor, "n h w 3"],
    opacity: Float[Tensor, "n h w 1"],
    cameras: cam.Cameras,
    networks: CostVolumeNetworks,
    preset: Preset,
) -> tuple[trimesh.Trimesh, trimesh.Trimesh]:
    """The surface of the volume of some views, before and after the fit to them that ends `geodream reconstruct`."""
    volume = build_cost_volume(images, cameras, networks, preset.volume.resolution)
    fitted = fit_volume(volume, networks, images, opacity, cameras, preset.field)
    before, after = (volume_mesh(v, networks.decoder, preset.volume.mesh_resolution) for v in (volume, fitted))
    return before, after


def all_around(count: int, seed: int) -> cam.Cameras:
    """Exact views: evenly spread azimuths, elevations at random from -10 to 40 degrees."""
    rng = np.random.default_rng(seed)
    azimuth = 360 * (np.arange(count) + rng.random()) / count
    return cam.orbit(azimuth.tolist(), rng.uniform(-10, 40, count).tolist(), *SPHERE)


def uniformly_spread(n: int, generator: torch.Generator, reference_elevation: float) -> list[RelativePose]:
    """What the strategy of appendix F is compared with: MVDream's four views, and the rest anywhere around any of them.

    Every view is as likely to be predicted from the back as from the front, and as far from it as a view can be.
    """
    poses = [RelativePose(0.0, 0.0, f"MVDream {side}", angle) for side, angle in MVDREAM_REFERENCES.items()]
    low, high = max(-30.0, -10.0 - reference_elevation), 30.0
    for k in range(n - len(poses)):
        a, b = torch.rand(2, generator=generator).tolist()
        side = list(MVDREAM_REFERENCES.values())[k % len(MVDREAM_REFERENCES)]
        poses.append(RelativePose(360 * (k + a) / (n - 4) - 180, low + (high - low) * b, "anywhere", side))
    return poses


def measure_cost_volume(weights: Path, zero123: Path, preset: Preset, objects: int) -> dict[str, object]:
    """From exact views, without and with the fit to them, from views that Zero123 predicts from one true front, and by
    two ways to choose the views."""
    networks, predictor = load_cost_volume_networks(weights), Zero123.load(zero123)
    things = held_out_objects(objects)
    trues = [true_mesh(obj, TRUE_CELLS) for obj in things]

    def score(number: int, references: tuple[float, ...], strategy: Strategy, seed: int) -> ShapeScores:
        """Of one object, whose true views at some azimuths are what the predictor starts from."""
        generator = torch.Generator().manual_seed(seed)
        poses = strategy(preset.views.count, generator, ELEVATION)
        seen, _ = exact_views(things[number], cam.orbit(list(references), [ELEVATION] * len(references), *SPHERE))
        known = dict(zip(references, seen, strict=True))
        images = predict_with_zero123(predictor, known, poses, preset.views, ELEVATION, generator)
        return in_true_frame(built(images, pose_cameras(poses, ELEVATION, *SPHERE), networks, preset), trues[number])

    exact, fitted, predicted = [], [], []
    for number, obj in enumerate(tqdm(things, desc="exact and predicted views", unit="object")):
        cameras = all_around(EXACT_VIEWS, number)
        images, silhouettes = exact_views(obj, cameras)
        meshes = built_and_fitted(images, silhouettes[..., None].float(), cameras, networks, preset)
        for scores, mesh in zip((exact, fitted), meshes, strict=True):
            scores.append(in_true_frame(mesh, trues[number]))
        predicted.append(score(number, (0.0,), sample_viewpoints, number))
    four, sampling = tuple(MVDREAM_REFERENCES.values()), {}
    for name, strategy in (("appendix_f", sample_mvdream_viewpoints), ("uniform", uniformly_spread)):
        few = range(min(4, objects))
        means = [
            average([score(number, four, strategy, 100 * seed + number) for number in few])
            for seed in tqdm(range(SEEDS), desc=name, unit="seed")
        ]
        sampling[name] = {key: [mean[key] for mean in means] for key in ("iou", "chamfer")}
    return {
        f"exact_{EXACT_VIEWS}_views": average(exact),
        f"exact_{EXACT_VIEWS}_views_fitted": average(fitted),
        "predicted_from_a_true_front": average(predicted),
        "sampling_by_seed": sampling,
        "strangers": measure_strangers(networks, preset),
        "objects": objects,
    }


def measure_strangers(networks: CostVolumeNetworks, preset: Preset) -> dict[str, dict[str, dict[str, float]]]:
    """Shapes from outside the lab, by the volume, fit to its views or not, and by the visual hull of these views."""
    result = {}
    for number, (name, (shape, colour)) in enumerate(STRANGERS.items()):
        true, cameras = surface(shape), all_around(preset.views.count, number)
        images, opacity = shown(true, colour, cameras)
        volume, fitted = built_and_fitted(images, opacity[..., None], cameras, networks, preset)
        hull = visual_hull(opacity, cameras, preset.volume.mesh_resolution)
        meshes = {"volume": volume, "fitted": fitted, "hull": hull}
        result[name] = {kind: average([in_true_frame(mesh, true)]) for kind, mesh in meshes.items()}
    return result


def average(scores: list[ShapeScores]) -> dict[str, float]:
    """Means over objects."""
    keys = ("iou", "chamfer", "f_score", "normal_consistency")
    return {key: float(np.mean([getattr(score, key) for score in scores])) for key in keys}
