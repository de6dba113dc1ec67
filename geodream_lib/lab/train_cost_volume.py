"""Train the lab's cost-volume networks: f_2D, f_3D, f_g by eq. 4 and the exact SDF, f_t by eq. 4."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from geodream_lib import cameras as cam
from geodream_lib.lab.bench import Bench
from geodream_lib.lab.datasets import (
    REFERENCE_VIEWS,
    TURNTABLE_FOV,
    TURNTABLE_RADIUS,
    load_shards,
    make_shards,
    render_solids,
    render_turntables,
    world_name,
)
from geodream_lib.lab.networks import IMAGE_SIZE, make_cost_volume_networks
from geodream_lib.lab.training import Budget, train
from geodream_lib.precision import fast_autocast
from geodream_lib.storage import atomic_write, fingerprint
from geodream_lib.views.zero123.model import Zero123, pose_token
from geodream_lib.volume.blending import SourceViews
from geodream_lib.volume.cost_volume import predict_volume
from geodream_lib.volume.decoder import query_sdf_and_gradient
from geodream_lib.volume.networks import (
    CostVolumeNetworks,
    load_cost_volume_networks,
    save_cost_volume_networks,
)
from geodream_lib.volume.prior_render import render_prior
from geodream_lib.volume.projection import affine_matrices

RESOLUTION = 48  # voxels per axis; 96 in the released networks
RAYS = 128
BLENDED_VIEWS = 4  # views f_t blends colours from; all of them would cost more than the volume itself
POSE_ERROR = 2.0  # degrees, sigma: what true views are made wrong by while there is no Zero123 to predict them
VALIDATION_OBJECTS = 32
PREDICTED_SHARE = 0.5  # of the training steps that see imperfect views
STRANGER_SHARE = 0.4  # of those, how many have one view of another object among them
PREDICTED_OBJECTS = 256  # whose views Zero123 predicts
PREDICTION_STEPS = 10  # of DDIM; what is wrong with a prediction shows after few


@dataclass(frozen=True)
class Turntables:
    """Views `[objects, views, 3, h, w]` in 0..1, their cameras' angles in degrees, exact SDF samples with normals."""

    images: Tensor
    azimuth: Tensor
    elevation: Tensor
    points: Tensor
    sdf: Tensor
    normals: Tensor


def load_turntables(paths: list[Path], device: torch.device) -> Turntables:
    """Turntable shards on `device`; images stay bytes until they are used."""
    arrays = load_shards(paths, ("images", "azimuth", "elevation", "points", "sdf", "normals"))
    tensors = {key: torch.from_numpy(value).to(device) for key, value in arrays.items()}
    tensors["images"] = tensors["images"].permute(0, 1, 4, 2, 3)
    return Turntables(**tensors)


@torch.no_grad()
def predict_turntables(zero123: Zero123, truth: Turntables, count: int, seed: int) -> Tensor:
    """The first `count` objects, every view but the first predicted by Zero123 from the first; uint8, like `images`.

    The cost volume is built from predictions later, so it must learn what is wrong with them.
    """
    generator = torch.Generator(truth.images.device).manual_seed(seed)
    result = truth.images[:count].clone()
    views = result.shape[1]
    for start in tqdm(range(0, count, 16), desc="predicting views", unit="batch"):
        part = slice(start, min(start + 16, count))
        reference = truth.images[part, 0].permute(0, 2, 3, 1).float() / 255
        angles = [angle[part] - angle[part, :1] for angle in (truth.azimuth, truth.elevation)]
        pose = pose_token(*(angle.flatten() for angle in angles), torch.zeros_like(angles[0]).flatten())
        with fast_autocast(result.device):
            embedding, latent = zero123.conditions(reference)
            token = zero123.clip_camera_projection(embedding.repeat_interleave(views, 0), pose)
            images = zero123.sample(
                token,
                latent.repeat_interleave(views, 0),
                steps=PREDICTION_STEPS,
                guidance=2.0,
                eta=0.0,
                generator=generator,
            )
        predicted = (images.clamp(0, 1) * 255).round().byte().permute(0, 3, 1, 2).unflatten(0, (-1, views))
        result[part, 1:] = predicted[:, 1:]
    return result


