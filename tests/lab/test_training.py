"""The trainers of the lab networks: what they promise beyond a falling loss."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from geodream_lib.guidance import load_diffusion
from geodream_lib.lab import train_text_to_image
from geodream_lib.lab.bench import Bench
from geodream_lib.lab.latents import add_noise
from geodream_lib.lab.networks import (
    make_cost_volume_networks,
    make_scheduler,
    make_text_encoder,
    make_tokenizer,
    make_unet,
    make_vae,
    speed_up_training,
)
from geodream_lib.lab.train_cost_volume import sdf_loss
from geodream_lib.lab.train_decoder import aligned_crops, train_decoder
from geodream_lib.lab.train_text_to_image import tokenize
from geodream_lib.lab.train_vae import image_gradients, normalize_latents, psnr, to_network
from geodream_lib.lab.training import Budget, coarse_then_fine, learning_rate, train
from geodream_lib.unshuffle_vae import UnshuffleAutoencoderKL
from geodream_lib.volume import query_sdf_and_gradient

CPU = torch.device("cpu")


def line_fit(folder: Path, minutes: float) -> nn.ModuleDict:
    """Fit a line to noisy samples; every step counts as one second."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"line": nn.Linear(1, 1)})

    def loss(model: nn.ModuleDict, generator: torch.Generator):
        x = torch.rand(8, 1, generator=generator)
        return (model["line"](x) - 3 * x - 1).square().mean(), {}

    budget = Budget(minutes=minutes, batch_size=8, learning_rate=0.1, warmup_steps=1, checkpoint_seconds=5)
    return train("line", model, loss, budget=budget, folder=folder, device=CPU)


