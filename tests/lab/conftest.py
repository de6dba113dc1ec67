"""A text-to-image network in the lab's layout, very small and untrained, and shards of two objects."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from geodream_lib.guidance.diffusion import Denoiser, LatentDiffusion
from geodream_lib.lab import multiview_data
from geodream_lib.lab.networks import (
    CONTEXT,
    LATENT_SIZE,
    SHARED,
    make_scheduler,
    make_text_encoder,
    make_tokenizer,
)
from geodream_lib.lab.objects import LabObject, sample_object
from geodream_lib.unshuffle_vae import UnshuffleAutoencoderKL


@pytest.fixture
def diffusion(tmp_path: Path) -> LatentDiffusion:
    """Text-to-image in the lab's layout, very small and untrained."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer(["a", "red", "mushroom", "on", "log"], tmp_path / "words")
    vae = UnshuffleAutoencoderKL(block_out_channels=(12, 48, 8, 8), latent_channels=6, norm_num_groups=4)
    unet = UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=vae.config.latent_channels,
        out_channels=vae.config.latent_channels,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=2,
        cross_attention_dim=CONTEXT,
        norm_num_groups=8,
    )
    return LatentDiffusion(vae, make_text_encoder(tokenizer), tokenizer, Denoiser(unet, make_scheduler()))


@pytest.fixture
def lab(diffusion: LatentDiffusion, tmp_path: Path) -> Path:
    """A data folder's `lab/` with that text-to-image network."""
    folder = tmp_path / "data" / "lab" / "text_to_image"
    for name in SHARED:
        getattr(diffusion, name).save_pretrained(folder / name)
    diffusion.denoiser.unet.save_pretrained(folder / "unet")
    diffusion.denoiser.scheduler.save_pretrained(folder / "scheduler")
    return folder.parent


@pytest.fixture
def two_objects(monkeypatch: pytest.MonkeyPatch) -> list[LabObject]:
    """Shards of two objects, and these objects, in the order they are drawn."""
    drawn: list[LabObject] = []

    def remember(*arguments, **options) -> LabObject:
        drawn.append(sample_object(*arguments, **options))
        return drawn[-1]

    monkeypatch.setattr(multiview_data, "OBJECTS_PER_SHARD", 2)
    monkeypatch.setattr(multiview_data, "sample_object", remember)
    return drawn


@pytest.fixture
def random_images() -> Callable[..., torch.Tensor]:
    """Bytes of pictures `[*shape, 3]`, the same for the same shape."""

    def draw(*shape: int) -> torch.Tensor:
        return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))

    return draw


@pytest.fixture
def moved() -> Callable[[dict[str, torch.Tensor], dict[str, torch.Tensor]], set[str]]:
    """First names of the tensors that are not as they were before."""

    def compare(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
        return {name.split(".")[0] for name, tensor in after.items() if not torch.equal(tensor, before[name])}

    return compare
