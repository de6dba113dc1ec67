"""One step of every large computation at the size of the public networks, in float32 on the CPU, with random weights.

What these show: the code holds at full size, in the memory of one machine. They take minutes and up to 10 GB, so they
run only when asked: GEODREAM_FULL_SIZE=1 python -m pytest tests/test_full_size.py -s
Each step runs in a process of its own, so that its peak memory is its own.
"""

import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.embeddings import TimestepEmbedding
from torch import Tensor, nn

from geodream_lib.guidance import Denoiser, add_camera_lora, lora_parameters
from geodream_lib.guidance.prompts import Condition
from geodream_lib.guidance.vsd import lora_loss, vsd_gradient
from geodream_lib.presets import load_preset
from geodream_lib.views import pose_cameras
from geodream_lib.views.mvdream.model import denoise_views, view_cameras
from geodream_lib.views.mvdream.network import MultiViewUNet
from geodream_lib.views.sources import viewpoints
from geodream_lib.views.zero123plus.attention import (
    install_reference_attention,
    predict_with_reference,
    reference_tokens,
)
from geodream_lib.views.zero123plus.steps import ancestral_step, guided, network_input, noised_condition
from geodream_lib.volume import build_cost_volume, normalize_cameras, resize_volume
from geodream_lib.volume.networks import CostVolumeNetworks
from geodream_lib.weights.ldm import MVDREAM_SD21_UNET, SCHEDULER, VAE, unet_config, vae_config

LIMIT_GB = 24.0
TOKENS, WIDTH = 77, 1024  # of Stable Diffusion 2.1's text


@torch.no_grad()
def random_network(kind: type[nn.Module], **config: object) -> nn.Module:
    """`kind(**config)`, frozen: matrices that keep the size of their input, norms that only normalise.

    The libraries' own initialisation of 900 million weights takes minutes.
    """
    with torch.device("meta"):
        network = kind(**config)
    network.to_empty(device="cpu")
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            bound = math.sqrt(3 / parameter[0].numel())
            parameter.uniform_(-bound, bound)
        else:
            parameter.fill_(float(name.endswith("weight")))
    return network.requires_grad_(False).eval()


def stable_diffusion_unet(size: int) -> UNet2DConditionModel:
    """The UNet of Stable Diffusion 2.1, of MVDream and of Zero123++: 866 million parameters."""
    return random_network(UNet2DConditionModel, **unet_config(MVDREAM_SD21_UNET | {"image_size": size}))


def check(tensor: Tensor, shape: tuple[int, ...]) -> None:
    assert tensor.shape == shape, f"shape {tuple(tensor.shape)}, expected {shape}"
    assert torch.isfinite(tensor).all(), "values that are not finite"


class Report:
    """Wall and CPU seconds of named parts, and the memory before the first and at the peak."""

    def __init__(self) -> None:
        self.parts: dict[str, dict[str, float]] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        wall, cpu, before = time.perf_counter(), time.process_time(), resident_gb()
        yield
        self.parts[name] = {
            "wall_s": round(time.perf_counter() - wall, 1),
            "cpu_s": round(time.process_time() - cpu, 1),
            "before_gb": round(before, 2),
            "peak_gb": round(peak_gb(), 2),
        }


def peak_gb() -> float:
    """Largest memory of this process so far; Linux counts it in KiB, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30


def resident_gb() -> float:
    """Memory of this process now, where the system tells it."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 2**30
    except OSError:
        return peak_gb()


def vsd_step(report: Report, generator: torch.Generator) -> None:
    """VSD's gradient at 512 pixels and one update of the LoRA (eq. 9; Algorithm 1, lines 14 and 15).

    As in the paper: Stable Diffusion 2.1-base is asked, 2.1 with its LoRA and camera follows. With their 7 GB of
    weights both fit; nothing is shared.
    """
    velocity = SCHEDULER | {"prediction_type": "v_prediction"}
    with report.part("weights"):
        pretrained = Denoiser(stable_diffusion_unet(64), DDIMScheduler(**SCHEDULER))
        lora = add_camera_lora(Denoiser(stable_diffusion_unet(96), DDIMScheduler(**velocity)), generator)
    text = torch.randn(3, 1, TOKENS, WIDTH, generator=generator)
    latents, noise = torch.randn(2, 1, 4, 64, 64, generator=generator)
    camera, t = torch.randn(1, 16, generator=generator), torch.tensor([500])
    with report.part("gradient"):
        grad = vsd_gradient(pretrained, lora, latents, Condition(text[0], text[1]), text[2], camera, t, noise, 7.5)
    check(grad, (1, 4, 64, 64))
    assert grad.abs().max() > 0

    weights = lora_parameters(lora)
    before = [weight.detach().clone() for weight in weights]
    with report.part("LoRA update"):
        loss = lora_loss(lora, latents, text[2], camera, t, noise)
        loss.backward()
        torch.optim.AdamW(weights, 1e-4).step()
    check(loss, ())
    moved = sum(not torch.equal(old, new) for old, new in zip(before, weights, strict=True))
    assert moved > len(weights) / 4, f"{moved} of {len(weights)} trained tensors moved"
    assert all(torch.isfinite(weight).all() for weight in weights)


