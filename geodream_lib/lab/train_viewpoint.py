"""Train the lab's viewpoint evaluator: from where around an object was its picture taken?"""

from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from geodream_lib.lab.augment import disturb
from geodream_lib.lab.bench import Bench
from geodream_lib.lab.datasets import load_shards, make_shards
from geodream_lib.lab.evaluator_data import render_bearings
from geodream_lib.lab.evaluator_networks import make_viewpoint_network
from geodream_lib.lab.training import Budget, train
from geodream_lib.metrics.viewpoint import BINS, FRONT, Viewpoint
from geodream_lib.precision import fast_autocast


def make_viewpoint(bench: Bench) -> None:
    """Render objects with a front from all around, train on them, write `viewpoint/`."""
    keys = ("images", "azimuth")
    known, asked = (
        {key: torch.from_numpy(value) for key, value in load_shards(paths, keys).items()}
        for paths in (
            make_shards(render_bearings, bench.data, bench.turntables),
            make_shards(render_bearings, bench.data, 1, "test"),
        )
    )
    out = bench.out / "viewpoint"
    network = train_viewpoint(
        Viewpoint.load(out) if bench.warm_start else make_viewpoint_network(),
        known["images"],
        known["azimuth"],
        asked["images"],
        asked["azimuth"],
        budget=bench.budget,
        folder=bench.folder("viewpoint"),
        device=bench.device,
    )
    network.half().save(out)
    bench.keep_curve("viewpoint", out)


def train_viewpoint(
    network: Viewpoint,
    images: UInt8[Tensor, "n h w 3"],
    azimuth: Float[Tensor, " n"],
    asked_images: UInt8[Tensor, "m h w 3"],
    asked_azimuth: Float[Tensor, " m"],
    *,
    budget: Budget,
    folder: Path,
    device: torch.device,
) -> Viewpoint:
    """Train on pictures and their azimuth in degrees; log the median error, and how often a front is told as one."""
    images, target = images.to(device), soft_bins(azimuth).to(device)

    def loss(model: nn.ModuleDict, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        index = torch.randint(len(images), (budget.batch_size,), generator=generator, device=device)
        pixels = network.prepare(disturb(images[index], generator))
        with fast_autocast(device):
            logits = model["viewpoint"](pixels)
        return functional.cross_entropy(logits.float(), target[index]), {}

    def validate(model: nn.ModuleDict) -> dict[str, float]:
        pictures = asked_images.float() / 255
        error = angle_between(network.predict(pictures)[0].cpu(), asked_azimuth)
        said, is_front = network.frontness(pictures).cpu() > 0.5, angle_between(asked_azimuth, torch.zeros(())) < FRONT
        return {"median_error": error.median().item(), "front_told": (said == is_front).float().mean().item()}

    model = nn.ModuleDict({"viewpoint": network}).requires_grad_(True)
    train("viewpoint", model, loss, budget=budget, folder=folder, device=device, validate=validate)
    return network.eval()


def soft_bins(azimuth: Float[Tensor, " n"]) -> Float[Tensor, "n bins"]:
    """The distribution that stands for one angle in degrees: the two bins beside it, the nearer one more."""
    place = azimuth.remainder(360.0) * (BINS / 360)
    first = place.floor()
    share = place - first
    distribution = torch.zeros(len(azimuth), BINS, device=azimuth.device)
    for neighbour, weight in ((first, 1 - share), (first + 1, share)):
        distribution.scatter_add_(1, neighbour.long().remainder(BINS)[:, None], weight[:, None])
    return distribution


def angle_between(one: Float[Tensor, "..."], other: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Degrees from one direction to the other, 0 to 180; shapes are broadcast."""
    return ((one - other + 180).remainder(360.0) - 180).abs()