def cached_predictions(
    cache: Path, zero123: Path, truth: Turntables, count: int, seed: int, device: torch.device
) -> Tensor:
    """`predict_turntables` of the network in the folder `zero123`, kept for a training that goes on.

    The names of the world and of the network are added to the name `cache`: another one of either predicts anew.
    """
    made_by = fingerprint(zero123 / "unet/diffusion_pytorch_model.safetensors")
    cache = cache.with_name(f"{cache.name}-{world_name()}-{count}-{made_by}.pt")
    if not cache.exists():
        cache.parent.mkdir(parents=True, exist_ok=True)
        predicted = predict_turntables(Zero123.load(zero123, device), truth, count, seed).cpu()
        with atomic_write(cache) as temporary:
            torch.save(predicted, temporary)
    return torch.load(cache, weights_only=True).to(truth.images.device)


def turntable_cameras(azimuth: Tensor, elevation: Tensor) -> cam.Cameras:
    """The cameras of turntable views; angles in degrees."""
    return cam.orbit(azimuth.cpu(), elevation.cpu(), TURNTABLE_RADIUS, TURNTABLE_FOV, IMAGE_SIZE).to(azimuth.device)


def sdf_loss(
    networks: CostVolumeNetworks, volume: Tensor, points: Tensor, truth: Tensor, normals: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean |s - s*|, distances beyond 0.3 counted as 0.3 (far away only the sign matters), and mean |ds/dx - n*|^2.

    The second term, within 0.1 of the surface, holds the eikonal equation and more: s is interpolated between voxels,
    and without it the surface ripples with their period. Elsewhere the gradient's length alone is asked to be 1.
    """
    predicted, gradient = query_sdf_and_gradient(volume, networks.decoder, points)
    error = (predicted.clamp(-0.3, 0.3) - truth.clamp(-0.3, 0.3)).abs()
    error = error + 0.1 * (predicted - truth).abs()
    slope = (gradient - normals).square().sum(dim=-1)
    eikonal = (gradient.norm(dim=-1) - 1).square()
    return error.mean(), torch.where(truth.abs() < 0.1, slope, eikonal).mean()


def train_cost_volume(
    networks: CostVolumeNetworks,
    paths: list[Path],
    held_out_paths: list[Path],
    zero123: Path | None,
    *,
    budget: Budget,
    folder: Path,
    device: torch.device,
) -> CostVolumeNetworks:
    """One object per step (batch statistics are per object, as at inference), 5 to 10 of its views, eq. 4 on one more.

    Besides the paper's rendering loss the SDF is supervised directly: in the lab it is known exactly, and a step then
    teaches every point of the cube instead of a few hundred rays. Half of the steps see imperfect views: predicted by
    the network in the folder `zero123`, or without one true ones with wrong poses; and some of them one view of another
    object, as a multi-view model draws when it mistakes the reference.
    """
    truth, test = load_turntables(paths, device), load_turntables(held_out_paths, device)
    objects, views = truth.azimuth.shape
    predicted, test_predicted = truth.images[:0], test.images[:0]
    if zero123 is not None:
        count = min(PREDICTED_OBJECTS, objects)
        predicted = cached_predictions(folder / "predicted", zero123, truth, count, 7, device)
        test_predicted = cached_predictions(folder / "predicted_held_out", zero123, test, VALIDATION_OBJECTS, 8, device)

    def build(
        networks: CostVolumeNetworks, data: Turntables, images: Tensor, obj: int, chosen: Tensor, error: Tensor
    ) -> tuple[Tensor, Tensor, SourceViews]:
        cameras = turntable_cameras(data.azimuth[obj, chosen] + error[0], data.elevation[obj, chosen] + error[1])
        source = images[chosen].float() / 255
        affine = affine_matrices(cameras)
        with fast_autocast(device):
            volume, mask, features = predict_volume(networks, source, affine, RESOLUTION)
        few = slice(BLENDED_VIEWS)
        sources = SourceViews(source[few], features[few].float(), affine[few], cameras.positions[few])
        return volume.float(), mask, sources

    def loss(model: nn.ModuleDict, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        networks = model["networks"]
        draw = {"generator": generator, "device": device}
        imperfect = torch.rand((), **draw).item() < PREDICTED_SHARE
        use_predicted = imperfect and len(predicted) > 0
        obj = torch.randint(len(predicted) if use_predicted else objects, (), **draw).item()
        order = torch.randperm(views, **draw)
        count = torch.randint(5, 11, (), **draw).item()
        chosen, target = order[:count], order[count]
        images = predicted[obj] if use_predicted else truth.images[obj]
        if imperfect and torch.rand((), **draw).item() < STRANGER_SHARE:
            images = images.clone()
            images[chosen[0]] = truth.images[torch.randint(objects, (), **draw), chosen[0]]
        error = torch.randn(2, count, **draw) * (POSE_ERROR if imperfect and not use_predicted else 0.0)
        volume, mask, sources = build(networks, truth, images, obj, chosen, error)
        index = torch.randint(truth.points.shape[1], (4096,), **draw)
        samples = (getattr(truth, key)[obj, index].float() for key in ("points", "sdf", "normals"))
        distance, slope = sdf_loss(networks, volume, *samples)

        camera = turntable_cameras(truth.azimuth[obj, target][None], truth.elevation[obj, target][None])
        origins, directions = cam.rays(camera)
        pixels = torch.randint(IMAGE_SIZE * IMAGE_SIZE, (RAYS,), **draw)
        rendered = render_prior(
            networks,
            volume,
            mask,
            sources,
            origins.reshape(-1, 3)[pixels],
            directions.reshape(-1, 3)[pixels],
            near=TURNTABLE_RADIUS - 1.0,
            far=TURNTABLE_RADIUS + 1.0,
            samples=24,
            importance=24,
            generator=generator,
            least_weight=1e-3,
        )
        color = truth.images[obj, target].reshape(3, -1).T[pixels].float() / 255
        picture = functional.mse_loss(rendered.color, color)
        parts = {"sdf": distance.item(), "slope": slope.item(), "color": picture.item()} if obj % 64 == 0 else {}
        return 5 * distance + 0.1 * slope + picture, parts

    @torch.no_grad()
    def validate(model: nn.ModuleDict) -> dict[str, float]:
        scores = {"held_out_iou": test.images}
        if zero123 is not None:
            scores["held_out_iou_predicted"] = test_predicted
        results = {}
        for name, images in scores.items():
            ious = []
            for obj in range(min(VALIDATION_OBJECTS, len(images))):
                chosen = torch.arange(REFERENCE_VIEWS - 1, views, device=device)
                volume, _, _ = build(
                    model["networks"], test, images[obj], obj, chosen, torch.zeros(2, 1, device=device)
                )
                inside = query_sdf_and_gradient(volume, model["networks"].decoder, test.points[obj].float())[0] < 0
                true = test.sdf[obj] < 0
                ious.append((inside & true).sum() / (inside | true).sum())
            results[name] = torch.stack(ious).mean().item()
        results["inverse_deviation"] = model["networks"].inverse_deviation.item()
        return results

    model = nn.ModuleDict({"networks": networks})
    return train("cost_volume", model, loss, budget=budget, folder=folder, device=device, validate=validate)["networks"]


def make_cost_volume(bench: Bench) -> None:
    """Train the cost volume's networks on turntables, seen truly and as the Zero123 that is there predicts them.

    A quarter of the objects are solids without a name, which are only seen truly.
    """
    folder, zero123 = bench.out / "cost_volume", bench.out / "zero123"
    weights = folder / "model.safetensors"
    networks = train_cost_volume(
        load_cost_volume_networks(weights) if bench.warm_start else make_cost_volume_networks(),
        [
            *make_shards(render_turntables, bench.data, bench.turntables),
            *make_shards(render_solids, bench.data, max(1, bench.turntables // 3)),
        ],
        make_shards(render_turntables, bench.data, 1, split="held_out"),
        zero123 if zero123.exists() else None,
        budget=bench.budget,
        folder=bench.folder("cost_volume"),
        device=bench.device,
    )
    save_cost_volume_networks(weights, networks.half())
    bench.keep_curve("cost_volume", folder)