def encoder_gradient(report: Report, generator: torch.Generator) -> None:
    """The way from a latent back to the image of 512 pixels, through the frozen encoder of the VAE."""
    with report.part("weights"):
        vae = random_network(AutoencoderKL, **vae_config(VAE))
    image = torch.rand(1, 3, 512, 512, generator=generator).requires_grad_()
    with report.part("encode and back"):
        latents = vae.encode(image).latent_dist.mean
        latents.sum().backward()
    check(latents, (1, 4, 64, 64))
    check(image.grad, (1, 3, 512, 512))
    assert image.grad.abs().max() > 0


def mvdream_step(report: Report, generator: torch.Generator) -> None:
    """One of MVDream's denoising steps: four views of 256 pixels in both halves of guidance, a batch of 8."""
    with report.part("weights"):
        embedding = random_network(TimestepEmbedding, in_channels=16, time_embed_dim=1280)
        network = MultiViewUNet(stable_diffusion_unet(32), embedding)
    noise = torch.randn(4, 4, 32, 32, generator=generator)
    text, negative = torch.randn(2, 1, TOKENS, WIDTH, generator=generator).expand(-1, 4, -1, -1)
    with report.part("step"):
        steps = denoise_views(
            network, DDIMScheduler(**SCHEDULER), noise, text, negative, view_cameras(15.0), 50, 10.0, 4
        )
        latents, clean = next(steps)
    check(latents, (4, 4, 32, 32))
    check(clean, (4, 4, 32, 32))


@torch.no_grad()
def zero123plus_step(report: Report, generator: torch.Generator) -> None:
    """One of Zero123++'s steps: the reference of 512 pixels is written, six views of 320 read it, in both halves."""
    with report.part("weights"):
        unet = stable_diffusion_unet(64)
        install_reference_attention(unet)
    condition, text = (torch.randn(2, *size, generator=generator) for size in ((4, 64, 64), (TOKENS, WIDTH)))
    sigma, following = 5.0, 4.0
    sample = sigma * torch.randn(1, 4, 120, 80, generator=generator)
    with report.part("write the reference"):
        noised = noised_condition(condition, torch.randn(condition.shape, generator=generator), sigma)
        tokens = reference_tokens(unet, noised, 900.0, text)
    with report.part("read it"):
        noisy = network_input(sample, sigma).expand(2, -1, -1, -1)
        both = predict_with_reference(unet, noisy, 900.0, text, tokens)
    check(both, (2, 4, 120, 80))
    noise = torch.randn(sample.shape, generator=generator)
    check(ancestral_step(sample, guided(both, 4.0), sigma, following, noise), (1, 4, 120, 80))


def cost_volume(report: Report, generator: torch.Generator) -> None:
    """The paper's volume: 14 views of 256 pixels to 96^3 voxels, enlarged to 150^3."""
    preset = load_preset("paper")
    views, settings = preset.views, preset.volume
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = CostVolumeNetworks().eval()
    elevation = views.declared_elevation
    poses = viewpoints(views, sides=True, generator=generator)
    cameras = pose_cameras(poses, elevation, views.radius, views.fov_y, views.size)
    cameras, to_world = normalize_cameras(cameras[0], cameras, settings.near, settings.far)
    images = torch.rand(views.count, views.size, views.size, 3, generator=generator)
    with report.part("build"):
        volume = build_cost_volume(images, cameras, networks, settings.resolution, to_world, settings.pixel_center)
    check(volume.volume, (16, 96, 96, 96))
    with report.part("enlarge"):
        volume = resize_volume(volume, settings.refined_resolution)
    check(volume.volume, (16, 150, 150, 150))
    assert volume.mask.any()


STEPS: dict[str, Callable[[Report, torch.Generator], None]] = {
    "vsd": vsd_step,
    "encoder": encoder_gradient,
    "mvdream": mvdream_step,
    "zero123plus": zero123plus_step,
    "volume": cost_volume,
}


@pytest.mark.slow
@pytest.mark.skipif(
    os.environ.get("GEODREAM_FULL_SIZE") != "1", reason="takes minutes and 10 GB: set GEODREAM_FULL_SIZE=1"
)
@pytest.mark.parametrize("name", STEPS)
def test_a_step_of_full_size_fits(name: str, record_property: Callable[[str, object], None]):
    started = time.perf_counter()
    child = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    parts = json.loads(child.stdout.splitlines()[-1])
    print(f"\n{name}: {time.perf_counter() - started:.0f} s in all")
    for part, numbers in parts.items():
        print(f"  {part}: " + ", ".join(f"{key} {value}" for key, value in numbers.items()))
        record_property(f"{name}.{part}", numbers)
    peak = max(numbers["peak_gb"] for numbers in parts.values())
    assert peak < LIMIT_GB, f"{name} took {peak} GB"


if __name__ == "__main__":
    result = Report()
    STEPS[sys.argv[1]](result, torch.Generator().manual_seed(0))
    print(json.dumps(result.parts))
