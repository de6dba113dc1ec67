"""SDS, VSD and LoRA against the outputs of threestudio, with its own random draws put in."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from geodream_lib.guidance import add_camera_lora, load_denoiser, load_diffusion, load_lora_state, lora_parameters
from geodream_lib.guidance.diffusion import Denoiser, LatentDiffusion
from geodream_lib.guidance.lora import modern_name
from geodream_lib.guidance.prompts import Condition, guided_noise, perp_neg_direction
from geodream_lib.guidance.sds import as_loss, sds_gradient, timestep_bounds, timestep_weight
from geodream_lib.guidance.vsd import lora_loss, vsd_gradient
from geodream_lib.schedules import Schedule, annealed, constant, released_texture, released_volume, square_root
from geodream_lib.storage import load_tensors

# What the cases were run with; the draws, inputs and outputs are in the files.
VSD_CASES = {
    "two_models": {"scale": 7.5, "lora_scale": 1.0, "camera": "c2w", "camera_drop": 0.1},
    "two_models_camera_dropped": {"scale": 7.5, "lora_scale": 1.0, "camera": "c2w", "camera_drop": 0.1},
    "lora_cfg2_mvp": {"scale": 7.5, "lora_scale": 2.0, "camera": "mvp", "camera_drop": 0.0},
    "lora_2_timesteps": {"scale": 7.5, "lora_scale": 1.0, "camera": "c2w", "camera_drop": 0.1},
    "single_model_eps": {"scale": 50.0, "lora_scale": 1.0, "camera": "c2w", "camera_drop": 0.1},
}
SDS_CASES = {
    "sds_gs100": {"scale": 100.0, "weighting": "sds"},
    "sds_uniform_gs7.5": {"scale": 7.5, "weighting": "uniform"},
    "sds_fantasia3d": {"scale": 100.0, "weighting": "fantasia3d"},
}


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Within 1e-5, relative to the largest value where that is over 1: a guidance of 100 makes gradients of 100."""
    atol = 1e-5 * max(1.0, expected.abs().max().item())
    torch.testing.assert_close(actual.detach(), expected, atol=atol, rtol=0)


def arrays(path: Path) -> dict[str, torch.Tensor]:
    with np.load(path) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def case(values: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key.split("/")[1]: value for key, value in values.items() if key.startswith(f"{name}/")}


@pytest.fixture(scope="module")
def base(golden: Path) -> LatentDiffusion:
    return load_diffusion(golden / "vsd" / "sd_base")


@pytest.fixture(scope="module")
def parts(golden: Path) -> dict[str, torch.Tensor]:
    return arrays(golden / "vsd" / "parts.npz")


def with_golden_lora(network: Denoiser, folder: Path, file: str) -> Denoiser:
    weights, _ = load_tensors(folder / file)
    camera, _ = load_tensors(folder / "camera_embedding.safetensors")
    rank = json.loads((folder / "vsd_meta.json").read_text())["lora_rank"]
    lora = add_camera_lora(network, torch.Generator().manual_seed(0), rank)
    load_lora_state(lora, {**weights, **{f"class_embedding.{key}": value for key, value in camera.items()}}, file)
    return lora


@pytest.fixture(scope="module")
def lora(golden: Path) -> Denoiser:
    folder = golden / "vsd"
    return with_golden_lora(load_denoiser(folder / "sd_lora"), folder, "lora_two_models.safetensors")


@pytest.fixture(scope="module")
def lora_on_base(golden: Path, base: LatentDiffusion) -> Denoiser:
    return with_golden_lora(base.denoiser, golden / "vsd", "lora_single_model.safetensors")


def test_autoencoder(base: LatentDiffusion, parts: dict[str, torch.Tensor]) -> None:
    image = parts["image"].permute(0, 2, 3, 1)
    latents = base.encode(image, parts["vae_posterior_noise"])
    close(latents, parts["encoded_latents"])
    pixels = (parts["decoded"] / 2 + 0.5).clamp(0, 1)
    close(base.decode(parts["encoded_latents"]), pixels.permute(0, 2, 3, 1))


