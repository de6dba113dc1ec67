"""SDS and VSD: what the gradients must be when the networks are known exactly, and whom they reach."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import nn

from geodream_lib.cameras import orbit
from geodream_lib.guidance import (
    Denoiser,
    LatentDiffusion,
    Renders,
    SDSGuidance,
    ViewPrompts,
    VSDGuidance,
    add_camera_lora,
    copy_lora,
    encode_prompts,
    load_denoiser,
    load_diffusion,
    lora_parameters,
)
from geodream_lib.guidance.prompts import Condition
from geodream_lib.guidance.sds import as_loss, draw_timesteps, sds_gradient, timestep_bounds
from geodream_lib.guidance.vsd import vsd_gradient

pytestmark = pytest.mark.needs_golden("vsd")
CAMERAS = orbit([0.0, 120.0], 15.0, 1.2, 50.0, size=16)
VIEWS = (CAMERAS.c2w, torch.tensor([0.0, 120.0]), torch.tensor([15.0, 15.0]))


@pytest.fixture(scope="module")
def diffusion(golden: Path) -> LatentDiffusion:
    return load_diffusion(golden / "vsd" / "sd_base")


@pytest.fixture
def images(diffusion: LatentDiffusion) -> torch.Tensor:
    size = diffusion.image_size
    return torch.rand(2, size, size, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_vsd(diffusion: LatentDiffusion, **options: float) -> VSDGuidance:
    prompts = encode_prompts(diffusion, ViewPrompts("a red fox"))
    return VSDGuidance(diffusion, add_camera_lora(diffusion.denoiser, seeded()), prompts, **options)


class PointScore(UNet2DConditionModel):
    """The exact noise prediction of a world that holds one latent: (x_t - alpha x) / sigma, whatever the text."""

    def __init__(self, point: torch.Tensor, alphas_cumprod: torch.Tensor) -> None:
        nn.Module.__init__(self)
        self.point, self.alphas_cumprod = point, alphas_cumprod
        self.conv_in = nn.Conv2d(1, 1, 1)

    def forward(self, noisy: torch.Tensor, t: torch.Tensor, **condition: torch.Tensor | None) -> SimpleNamespace:
        alphabar = self.alphas_cumprod[t].view(-1, 1, 1, 1)
        return SimpleNamespace(sample=(noisy - alphabar.sqrt() * self.point) / (1 - alphabar).sqrt())


def point_denoiser(point: torch.Tensor) -> Denoiser:
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    return Denoiser(PointScore(point, scheduler.alphas_cumprod), scheduler)


@pytest.mark.parametrize("weighting", ["sds", "uniform", "fantasia3d"])
def test_sds_pulls_the_render_to_the_one_image_the_prior_knows(weighting: str) -> None:
    """With the exact score of a point the noise cancels and the gradient is w alpha / sigma (x - point)."""
    point, latents = torch.randn(3, 4, 8, 8, generator=seeded()).split([1, 2])
    pretrained, t = point_denoiser(point), torch.tensor([100, 900])
    alpha, sigma = pretrained.alpha_sigma(t)
    weight = {"sds": sigma**2, "uniform": torch.ones_like(sigma), "fantasia3d": alpha * sigma**2}[weighting]
    text = torch.zeros(2, 77, 8)
    for seed in (1, 2):
        noise = torch.randn(latents.shape, generator=seeded(seed))
        grad = sds_gradient(pretrained, latents, Condition(text, text), t, noise, 7.5, weighting)
        torch.testing.assert_close(grad, weight * alpha / sigma * (latents - point), atol=1e-4, rtol=1e-4)
        at_rest = sds_gradient(pretrained, point.expand(2, -1, -1, -1), Condition(text, text), t, noise, 7.5, weighting)
        torch.testing.assert_close(at_rest, torch.zeros_like(at_rest), atol=1e-4, rtol=0)


def test_vsd_pulls_what_is_rendered_to_what_the_prior_knows() -> None:
    """Eq. 9 with two exact scores: the second network stands for the renders, and noise cancels again."""
    point, rendered = torch.randn(2, 1, 4, 8, 8, generator=seeded()).unbind(0)
    pretrained, lora, t = point_denoiser(point), point_denoiser(rendered), torch.tensor([100, 900])
    alpha, sigma = pretrained.alpha_sigma(t)
    rendered = rendered.expand(2, -1, -1, -1)
    text, noise = torch.zeros(2, 77, 8), torch.randn(rendered.shape, generator=seeded(1))
    grad = vsd_gradient(pretrained, lora, rendered, Condition(text, text), text, torch.zeros(2, 16), t, noise)
    torch.testing.assert_close(grad, alpha * sigma * (rendered - point), atol=1e-4, rtol=1e-4)


def test_vsd_is_exactly_zero_while_both_networks_agree(diffusion: LatentDiffusion, images: torch.Tensor) -> None:
    """A new LoRA on the pretrained network predicts what that network does, so at guidance 1 nothing moves."""
    prompts = encode_prompts(diffusion, ViewPrompts("a red fox"))
    lora = add_camera_lora(diffusion.denoiser, seeded())
    latents = diffusion.encode_images(images, seeded()).detach()
    text, t = prompts.plain.expand(2, -1, -1), torch.tensor([20, 700])
    noise, camera = torch.randn(latents.shape, generator=seeded(2)), CAMERAS.c2w.flatten(1)
    for lora_scale in (1.0, 2.0):
        grad = vsd_gradient(
            diffusion.denoiser, lora, latents, Condition(text, text), text, camera, t, noise, 1.0, lora_scale
        )
        if lora_scale == 1.0:
            assert torch.equal(grad, torch.zeros_like(grad))
        torch.testing.assert_close(grad, torch.zeros_like(grad), atol=1e-5, rtol=0)


def test_as_loss_carries_the_gradient_divided_by_the_batch() -> None:
    latents, grad = torch.randn(2, 3, 4, 8, 8, generator=seeded()).unbind(0)
    latents.requires_grad_()
    loss = as_loss(latents, grad)
    loss.backward()
    torch.testing.assert_close(latents.grad, grad / 3, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(loss, grad.square().sum() / 6)


def test_timesteps_fill_their_range_with_both_ends() -> None:
    first, last = timestep_bounds((0.02, 0.025), steps=1000)
    t = draw_timesteps(500, first, last, seeded(), "cpu")
    assert sorted(set(t.tolist())) == list(range(20, 26))


def test_each_loss_reaches_its_own_side_only(diffusion: LatentDiffusion, images: torch.Tensor) -> None:
    vsd = make_vsd(diffusion)
    guided = vsd(images, *VIEWS, (0.02, 0.98), seeded())
    guided.loss.backward()
    assert images.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in vsd.lora.parameters())

    images.grad = None
    guided.lora_loss.backward()
    assert images.grad is None
    reached = {id(parameter) for parameter in vsd.lora.parameters() if parameter.grad is not None}
    assert reached == {id(parameter) for parameter in lora_parameters(vsd.lora)}
    assert all(parameter.grad is None for parameter in diffusion.parameters())


def test_all_randomness_comes_from_the_generator(diffusion: LatentDiffusion, images: torch.Tensor) -> None:
    state = torch.get_rng_state()
    sds = SDSGuidance(diffusion, encode_prompts(diffusion, ViewPrompts("a red fox")))
    for guidance in (sds, make_vsd(diffusion, lora_timesteps=3)):
        torch.set_rng_state(state)
        once, again, other = (guidance(images, *VIEWS, (0.02, 0.98), seeded(seed)) for seed in (5, 5, 6))
        assert torch.equal(once.loss, again.loss) and torch.equal(once.t, again.t)
        assert not torch.equal(once.loss, other.loss)
        if once.lora_loss is not None:
            assert torch.equal(once.lora_loss, again.lora_loss)
        assert torch.equal(torch.get_rng_state(), state)


def test_sds_step_follows_from_its_draws(diffusion: LatentDiffusion, images: torch.Tensor) -> None:
    """The norm that is logged, the loss and the gradient on the images belong together; t stays in its range."""
    sds = SDSGuidance(diffusion, encode_prompts(diffusion, ViewPrompts("a red fox")), perp_neg=True)
    guided = sds(images, *VIEWS, (0.3, 0.4), seeded())
    assert ((guided.t >= 300) & (guided.t <= 400)).all()
    assert guided.lora_loss is None
    torch.testing.assert_close(guided.loss, guided.grad_norm**2 / 4)
    guided.loss.backward()
    assert torch.isfinite(images.grad).all() and images.grad.abs().sum() > 0


def test_dropped_camera_is_not_seen(diffusion: LatentDiffusion, golden: Path) -> None:
    latents = torch.randn(2, 4, diffusion.latent_size, diffusion.latent_size, generator=seeded())
    lora = add_camera_lora(load_denoiser(golden / "vsd" / "sd_lora"), seeded())
    nn.init.normal_(lora.unet.class_embedding.linear_2.weight, generator=seeded(4))
    prompts = encode_prompts(diffusion, ViewPrompts("a red fox"))
    for drop in (0.0, 1.0):
        vsd = VSDGuidance(diffusion, lora, prompts, camera_drop=drop)
        here, elsewhere = (vsd.lora_step(latents, c2w, seeded(3)) for c2w in (CAMERAS.c2w, CAMERAS.c2w.flip(0)))
        assert torch.equal(here, elsewhere) == (drop == 1.0)


def test_the_gain_is_what_training_taught_the_second_network(diffusion: LatentDiffusion) -> None:
    """Nothing at first, since it begins as the frozen network; then it knows these latents better than that one."""
    vsd = make_vsd(diffusion)
    latents = torch.randn(2, 4, diffusion.latent_size, diffusion.latent_size, generator=seeded()) + 3
    assert vsd.gain(latents, CAMERAS.c2w, seeded(1)) == pytest.approx(0, abs=1e-5)
    optimizer = torch.optim.AdamW(lora_parameters(vsd.lora), lr=1e-2)
    for step in range(20):
        optimizer.zero_grad()
        vsd.lora_step(latents, CAMERAS.c2w, seeded(step)).backward()
        optimizer.step()
    assert 0.05 < vsd.gain(latents, CAMERAS.c2w, seeded(1)) < 1


def test_renders_are_kept_in_order_with_their_cameras_and_the_oldest_go() -> None:
    renders = Renders(capacity=3)
    for value in range(5):
        renders.add(torch.full((1, 2, 1, 1), float(value)), torch.full((1, 4, 4), float(value)))
    assert renders.latents[:, 0, 0, 0].tolist() == [2.0, 3.0, 4.0]
    latents, cameras = renders.draw(20, seeded())
    assert torch.equal(latents[:, 0, 0, 0], cameras[:, 0, 0]) and set(cameras[:, 0, 0].tolist()) == {2.0, 3.0, 4.0}
    other = Renders(capacity=3)
    other.set_state(renders.state(), torch.device("cpu"))
    assert torch.equal(other.latents, renders.latents) and torch.equal(other.cameras, renders.cameras)


def test_a_copied_second_network_shares_what_is_frozen_and_learns_alone(diffusion: LatentDiffusion) -> None:
    lora = make_vsd(diffusion).lora
    twin = copy_lora(lora)
    trained = {id(parameter) for parameter in lora_parameters(lora)}
    for parameter, other in zip(lora.parameters(), twin.parameters(), strict=True):
        assert (parameter is other) == (id(parameter) not in trained) and torch.equal(parameter, other)
    before = [parameter.detach().clone() for parameter in lora_parameters(lora)]
    with torch.no_grad():
        for parameter in lora_parameters(twin):
            parameter += 1
    assert all(torch.equal(*pair) for pair in zip(lora_parameters(lora), before, strict=True))
