"""The coupled design of Magic123: Zero123 as a loss, which the method itself does without."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from geodream_lib.views import CameraProjection, CoupledPrior, Zero123, couple_prior

pytestmark = pytest.mark.needs_golden("vsd")
SIZE, ELEVATION = 16, 15.0


class KnowsOneView(UNet2DConditionModel):
    """The exact noise prediction of a world with one latent for every pose; it keeps what it was told."""

    def __init__(self, point: torch.Tensor, alphas_cumprod: torch.Tensor) -> None:
        nn.Module.__init__(self)
        self.point, self.alphas_cumprod = point, alphas_cumprod
        self.conv_in = nn.Conv2d(8, 1, 1)
        self.register_to_config(sample_size=point.shape[-1])

    def forward(self, x: torch.Tensor, t: torch.Tensor, encoder_hidden_states: torch.Tensor) -> SimpleNamespace:
        self.told = encoder_hidden_states
        alphabar = self.alphas_cumprod[t].view(-1, 1, 1, 1)
        return SimpleNamespace(sample=(x[:, :4] - alphabar.sqrt() * self.point) / (1 - alphabar).sqrt())


@pytest.fixture
def prior(golden: Path) -> CoupledPrior:
    torch.manual_seed(0)
    vae = AutoencoderKL.from_pretrained(golden / "vsd" / "sd_base" / "vae").eval()
    tower = CLIPVisionConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        projection_dim=8,
    )
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    unet = KnowsOneView(torch.randn(1, 4, SIZE // factor, SIZE // factor), scheduler.alphas_cumprod)
    projection = CameraProjection(8, 12)
    zero123 = Zero123(unet, vae, CLIPVisionModelWithProjection(tower).eval(), projection, scheduler)
    return couple_prior(zero123.requires_grad_(False), torch.rand(SIZE, SIZE, 3), ELEVATION)


def test_renders_are_pulled_to_the_view_that_zero123_expects(prior: CoupledPrior):
    """With an exact network the noise cancels: the gradient is w alpha / sigma (latent - expected latent)."""
    images = torch.rand(2, SIZE, SIZE, 3, requires_grad=True)
    angles, seed = torch.tensor([0.0, 90.0]), torch.Generator().manual_seed(4)
    loss = prior(images, angles, torch.tensor([15.0, 30.0]), (0.4, 0.4), seed)
    latents = prior._encode(images.detach(), torch.Generator().manual_seed(4))
    alphabar = prior.zero123.scheduler.alphas_cumprod[400]
    expected = (alphabar * (1 - alphabar)).sqrt() * (latents - prior.zero123.unet.point)
    torch.testing.assert_close(loss, expected.square().sum() / 4, rtol=1e-4, atol=1e-5)
    loss.backward()
    assert torch.isfinite(images.grad).all() and images.grad.abs().sum() > 0


def test_the_pose_is_relative_to_the_reference(prior: CoupledPrior):
    """The reference's own camera is no turn at all; the unconditional half hears nothing."""
    images, seed = torch.rand(2, SIZE, SIZE, 3), torch.Generator().manual_seed(0)
    prior(images, torch.tensor([0.0, 90.0]), torch.tensor([ELEVATION, ELEVATION + 10]), (0.1, 0.9), seed)
    unconditional, told = prior.zero123.unet.told.split(2)
    assert unconditional.abs().sum() == 0
    turn = torch.deg2rad(torch.tensor(10.0))
    poses = torch.stack([torch.tensor([0.0, 0.0, 1.0, 0.0]), torch.tensor([-turn, 1.0, 0.0, 0.0])])
    expected = prior.zero123.clip_camera_projection(prior.embedding.expand(2, -1), poses)
    torch.testing.assert_close(told, expected, atol=1e-6, rtol=1e-5)