def test_each_network_alone(
    base: LatentDiffusion, lora: Denoiser, golden: Path, parts: dict[str, torch.Tensor]
) -> None:
    close(base.denoiser.alphas_cumprod, parts["alphas_cumprod"])
    noisy = parts["latent_model_input"]
    close(base.denoiser.add_noise(parts["latents"], parts["noise"], parts["t"]), noisy[: len(parts["latents"])])
    t = parts["t"].repeat(len(noisy) // len(parts["t"]))
    with torch.no_grad():
        close(base.denoiser.raw(noisy, t, parts["text_embeddings_vd"]), parts["pretrain_out"])
        plain = parts["text_embeddings"].chunk(2)[0].repeat(2, 1, 1)
        close(lora.raw(noisy, t, plain, parts["class_labels"]), parts["lora_out_vpred"])
        # A new LoRA adds nothing: its second factor is zero. Only the camera embedding acts.
        fresh = add_camera_lora(load_denoiser(golden / "vsd" / "sd_lora"), torch.Generator().manual_seed(0))
        fresh.unet.class_embedding.load_state_dict(lora.unet.class_embedding.state_dict())
        close(fresh.raw(noisy, t, plain, parts["class_labels"]), parts["lora_out_scale0"])


@pytest.mark.parametrize("name", VSD_CASES)
def test_vsd(
    name: str, golden: Path, base: LatentDiffusion, parts: dict[str, torch.Tensor], request: pytest.FixtureRequest
) -> None:
    settings, expected = VSD_CASES[name], case(arrays(golden / "vsd" / "vsd_cases.npz"), name)
    network = request.getfixturevalue("lora_on_base" if name == "single_model_eps" else "lora")
    cond, uncond = parts["text_embeddings_vd"].chunk(2)
    plain = parts["text_embeddings"].chunk(2)[0]
    camera = parts[settings["camera"]].flatten(1)
    latents = parts["latents"].clone().requires_grad_()

    grad = vsd_gradient(
        base.denoiser,
        network,
        latents,
        Condition(cond, uncond),
        plain,
        camera,
        expected["t"],
        expected["noise"],
        settings["scale"],
        settings["lora_scale"],
    )
    close(grad, expected["grad"])
    close(grad.norm(), expected["grad_norm"])

    loss = as_loss(latents, grad)
    close(loss, expected["loss_vsd"])
    close(torch.autograd.grad(loss, latents)[0], expected["dloss_dlatents"])

    if expected["random"] < settings["camera_drop"]:
        camera = torch.zeros_like(camera)
    loss = lora_loss(network, latents, plain, camera, expected["t_lora"], expected["noise_lora"])
    close(loss, expected["loss_lora"])


def test_gradient_of_the_lora_loss(golden: Path, lora: Denoiser, parts: dict[str, torch.Tensor]) -> None:
    draws = case(arrays(golden / "vsd" / "vsd_cases.npz"), "two_models")
    plain = parts["text_embeddings"].chunk(2)[0]
    loss = lora_loss(lora, parts["latents"], plain, parts["c2w"].flatten(1), draws["t_lora"], draws["noise_lora"])
    names = [name for name, parameter in lora.unet.named_parameters() if parameter.requires_grad]
    gradients = dict(zip(names, torch.autograd.grad(loss, lora_parameters(lora)), strict=True))
    gradients = {name.replace(".default.", "."): gradient for name, gradient in gradients.items()}

    expected = arrays(golden / "vsd" / "lora_grads_two_models.npz")
    expected = {modern_name(name).replace("camera_embedding", "class_embedding"): g for name, g in expected.items()}
    assert expected.keys() == gradients.keys()
    for name, gradient in expected.items():
        close(gradients[name], gradient)


def check_sds(latents: torch.Tensor, grad: torch.Tensor, expected: dict[str, torch.Tensor]) -> None:
    latents = latents.clone().requires_grad_()
    close(grad, expected["grad"])
    loss = as_loss(latents, grad)
    close(loss, expected["loss_sds"])
    close(torch.autograd.grad(loss, latents)[0], expected["dloss_dlatents"])


@pytest.mark.parametrize("name", SDS_CASES)
def test_sds(name: str, golden: Path, base: LatentDiffusion) -> None:
    settings, values = SDS_CASES[name], arrays(golden / "vsd" / "sds_cases.npz")
    expected, latents = case(values, name), values["latents"]
    condition = Condition(*values["text_embeddings_vd"].chunk(2))
    draws = (expected["t"], expected["noise"])

    noisy = base.denoiser.add_noise(latents, expected["noise"], expected["t"])
    guided = guided_noise(base.denoiser, noisy, expected["t"], condition, settings["scale"] + 1)
    close(guided, expected["noise_pred_guided"])
    check_sds(latents, sds_gradient(base.denoiser, latents, condition, *draws, **settings), expected)


def test_sds_with_perp_neg(golden: Path, base: LatentDiffusion) -> None:
    """threestudio's formula with threestudio's batch.

    It repeats the latents as a whole but lists the repelled texts camera by camera, so with more than one camera a
    text meets another camera's latent. The library pairs them; here the released order is laid out by hand.
    """
    values = arrays(golden / "vsd" / "sds_cases.npz")
    expected, latents, scale = case(values, "sds_perp_neg"), values["latents"], 100.0
    t, noise, b = expected["t"], expected["noise"], len(latents)
    noisy = base.denoiser.add_noise(latents, noise, t)
    with torch.no_grad():
        predicted = base.denoiser(noisy.repeat(4, 1, 1, 1), t.repeat(4), values["text_embeddings_perp_neg"])
    cond, uncond, repelled = predicted[:b], predicted[b : 2 * b], predicted[2 * b :].unflatten(0, (b, 2))
    direction = perp_neg_direction(cond - uncond, repelled - uncond[:, None], expected["neg_guidance_weights"])
    guided = uncond + scale * direction
    close(guided, expected["noise_pred_guided"])
    check_sds(latents, timestep_weight(base.denoiser, t) * (guided - noise), expected)


def test_score_jacobian_chaining_is_uniform_sds(golden: Path, base: LatentDiffusion) -> None:
    """With its variance reduction the SJC gradient is guided noise - noise: SDS with w = 1."""
    values = arrays(golden / "vsd" / "sds_cases.npz")
    expected, latents = case(values, "sjc"), values["latents"]
    condition = Condition(*values["text_embeddings_vd"].chunk(2))
    grad = sds_gradient(base.denoiser, latents, condition, expected["t"], expected["noise"], 100.0, "uniform")
    check_sds(latents, grad, expected)


def as_schedule(spec: float | list[float], total_steps: int) -> Schedule:
    """threestudio writes [start, v0, v1, end], or [v0, v1, end] from step 0, or one number."""
    if isinstance(spec, list):
        start, v0, v1, end = spec if len(spec) == 4 else [0, *spec]
        return annealed(start, v0, v1, end, total_steps)
    return constant(spec)


def test_timestep_annealing(golden: Path) -> None:
    table = json.loads((golden / "vsd" / "annealing.json").read_text())
    for name, entry in table["timestep_range"].items():
        rows = entry["rows_step_min_max"]
        low = as_schedule(entry["min_step_percent"], rows[-1][0])
        high = as_schedule(entry["max_step_percent"], rows[-1][0])
        if name.startswith("sqrt_anneal"):
            # One timestep for all, from the largest to the smallest.
            low = high = square_root(high.value(0), low.value(0), total_steps=int(name.split("_")[-1]))
        for step, first, last in rows:
            assert timestep_bounds((low.value(step), high.value(step)), steps=1000) == (first, last), (name, step)


def test_annealed_loss_weights(golden: Path) -> None:
    table = json.loads((golden / "vsd" / "annealing.json").read_text())
    for entry in table["scalar_schedules"].values():
        schedule = as_schedule(entry["spec"], entry["rows"][-1][0])
        for step, value in entry["rows"]:
            assert schedule.value(step) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(("group", "schedule"), [("texture", released_texture()), ("geometry", released_volume())])
def test_released_learning_rates(group: str, schedule: Schedule, golden: Path) -> None:
    """The released scheduler multiplies step by step, so it carries rounding of the order of 1e-12."""
    rows = json.loads((golden / "vsd" / "lr_schedule_stage1.json").read_text())[group]["rows"]
    for step, *rates in rows:
        for rate, base_rate in zip(rates, rows[0][1:], strict=True):
            assert base_rate * schedule.value(step) == pytest.approx(rate, rel=1e-9), step
