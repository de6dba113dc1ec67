"""LoRA and camera embedding: they train, the network under them stays, and they travel alone."""

from pathlib import Path

import pytest
import torch

from geodream_lib.errors import InputError
from geodream_lib.guidance import (
    Denoiser,
    add_camera_lora,
    load_denoiser,
    load_lora_state,
    lora_parameters,
    lora_state,
)
from geodream_lib.guidance.lora import modern_name
from geodream_lib.guidance.vsd import lora_loss
from geodream_lib.storage import load_tensors, save_tensors

pytestmark = pytest.mark.needs_golden("vsd")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module", params=["sd_base", "sd_lora"])
def network(request: pytest.FixtureRequest, golden: Path) -> Denoiser:
    return load_denoiser(golden / "vsd" / request.param)


def make_inputs(network: Denoiser) -> dict[str, torch.Tensor]:
    config, generator = network.unet.config, seeded(1)
    return {
        "latents": torch.randn(2, 4, config.sample_size, config.sample_size, generator=generator),
        "plain_text": torch.randn(2, 7, config.cross_attention_dim, generator=generator),
        "camera": torch.randn(2, 16, generator=generator),
    }


def predict(network: Denoiser, camera: bool) -> torch.Tensor:
    inputs = make_inputs(network)
    with torch.no_grad():
        return network.raw(
            inputs["latents"], torch.tensor([20, 700]), inputs["plain_text"], inputs["camera"] if camera else None
        )


def test_a_new_lora_changes_nothing(network: Denoiser) -> None:
    lora = add_camera_lora(network, seeded())
    assert torch.equal(predict(lora, camera=True), predict(network, camera=False))


def test_training_lowers_the_loss_and_leaves_the_network_alone(network: Denoiser) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    prediction = predict(network, camera=False)
    lora, inputs = add_camera_lora(network, seeded()), make_inputs(network)
    t, noise = torch.tensor([50, 800, 400, 999]), torch.randn(4, *inputs["latents"].shape[1:], generator=seeded(2))
    optimizer = torch.optim.AdamW(lora_parameters(lora), lr=1e-2)
    losses = []
    for _ in range(8):
        loss = lora_loss(lora, **inputs, t=t, noise=noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]

    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(predict(network, camera=False), prediction)


def test_the_frozen_weights_are_shared_not_copied(network: Denoiser) -> None:
    lora = add_camera_lora(network, seeded())
    own = {parameter.data_ptr() for parameter in network.parameters()}
    frozen = [parameter for parameter in lora.parameters() if not parameter.requires_grad]
    assert {parameter.data_ptr() for parameter in frozen} == own


def test_several_timesteps_are_the_mean_over_them(network: Denoiser) -> None:
    """k timesteps per image in one call are k calls averaged: the batch is repeated as a whole."""
    lora, inputs = add_camera_lora(network, seeded()), make_inputs(network)
    t, noise = torch.tensor([50, 800, 400, 999]), torch.randn(4, *inputs["latents"].shape[1:], generator=seeded(2))
    together = lora_loss(lora, **inputs, t=t, noise=noise)
    apart = [lora_loss(lora, **inputs, t=t[i : i + 2], noise=noise[i : i + 2]) for i in (0, 2)]
    torch.testing.assert_close(together, sum(apart) / 2)


def test_the_seed_decides_the_initial_weights(network: Denoiser) -> None:
    first, again, other = (lora_state(add_camera_lora(network, seeded(seed))) for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_trained_weights_travel_alone(network: Denoiser, tmp_path: Path) -> None:
    lora = add_camera_lora(network, seeded())
    for parameter in lora_parameters(lora):
        torch.nn.init.normal_(parameter, std=0.1, generator=seeded(5))
    save_tensors(tmp_path / "lora.safetensors", lora_state(lora))

    tensors, _ = load_tensors(tmp_path / "lora.safetensors")
    assert sum(tensor.numel() for tensor in tensors.values()) == sum(p.numel() for p in lora_parameters(lora))
    restored = add_camera_lora(network, seeded(9))
    load_lora_state(restored, tensors, "lora.safetensors")
    assert torch.equal(predict(restored, camera=True), predict(lora, camera=True))


def test_weights_of_another_rank_are_refused(network: Denoiser) -> None:
    other = lora_state(add_camera_lora(network, seeded(), rank=2))
    with pytest.raises(InputError, match="another rank"):
        load_lora_state(add_camera_lora(network, seeded()), other, "lora.safetensors")
    with pytest.raises(InputError, match="missing"):
        load_lora_state(add_camera_lora(network, seeded()), {}, "lora.safetensors")


def test_lora_stays_float32_over_half_precision(golden: Path) -> None:
    network = load_denoiser(golden / "vsd" / "sd_lora", dtype=torch.bfloat16)
    lora = add_camera_lora(network, seeded())
    assert {parameter.dtype for parameter in lora_parameters(lora)} == {torch.float32}
    inputs = make_inputs(lora)
    loss = lora_loss(lora, **inputs, t=torch.tensor([50, 800]), noise=torch.ones_like(inputs["latents"]))
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in lora_parameters(lora))


def test_autocast_changes_the_arithmetic_only(golden: Path) -> None:
    full = load_denoiser(golden / "vsd" / "sd_lora")
    half = load_denoiser(golden / "vsd" / "sd_lora", autocast=torch.bfloat16)
    exact, rounded = predict(full, camera=False), predict(half, camera=False)
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    assert (exact - rounded).abs().max() < 0.05 * exact.abs().max()


def test_names_of_old_and_new_lora_files() -> None:
    block = "mid_block.attentions.0.transformer_blocks.0.attn2"
    assert modern_name(f"{block}.processor.to_out_lora.up.weight") == f"{block}.to_out.0.lora_B.weight"
    assert modern_name(f"{block}.processor.to_q_lora.down.weight") == f"{block}.to_q.lora_A.weight"
    assert modern_name(f"{block}.to_q.lora_A.weight") == f"{block}.to_q.lora_A.weight"