def test_interrupted_training_ends_where_an_unbroken_one_does(tmp_path, monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr("geodream_lib.lab.training.time.perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr("geodream_lib.lab.training.learning_rate", lambda budget, step, progress: 0.05)
    unbroken = line_fit(tmp_path / "a", 40 / 60)
    line_fit(tmp_path / "b", 20 / 60)
    resumed = line_fit(tmp_path / "b", 40 / 60)
    for a, b in zip(unbroken.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_held_out_numbers_cost_at_most_about_a_tenth_of_the_time(tmp_path, monkeypatch):
    now, measured = [0.0], []
    monkeypatch.setattr("geodream_lib.lab.training.time.perf_counter", lambda: now[0])

    def loss(model: nn.ModuleDict, generator: torch.Generator):
        now[0] += 1.0
        return model["line"].weight.square().sum(), {}

    def validate(model: nn.ModuleDict) -> dict[str, float]:
        now[0] += 10.0
        measured.append(now[0])
        return {"held_out": 0.0}

    model = nn.ModuleDict({"line": nn.Linear(1, 1)})
    budget = Budget(minutes=10, batch_size=1, learning_rate=0.1, checkpoint_seconds=5)
    train("line", model, loss, budget=budget, folder=tmp_path, device=CPU, validate=validate)
    assert 4 <= len(measured) <= 7  # of 600 seconds of training, the last one at the end
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) >= 100, "states are saved all the same"


@pytest.mark.parametrize("root", [0.0, -1.0], ids=["gradient", "loss"])
def test_training_stops_before_a_step_that_is_not_finite(tmp_path, root):
    """The root of 0 is 0, but infinitely steep; that of -1 is no number. The state on disk is the last good one."""
    model = nn.ModuleDict({"line": nn.Linear(1, 1)})
    steps = 0

    def loss(model: nn.ModuleDict, generator: torch.Generator):
        nonlocal steps
        steps += 1
        weight = model["line"].weight
        return (weight.square() if steps <= 7 else (0 * weight + root).sqrt()).sum(), {}

    with pytest.raises(FloatingPointError, match="not finite at step 7"):
        train("bad", model, loss, budget=Budget(1, 1, 0.1, checkpoint_seconds=0), folder=tmp_path, device=CPU)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 7
    torch.testing.assert_close(state["model"], dict(model.state_dict()))


def test_learning_rate_warms_up_holds_and_falls():
    budget = Budget(minutes=1, batch_size=1, learning_rate=1.0, warmup_steps=10)
    assert learning_rate(budget, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(budget, 100, 0.5) == pytest.approx(1.0)
    assert learning_rate(budget, 100, 0.75) == pytest.approx(0.51)
    assert learning_rate(budget, 100, 1.0) == pytest.approx(0.02)


def test_velocity_target_gives_back_image_and_noise():
    """v-prediction: x_0 = alpha x_t - sigma v and epsilon = sigma x_t + alpha v."""
    latents = torch.randn(5, 4, 3, 3)
    alphas = make_scheduler().alphas_cumprod
    t, noisy, velocity = add_noise(latents, alphas, torch.Generator().manual_seed(3))
    alpha, sigma = alphas[t, None, None, None].sqrt(), (1 - alphas[t, None, None, None]).sqrt()
    torch.testing.assert_close(alpha * noisy - sigma * velocity, latents, atol=1e-5, rtol=1e-5)


def test_the_coarse_task_is_the_fine_one_averaged():
    """What is asked at half the resolution is the average of what is asked at the whole one, timestep by timestep."""
    latents, alphas = torch.randn(5, 4, 8, 8), make_scheduler().alphas_cumprod
    t, noisy, velocity = add_noise(latents, alphas, torch.Generator().manual_seed(3))
    coarse_t, *coarse = add_noise(latents, alphas, torch.Generator().manual_seed(3), coarse=True)
    assert torch.equal(t, coarse_t)
    for averaged, whole in zip(coarse, (noisy, velocity), strict=True):
        torch.testing.assert_close(averaged, whole.unflatten(-1, (4, 2)).unflatten(-3, (4, 2)).mean((-1, -3)))


def test_noise_may_be_asked_for_instead_of_velocity():
    latents, alphas = torch.randn(5, 4, 3, 3), make_scheduler("epsilon").alphas_cumprod
    t, noisy, noise = add_noise(latents, alphas, torch.Generator().manual_seed(3), "epsilon")
    alpha, sigma = alphas[t, None, None, None].sqrt(), (1 - alphas[t, None, None, None]).sqrt()
    torch.testing.assert_close(noisy - sigma * noise, alpha * latents, atol=1e-5, rtol=1e-5)


def test_a_training_at_two_resolutions_takes_no_longer():
    coarse, fine = coarse_then_fine(Budget(60, 32, 1e-3), 0.4)
    assert coarse.minutes + fine.minutes == 60
    assert (coarse.minutes, coarse.batch_size, fine.batch_size) == (24, 64, 32)


def test_the_loss_of_distances_is_zero_for_the_truth_and_knows_which_way_is_out():
    """A fresh decoder is a ball of about 0.5 whatever the volume; its own distances and slopes are the truth here."""
    torch.manual_seed(0)
    networks, volume = make_cost_volume_networks(), torch.zeros(16, 8, 8, 8)
    points = torch.nn.functional.normalize(torch.randn(200, 3), dim=-1) * 0.5
    sdf, slope = (x.detach() for x in query_sdf_and_gradient(volume, networks.decoder, points))
    sdf = sdf.clamp(-0.09, 0.09)  # near the surface, where directions count
    distance, same = sdf_loss(networks, volume, points, sdf, slope)
    _, opposite = sdf_loss(networks, volume, points, sdf, -slope)
    assert same < 1e-8 and distance < 0.1
    torch.testing.assert_close(opposite, 4 * slope.square().sum(-1).mean())


def test_normalised_latents_are_centred_and_decode_to_the_same_image():
    torch.manual_seed(0)
    vae = make_vae().eval()
    images = torch.randint(0, 255, (4, 128, 128, 3), dtype=torch.uint8)
    pixels = to_network(images, CPU)
    with torch.no_grad():
        before = vae.decode(vae.encode(pixels).latent_dist.mean).sample
        normalize_latents(vae, images, CPU)
        latents = vae.encode(pixels).latent_dist.mean
        after = vae.decode(latents).sample
    torch.testing.assert_close(after, before, atol=2e-4, rtol=1e-3)
    # The statistics are measured in half precision.
    assert latents.mean((0, 2, 3)).abs().max() < 0.02
    assert (latents * vae.config.scaling_factor).std() == pytest.approx(1.0, abs=0.02)


def test_sharpening_the_decoder_leaves_latents_as_they_are(tmp_path):
    torch.manual_seed(0)
    vae = UnshuffleAutoencoderKL((12, 48, 16, 16), sample_size=32)
    images = torch.randint(0, 256, (6, 32, 32, 3), dtype=torch.uint8)
    before = {key: value.clone() for key, value in vae.state_dict().items()}
    views = {"held_out": images[:2], "alpha": torch.full((2, 32, 32), 255, dtype=torch.uint8)}
    budget = Budget(0.02, 2, 1e-3, warmup_steps=1)
    train_decoder(vae, images, **views, budget=budget, folder=tmp_path / "vae_decoder", device=CPU)
    changed = {key for key, value in vae.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert all(key.startswith(("decoder.", "post_quant_conv.")) for key in changed)


def test_crops_of_latents_stand_for_the_crops_of_their_pictures():
    latents = torch.arange(16.0).reshape(1, 1, 4, 4).expand(8, -1, -1, -1)
    pixels = latents[:, 0].repeat_interleave(8, 1).repeat_interleave(8, 2).byte()[..., None].expand(-1, -1, -1, 3)
    parts, crops = aligned_crops(latents, pixels, torch.Generator().manual_seed(0))
    assert parts.shape[-2:] == (2, 2) and crops.shape[1:3] == (16, 16)
    assert torch.equal(parts[:, 0], crops[:, ::8, ::8, 0].float())
    assert len({tuple(part.flatten().tolist()) for part in parts}) > 1, "crops are taken from different places"


def test_lexicon_words_are_single_tokens(tmp_path):
    words = ["a", "red", "mushroom", "on", "log", "front", "view"]
    tokenizer = make_tokenizer(words, tmp_path)
    ids = tokenizer("a red mushroom on a log, front view").input_ids
    assert len(ids) == 2 + 9  # start, eight words and a comma, end
    assert len(tokenizer("a violin").input_ids) > 2 + 2
    assert tokenize(tokenizer, ["a", "a red log"]).shape == (2, tokenizer.model_max_length)


def test_stable_diffusion_pipeline_loads_the_lab_folder_layout(tmp_path):
    """The folder is a plain StableDiffusionPipeline's, though its autoencoder is ours."""
    from diffusers import StableDiffusionPipeline

    torch.manual_seed(0)
    tokenizer, vae = make_tokenizer(["a", "log"], tmp_path / "words"), make_vae()
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=make_text_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=make_unet(vae.config.latent_channels),
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(tmp_path / "model")
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "model", local_files_only=True)
    assert isinstance(pipeline.vae, UnshuffleAutoencoderKL)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a log", num_inference_steps=1, output_type="np").images[0]
    assert image.shape == (128, 128, 3)


def test_text_to_image_is_made_twice_for_velocity_and_for_noise(tmp_path, monkeypatch):
    """As Stable Diffusion 2.1 and 2.1-base; the second has the words and the latents of the first."""
    photographs = {"images": np.random.default_rng(0).integers(0, 255, (1030, 64, 64, 3), np.uint8)}
    photographs["captions"] = np.array(["a log"] * 1030)
    monkeypatch.setattr(train_text_to_image, "make_shards", lambda render, folder, count: [])
    monkeypatch.setattr(train_text_to_image, "load_shards", lambda paths, keys: photographs)
    torch.manual_seed(0)
    make_vae().save_pretrained(tmp_path / "lab" / "text_to_image" / "vae")
    budget = Budget(1e-3, 2, 1e-3, warmup_steps=1)
    bench = Bench(tmp_path / "work", tmp_path / "lab", CPU, budget, False, 1, 1)
    train_text_to_image.make_text_to_image(bench)
    train_text_to_image.make_text_to_image_base(bench)
    velocity, noise = (load_diffusion(tmp_path / "lab" / name) for name in ("text_to_image", "text_to_image_base"))
    kinds = [diffusion.denoiser.scheduler.config.prediction_type for diffusion in (velocity, noise)]
    assert kinds == ["v_prediction", "epsilon"]
    assert torch.equal(velocity.encode_text(["a log"]), noise.encode_text(["a log"]))
    weights = [diffusion.denoiser.unet.state_dict()["conv_in.weight"] for diffusion in (velocity, noise)]
    assert not torch.equal(*weights)
    assert not (tmp_path / "lab" / "text_to_image_base" / "vae").exists()


def test_image_measures():
    image = torch.zeros(1, 4, 4, 3)
    assert psnr(image + 0.1, image) == pytest.approx(20.0, abs=1e-3)
    dx, dy = image_gradients(torch.arange(4.0).expand(1, 1, 4, 4))
    assert (dx == 1).all() and (dy == 0).all()


def test_a_resumed_training_numbers_its_words_as_before(tmp_path):
    words = [f"word{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    first = make_tokenizer(words, tmp_path).get_vocab()
    assert make_tokenizer(reversed(words), tmp_path).get_vocab() == first


def test_attention_written_out_predicts_the_same():
    torch.manual_seed(0)
    unet = make_unet(latent_channels=4).eval()
    inputs = torch.randn(2, 4, 16, 16), torch.tensor([10, 700]), torch.randn(2, 5, 128)
    with torch.no_grad():
        fused = unet(*inputs).sample
        speed_up_training(unet, CPU)
        torch.testing.assert_close(unet(*inputs).sample, fused, atol=1e-4, rtol=1e-3)
