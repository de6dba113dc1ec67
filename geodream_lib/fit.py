"""Stage 2 on photographs, continued: the volume of one object, moved until it shows what the views show.

A cost volume is what networks that know objects in general make of some views in one pass. Where the views are true,
they say more about this object. SparseNeuS (Long et al. 2022), whose networks stage 2 has, ends by such a fine-tuning.
Text-to-3D has predicted views that contradict each other: there the guidance of stage 3 moves the same volume instead.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from geodream_lib.cameras import Cameras
from geodream_lib.field import HashEncoding, NeuSField, occupancy_grid, render, solid_background
from geodream_lib.presets import Field
from geodream_lib.volume import CostVolume, CostVolumeNetworks

STEPS = 300
VIEWS, SIZE = 2, 64  # rendered in a step; a larger view's pixels take turns
COLOUR_RATES = {"encoding": 1e-2, "texture": 3e-3}  # as in stage 3


@torch.enable_grad()  # also for those who measure without
def fit_volume(
    volume: CostVolume,
    networks: CostVolumeNetworks,
    images: Float[Tensor, "n h w 3"],
    alpha: Float[Tensor, "n h w 1"],
    cameras: Cameras,
    settings: Field,
    steps: int = STEPS,
    rate: float = 3e-3,
) -> CostVolume:
    """V of one object after steps down the error of its colours and outlines, rendered by NeuS (eqs. 7 and 8).

    The geometry decoder stays as it is; colours are learned beside V, to see where views disagree, and forgotten.

    Args:
        volume: of `build_cost_volume` from these views; left as it is.
        images: on white, 0..1; their side a multiple of 64 pixels, or smaller.
        alpha: their outlines, 0..1.
        cameras: of the views, in the frame of the volume's cube [-1, 1]^3.
        settings: how the field is rendered and its colours are encoded.
        steps: of Adam, each on two views.
        rate: of V, falling to a tenth in the second half.
    """
    device, generator = volume.volume.device, torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoding = HashEncoding(settings.levels, 2, settings.log2_table, settings.base_resolution, settings.growth)
        sharpness = networks.inverse_deviation.item() * settings.sharpening
        field = NeuSField(volume.volume, networks.decoder, sharpness, encoding).to(device)
    groups, rates = field.parameter_groups(), {"volume": rate} | COLOUR_RATES
    optimizer = torch.optim.Adam([{"params": groups[name]} for name in rates], betas=(0.9, 0.99), eps=1e-15)
    white = solid_background(torch.ones(3, device=device))
    stride = max(1, cameras.width // SIZE)
    for step in tqdm(range(steps), desc="fit", unit="step", disable=None):
        if step % settings.occupancy_steps == 0:
            occupancy = occupancy_grid(field, resolution=settings.occupancy_resolution)
        chosen = torch.randperm(len(cameras), generator=generator)[:VIEWS]
        column, row = torch.randint(stride, (2,), generator=generator).tolist()
        pixels = chosen, slice(row, None, stride), slice(column, None, stride)
        seen = render(
            field,
            cameras[chosen].every(stride, column, row),
            samples_per_ray=settings.samples_per_ray,
            background=white,
            occupancy=occupancy,
            generator=generator,
            memory_gib=settings.memory_gib,
        )
        colour = (seen.rgb - images[pixels]).square().mean()
        outline = (seen.opacity - alpha[pixels][..., 0]).square().mean()
        for group, base in zip(optimizer.param_groups, rates.values(), strict=True):
            group["lr"] = base * _falling(step / steps)
        optimizer.zero_grad(set_to_none=True)
        (colour + outline).backward()
        optimizer.step()
    return replace(volume, volume=field.volume.detach())


def _falling(done: float) -> float:
    """Factor on a rate, by the part of the steps that is done: 1 in the first half, then down to a tenth."""
    return min(1.0, 0.1 + 1.8 * (1 - done))
