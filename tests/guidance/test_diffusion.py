"""Latent diffusion: noise algebra, encoding, sampling, and folders that cannot be used."""

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from geodream_lib.errors import InputError
from geodream_lib.guidance import LatentDiffusion, load_denoiser, load_diffusion

pytestmark = pytest.mark.needs_golden("vsd")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def diffusion(golden: Path) -> LatentDiffusion:
    return load_diffusion(golden / "vsd" / "sd_base")


@pytest.mark.parametrize("name", ["sd_base", "sd_lora"])
def test_the_target_of_training_converts_back_to_the_noise(name: str, golden: Path) -> None:
    """True for noise and for velocity prediction: to_noise inverts target."""
    network = load_denoiser(golden / "vsd" / name)
    latents, noise = torch.randn(2, 3, 4, 8, 8, generator=seeded()).unbind(0)
    t = torch.tensor([0, 500, 999])
    target = network.target(latents, noise, t)
    converted = network.to_noise(target, network.add_noise(latents, noise, t), t)
    torch.testing.assert_close(converted, noise, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [5, 16, 37])
def test_images_of_any_size_have_latents_of_one_size(diffusion: LatentDiffusion, size: int) -> None:
    images = torch.rand(2, size, size + 3, 3, generator=seeded()).requires_grad_()
    latents = diffusion.encode_images(images, seeded())
    assert latents.shape == (2, 4, diffusion.latent_size, diffusion.latent_size)
    latents.sum().backward()
    assert images.grad.abs().sum() > 0
    assert diffusion.decode(latents).shape == (2, diffusion.image_size, diffusion.image_size, 3)


def test_latent_statistics_of_the_vae_config_are_one_affine_map(golden: Path) -> None:
    """scaling_factor, shift_factor and latents_mean / latents_std move the latents, never the decoded image."""
    plain = load_diffusion(golden / "vsd" / "sd_base")
    mean, std = [0.5, -1.0, 0.0, 2.0], [0.5, 1.0, 2.0, 4.0]
    plain.vae.register_to_config(latents_mean=mean, latents_std=std, scaling_factor=1.0)
    moved = LatentDiffusion(plain.vae, plain.text_encoder, plain.tokenizer, plain.denoiser)

    images = torch.rand(1, 16, 16, 3, generator=seeded())
    factor = 1 / plain.latent_scale
    raw = plain.encode_images(images, seeded()) * factor
    latents = moved.encode_images(images, seeded())
    expected = (raw - torch.tensor(mean).view(1, 4, 1, 1)) / torch.tensor(std).view(1, 4, 1, 1)
    torch.testing.assert_close(latents, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(moved.decode(latents), plain.decode(raw / factor), atol=1e-4, rtol=0)


def test_samples_follow_seed_prompt_and_guidance(diffusion: LatentDiffusion) -> None:
    images = diffusion.sample(["a red fox", "a house"], steps=3, guidance=7.5, generator=seeded(1))
    assert images.shape == (2, diffusion.image_size, diffusion.image_size, 3)
    assert 0 <= images.min() and images.max() <= 1
    again = diffusion.sample(["a red fox", "a house"], steps=3, guidance=7.5, generator=seeded(1))
    assert torch.equal(images, again)
    # Guidance 0 asks the negative prompt alone, so the prompt no longer matters, and a matching one gives the same.
    unguided = diffusion.sample(["a red fox", "a house"], 3, 0.0, seeded(1), negative="a dog")
    pure = diffusion.sample(["a dog", "a dog"], 3, 1.0, seeded(1))
    torch.testing.assert_close(unguided, pure, atol=1e-4, rtol=0)


def test_a_local_folder_never_reaches_for_the_network(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    load_diffusion(golden / "vsd" / "sd_base")


def truncate(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])


def make_foreign(folder: Path) -> None:
    edit(folder / "unet" / "config.json", _class_name="UNet3DConditionModel")


def pickle_only(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))


def edit(config: Path, **values: object) -> None:
    config.write_text(json.dumps({**json.loads(config.read_text()), **values}))


DAMAGE = {
    "truncated weights": truncate,
    "truncated text encoder": lambda folder: (folder / "text_encoder" / "model.safetensors").write_bytes(b"short"),
    "another network": make_foreign,
    "a pickle instead of safetensors": pickle_only,
    "no tokenizer": lambda folder: shutil.rmtree(folder / "tokenizer"),
    "no vocabulary": lambda folder: (folder / "tokenizer" / "vocab.json").unlink(),
    "truncated vocabulary": lambda folder: (folder / "tokenizer" / "vocab.json").write_text("{"),
    "no scheduler": lambda folder: (folder / "scheduler" / "scheduler_config.json").unlink(),
    "config that is no JSON": lambda folder: (folder / "vae" / "config.json").write_text("{"),
    "sample prediction": lambda folder: edit(folder / "scheduler" / "scheduler_config.json", prediction_type="sample"),
    "wider network than its weights": lambda folder: edit(folder / "unet" / "config.json", block_out_channels=[32, 96]),
    "deeper network than its weights": lambda folder: edit(folder / "unet" / "config.json", layers_per_block=2),
    "text encoder of another width": lambda folder: edit(folder / "text_encoder" / "config.json", hidden_size=48),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_folder_is_one_clear_error(damage: Callable[[Path], None], golden: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(golden / "vsd" / "sd_base", folder)
    damage(folder)
    with pytest.raises(InputError) as error:
        load_diffusion(folder)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value) or "prediction" in str(error.value) or "predicts" in str(error.value)


@pytest.mark.parametrize("source", ["data/lab/nothing_here", "./nothing", Path("nothing/here")])
def test_a_missing_folder_is_not_looked_up_on_the_hub(source: Path | str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no diffusion model"):
        load_diffusion(source)
