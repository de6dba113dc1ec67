"""The diffusion models mix no devices."""

import copy
from collections.abc import Callable

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from diffusers.models.embeddings import TimestepEmbedding
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from geodream_lib.guidance import LatentDiffusion
from geodream_lib.views import MVDream, RelativePose, Zero123, Zero123Plus
from geodream_lib.views.zero123.model import CameraProjection
from geodream_lib.views.zero123plus.image import ImageInput

pytestmark = pytest.mark.needs_golden("vsd")


def test_text_to_image(both: Callable, diffusion: LatentDiffusion) -> None:
    def compute(device: str) -> Tensor:
        on_device = copy.deepcopy(diffusion).to(device)
        return on_device.sample(["a red mushroom"], 2, 7.5, torch.Generator().manual_seed(0))

    both(compute, atol=1e-3)


def vision_encoder(width: int) -> CLIPVisionModelWithProjection:
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        projection_dim=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    return CLIPVisionModelWithProjection(config)


def small_zero123() -> Zero123:
    """Zero123 with random networks: 16-pixel images, 8x8 latents."""
    torch.manual_seed(0)
    narrow = {"block_out_channels": (16, 16), "norm_num_groups": 8}
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=2,
        cross_attention_dim=16,
        **narrow,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, **narrow
    )
    scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    return Zero123(unet, vae, vision_encoder(12), CameraProjection(12, 16), scheduler).eval().requires_grad_(False)


def test_source_views(both: Callable) -> None:
    model, poses = small_zero123(), [RelativePose(90.0, 10.0, "side"), RelativePose(-120.0, -20.0, "below")]
    reference = torch.rand(16, 16, 3)

    def compute(device: str) -> Tensor:
        return (
            copy.deepcopy(model)
            .to(device)
            .predict(reference, poses, 3, 3.0, 1.0, torch.Generator().manual_seed(0), batch_size=1)
        )

    both(compute, atol=1e-3)


def test_four_views(both: Callable, diffusion: LatentDiffusion) -> None:
    width = diffusion.denoiser.unet.time_embedding.linear_2.out_features
    torch.manual_seed(0)
    model = MVDream(copy.deepcopy(diffusion), TimestepEmbedding(16, width))

    def compute(device: str) -> Tensor:
        on_device = copy.deepcopy(model).to(device)
        return on_device.predict("a red mushroom", torch.Generator().manual_seed(0), steps=2, size=32)

    both(compute, atol=1e-3)


@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_six_views(both: Callable, diffusion: LatentDiffusion) -> None:
    text = diffusion.text_encoder.config
    torch.manual_seed(0)
    image = ImageInput(16, (0.5,) * 3, (0.5,) * 3, Image.Resampling.BILINEAR)
    model = (
        Zero123Plus(
            unet=copy.deepcopy(diffusion.denoiser.unet),
            vae=diffusion.vae,
            text_encoder=diffusion.text_encoder,
            tokenizer=diffusion.tokenizer,
            vision_encoder=vision_encoder(text.hidden_size),
            scheduler=EulerAncestralDiscreteScheduler(prediction_type="v_prediction", steps_offset=1),
            feature_extractor_vae=image,
            feature_extractor_clip=image,
            ramping_coefficients=[0.1] * text.max_position_embeddings,
        )
        .eval()
        .requires_grad_(False)
    )
    reference = torch.rand(32, 32, 4)

    def compute(device: str) -> Tensor:
        on_device = copy.deepcopy(model).to(device)
        return on_device.predict(reference, torch.Generator().manual_seed(0), steps=2, tile=32)

    both(compute, atol=1e-3)
