"""Zero123++, read from a folder in the public layout, against every number the released pipeline went through."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from geodream_lib.views.zero123plus.attention import predict_with_reference, reference_tokens
from geodream_lib.views.zero123plus.image import network_pixels, on_grey
from geodream_lib.views.zero123plus.layout import COLUMNS, ROWS
from geodream_lib.views.zero123plus.model import Condition, Zero123Plus
from geodream_lib.views.zero123plus.steps import (
    ancestral_step,
    guided,
    network_input,
    noise_schedule,
    noised_condition,
    ramped_embedding,
    scale_image,
    scale_latents,
    unscale_image,
    unscale_latents,
)


def arrays(path: Path) -> dict[str, torch.Tensor]:
    with np.load(path) as stored:
        return {
            name: torch.from_numpy(np.array(stored[name])) for name in stored.files if stored[name].dtype.kind in "fiu"
        }


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Equal within `tolerance` of the largest value, or of one."""
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, atol=tolerance * max(1.0, expected.abs().max().item()), rtol=0)


@pytest.fixture(scope="module")
def configs(golden) -> dict:
    return json.loads((golden / "zero123plus" / "configs.json").read_text())


@pytest.fixture(scope="module")
def model(golden, configs, tmp_path_factory) -> Zero123Plus:
    """The fixture's networks, put into the public layout and loaded from there."""
    folder, source = tmp_path_factory.mktemp("public"), golden / "zero123plus"
    for name in ("unet", "vae", "text_encoder", "vision_encoder"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(configs[name]))
        weights = "diffusion_pytorch_model" if name in ("unet", "vae") else "model"
        shutil.copy(source / f"{name}.safetensors", folder / name / f"{weights}.safetensors")
    shutil.copytree(source / "tokenizer", folder / "tokenizer")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(configs["scheduler"]))
    for name in ("feature_extractor_vae", "feature_extractor_clip"):
        (folder / name).mkdir()
        size, mean, std, resample = (configs[name][key] for key in ("size", "mean", "std", "resample"))
        processor = {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}
        processor |= {"image_mean": mean, "image_std": std, "resample": {"bilinear": 2, "bicubic": 3}[resample]}
        (folder / name / "preprocessor_config.json").write_text(json.dumps(processor))
    index = {"ramping_coefficients": configs["ramping_coefficients"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return Zero123Plus.load(folder)


@pytest.fixture(scope="module")
def step0(golden) -> dict[str, torch.Tensor]:
    return arrays(golden / "zero123plus" / "step0.npz")


@pytest.fixture(scope="module")
def run(golden) -> dict[str, torch.Tensor]:
    """Every intermediate of the released pipeline."""
    return arrays(golden / "zero123plus" / "trajectory.npz")


@pytest.fixture(scope="module")
def scaling(golden) -> dict[str, torch.Tensor]:
    return arrays(golden / "zero123plus" / "scaling.npz")


@pytest.fixture(scope="module")
def reference(run) -> torch.Tensor:
    return run["image_rgba"].float() / 255


def replay(*draws: torch.Tensor):
    """The stored random numbers in the order the pipeline draws them."""
    left = iter(draws)

    def draw(shape: tuple[int, ...]) -> torch.Tensor:
        numbers = next(left)
        assert tuple(numbers.shape) == tuple(shape)
        return numbers

    return draw


def sigma_at(model: Zero123Plus, t: torch.Tensor) -> float:
    alphabar = model.scheduler.alphas_cumprod[int(t)]
    return ((1 - alphabar) / alphabar).sqrt().item()


@pytest.fixture(scope="module")
def condition(model, reference, run) -> Condition:
    return model.condition(reference, replay(*run["vae_posterior_noise"]))


@torch.no_grad()
def test_the_reference_pass_is_seen_through_self_attention(model, step0):
    sigma = sigma_at(model, step0["timestep"])
    noisy = noised_condition(step0["cond_lat"], step0["noise"], sigma)
    close(noisy, step0["noisy_cond"])
    tokens = reference_tokens(model.unet, noisy, step0["timestep"].item(), step0["ehs"])
    output = predict_with_reference(model.unet, step0["sample"], step0["timestep"].item(), step0["ehs"], tokens)
    close(output, step0["out"])


@torch.no_grad()
def test_the_unconditional_half_can_go_without_the_reference(model, step0, scaling):
    """A switch of the released network that the released pipeline leaves off."""
    t, text = step0["timestep"].item(), step0["ehs"]
    sigma = sigma_at(model, step0["timestep"])
    noisy = noised_condition(step0["cond_lat"][1:], scaling["cfg_flag_noise"], sigma)
    tokens = reference_tokens(model.unet, noisy, t, text[1:])
    close(predict_with_reference(model.unet, step0["sample"], t, text, tokens), scaling["cfg_flag_out"])


def test_scalings(scaling):
    for function in (scale_latents, unscale_latents, scale_image, unscale_image):
        close(function(scaling["x"]), scaling[function.__name__])


def test_the_image_on_grey_and_what_both_branches_see(model, reference, run):
    image = on_grey(reference)
    assert torch.equal(image, run["image_rgb_on_gray127"])
    close(network_pixels(image, model.feature_extractor_vae), run["pixel_values_vae"])
    close(network_pixels(image, model.feature_extractor_clip), run["pixel_values_clip"])


@torch.no_grad()
def test_the_global_condition(model, condition, configs, run):
    image = model.image_embedding(run["pixel_values_clip"])
    close(image, run["image_embeds"])
    assert torch.equal(model.empty_prompt(), run["empty_prompt_ids"])
    empty = model.text_embedding(run["empty_prompt_ids"])
    close(empty, run["empty_prompt_embeds"])
    ramped = ramped_embedding(
        run["empty_prompt_embeds"], run["image_embeds"], torch.tensor(configs["ramping_coefficients"])
    )
    close(condition.text, torch.cat([run["empty_prompt_embeds"], ramped]))


def test_noise_levels(model, configs, run):
    timesteps, sigmas = noise_schedule(model.scheduler, configs["num_inference_steps"])
    assert timesteps == run["timesteps"].tolist()
    close(torch.tensor(sigmas), run["sigmas"].float())
    assert sigmas[0] == pytest.approx(run["init_noise_sigma"].item(), rel=1e-6)
    close(run["latents0"] * sigmas[0], run["sched_in"][0])


def test_every_step_of_the_sampler(model, condition, configs, run):
    """Each from the stored state: both passes of the network, guidance, and the ancestral step."""
    sigmas = run["sigmas"].tolist()
    for i, t in enumerate(run["timesteps"].tolist()):
        sample, sigma = run["sched_in"][i], sigmas[i]
        close(network_input(sample, sigma).expand_as(run["unet_in"][i]), run["unet_in"][i])
        with torch.no_grad():
            both = model.velocity(sample, t, sigma, condition, run["cond_noise"][i])
        close(both, run["unet_out"][i])
        close(guided(run["unet_out"][i], configs["guidance_scale"]), run["guided"][i])
        after = ancestral_step(sample, run["guided"][i], sigma, sigmas[i + 1], run["sched_noise"][i])
        close(after, run["sched_prev"][i])


def test_the_whole_run_and_the_picture(model, condition, configs, run):
    steps = len(run["timesteps"])
    draws = [noise for i in range(steps) for noise in (run["cond_noise"][i], run["sched_noise"][i])]
    assert [ROWS, COLUMNS] == configs["tiles"] and model.factor == configs["vae_scale_factor"]
    tile = configs["latent_tile"][0] * model.factor
    draw = replay(run["latents0"], *draws)
    sample = model.sample(condition, draw, configs["num_inference_steps"], configs["guidance_scale"], tile)
    close(sample, run["sched_prev"][-1], 1e-4)
    close(unscale_latents(sample), run["final_latents_unscaled"], 1e-4)
    close(model.decode(sample), run["decoded_unscaled_image"], 1e-4)
    close(model.decode(run["sched_prev"][-1]), run["decoded_unscaled_image"])
