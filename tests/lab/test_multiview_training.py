"""The trainers of the networks that show several views at once: their data, where they begin, what they write."""

import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from geodream_lib.cameras import azimuth_elevation, orbit
from geodream_lib.data import data_folder
from geodream_lib.guidance.diffusion import Denoiser, LatentDiffusion
from geodream_lib.lab import imagined, latents, multiview_data, train_mvdream, train_zero123plus
from geodream_lib.lab.bench import Bench
from geodream_lib.lab.datasets import TURNTABLE_FOV, TURNTABLE_RADIUS
from geodream_lib.lab.imagined import redraw_once
from geodream_lib.lab.latents import encode_dataset
from geodream_lib.lab.multiview_data import faded, orbit_angles, render_orbits, render_tiles
from geodream_lib.lab.networks import (
    CONTEXT,
    IMAGE_SIZE,
    LATENT_SIZE,
    SHARED,
    make_scheduler,
    make_text_encoder,
    make_tokenizer,
    make_zero123plus_scheduler,
    publish,
    speed_up_training,
)
from geodream_lib.lab.objects import HELD_OUT, LabObject, sample_object
from geodream_lib.lab.render import render_rgba
from geodream_lib.lab.train_mvdream import make_mvdream, multiview_loss, orbit_conditions, start_mvdream
from geodream_lib.lab.train_zero123plus import (
    CONTRAST,
    make_zero123plus,
    normalized,
    shown,
    start_zero123plus,
    zero123plus_loss,
)
from geodream_lib.lab.training import Budget
from geodream_lib.pipeline import predict_views
from geodream_lib.plan.views import view_steps
from geodream_lib.presets import load_preset
from geodream_lib.run import create_run
from geodream_lib.unshuffle_vae import UnshuffleAutoencoderKL
from geodream_lib.views import MVDream, Zero123Plus, pose_cameras, zero123plus_viewpoints
from geodream_lib.views.mvdream.model import AZIMUTHS, view_cameras
from geodream_lib.views.zero123plus.attention import predict_with_reference, reference_tokens
from geodream_lib.views.zero123plus.image import GREY, network_pixels
from geodream_lib.views.zero123plus.layout import join_tiles, split_tiles

CPU = torch.device("cpu")
TILE = 16


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


def random_images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """First names of what is not as it was."""
    return {name.split(".")[0] for name, tensor in after.items() if not torch.equal(tensor, before[name])}


# --- data


def test_orbits_are_the_four_views_that_mvdream_is_asked_for(two_objects):
    shard = render_orbits(0, "train")
    for index, obj in enumerate(two_objects):
        azimuth, elevation = (torch.from_numpy(shard[name][index]) for name in ("azimuth", "elevation"))
        turn = (azimuth - azimuth[0]) % 360
        torch.testing.assert_close(turn, torch.tensor(AZIMUTHS), atol=1e-3, rtol=0)
        assert (elevation == elevation[0]).all() and 0 <= elevation[0] <= 30
        cameras = orbit(azimuth, elevation, TURNTABLE_RADIUS, TURNTABLE_FOV, IMAGE_SIZE)
        again, _ = render_rgba([obj] * 4, cameras, np.ones((4, 3), np.float32), threads=1)
        assert (again == shard["images"][index]).all()
        condition = orbit_conditions(azimuth[None], elevation[None])[0]
        seen_from = azimuth_elevation(condition.view(-1, 4, 4)[:, :3, 3])
        torch.testing.assert_close(seen_from[0] % 360, azimuth, atol=1e-3, rtol=0)
    asked = orbit_conditions(torch.tensor([AZIMUTHS]), torch.full((1, 4), 15.0))[0]
    torch.testing.assert_close(asked, view_cameras(15.0), atol=1e-6, rtol=0)
    assert not any("view" in text for text in shard["captions"])


def test_half_of_the_orbits_begin_at_the_front():
    rng = np.random.default_rng(0)
    starts = np.array([orbit_angles(rng)[0][0] for _ in range(2000)])
    assert 0.45 < (starts == 0).mean() < 0.55
    others = starts[starts != 0]
    assert np.histogram(others, 4, (0, 360))[0].min() > 0.2 * len(others)


def test_tiles_stand_where_the_pipeline_says_they_do(two_objects, monkeypatch):
    """Tile k is what the camera of `zero123plus_viewpoints` sees: the preset's version, distance and angle."""
    angles = (("front", 0.0, 10.0), ("left", 90.0, 20.0))
    poses = iter([angle[1:] for angle in angles])
    monkeypatch.setattr(multiview_data, "reference_angles", lambda rng: next(poses))
    shard, settings = render_tiles(0, "train"), load_preset("lab").views
    assert shard["tiles"].shape[2] == settings.tile
    for index, (word, azimuth, elevation) in enumerate(angles):
        relative = zero123plus_viewpoints(settings.zero123plus_version, elevation)
        placed = [type(pose)(pose.azimuth, pose.elevation, pose.rule, azimuth) for pose in relative]
        cameras = pose_cameras(placed, elevation, settings.radius, settings.fov_y, settings.tile)
        grey = np.full((6, 3), GREY / 255, np.float32)
        again, _ = render_rgba([two_objects[index]] * 6, cameras, grey, threads=1)
        difference = np.abs(again.astype(int) - shard["tiles"][index])
        assert (difference > 2).mean() < 1e-3, "angles are rounded in single precision"
        assert ("side view" if word == "left" else "front view") in shard["captions"][index]
    assert (shard["tiles"][:, :, 0, 0] == GREY).all()


@pytest.mark.parametrize("render", [render_orbits, render_tiles])
def test_shards_differ_and_held_out_objects_are_never_trained_on(two_objects, render):
    shards = [render(0, "train"), render(1, "train"), render(0, "held_out"), render(0, "train")]
    for key in ("captions", *(key for key in shards[0] if shards[0][key].ndim > 3)):
        assert np.array_equal(shards[0][key], shards[3][key]), "the seed decides"
        assert not any(np.array_equal(shards[0][key], other[key]) for other in shards[1:3])
    held = [(obj.category, obj.colors[0]) in HELD_OUT for obj in two_objects]
    assert held == [False] * 4 + [True] * 2 + [False] * 2


def test_pictures_of_tiles_are_taken_apart_as_they_were_put_together():
    tiles = random_images(2, 6, TILE, TILE)
    pictures = join_tiles(tiles).float().permute(0, 3, 1, 2)
    assert torch.equal(torch.stack([split_tiles(picture) for picture in pictures]), tiles.float())


# --- MVDream


def test_mvdream_begins_as_the_text_to_image_network(diffusion):
    noisy, text = torch.randn(4, 6, 16, 16), torch.randn(4, 5, CONTEXT)
    t, camera = torch.randint(1000, (4,)), torch.randn(4, 16)
    plain = diffusion.denoiser.raw(noisy, t, text)
    network = start_mvdream(diffusion).network
    torch.testing.assert_close(network(noisy, t, text, camera, 1), plain, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        network(noisy[:1].expand(4, -1, -1, -1), t[:1].expand(4), text[:1].expand(4, -1, -1), camera, 4),
        plain[:1].expand(4, -1, -1, -1),
        atol=1e-5,
        rtol=1e-4,
    )


def test_mvdream_learns_a_batch(diffusion):
    mvdream = start_mvdream(diffusion)
    trained = mvdream.network.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained.parameters(), 3e-3)
    latents, cameras = torch.randn(2, 4, 6, 8, 8), orbit_conditions(torch.tensor([AZIMUTHS] * 2), torch.zeros(2, 4))
    errors = []
    for _ in range(10):
        error = multiview_loss(mvdream, latents, ["a red log", ""], cameras, torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.9 * errors[0]
    assert trained.camera_embedding.linear_1.weight.grad.abs().max() > 0, "the camera has begun to speak"


def test_a_wrong_velocity_costs_its_square(diffusion, monkeypatch):
    """All views of an object have one timestep, and what is asked for is the velocity of each."""
    mvdream, latents, shown_at = start_mvdream(diffusion), torch.randn(3, 4, 6, 8, 8), []
    alphas = diffusion.denoiser.alphas_cumprod

    def knows(noisy, t, text, camera, views):
        shown_at.append(t)
        alpha = alphas[t, None, None, None]
        noise = (noisy - alpha.sqrt() * latents.flatten(0, 1)) / (1 - alpha).sqrt()
        return alpha.sqrt() * noise - (1 - alpha).sqrt() * latents.flatten(0, 1) + 0.5

    monkeypatch.setattr(mvdream.network, "forward", knows)
    error = multiview_loss(mvdream, latents, ["a log"] * 3, torch.zeros(3, 4, 16), torch.Generator().manual_seed(0))
    assert error.item() == pytest.approx(0.25, rel=1e-3)
    t = shown_at[0].unflatten(0, (3, 4))
    assert (t == t[:, :1]).all() and len(t[:, 0].unique()) == 3


def test_a_training_of_mvdream_moves_what_sees_the_views(diffusion, tmp_path):
    mvdream, count = start_mvdream(diffusion), 33
    before = {name: tensor.clone() for name, tensor in mvdream.state_dict().items()}
    angles = torch.tensor([AZIMUTHS]).repeat(count, 1)
    data = random_images(count, 4, 32, 32), angles, angles.mul(0), ["a log"] * count, random_images(130, 32, 32)
    common = {"folder": tmp_path / "state", "device": CPU}
    words = ["a red log"] * 130
    train_mvdream.train_mvdream(mvdream, *data, words, budget=Budget(0.0, 2, 1e-3), **common)
    assert moved(before, mvdream.state_dict()) == set()
    train_mvdream.train_mvdream(mvdream, *data, words, budget=Budget(2e-3, 2, 1e-3, warmup_steps=1), **common)
    assert moved(before, mvdream.state_dict()) == {"network"} | {"diffusion"}
    kept = ("diffusion.vae", "diffusion.text_encoder")
    after = mvdream.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith(kept))
    assert "held_out_loss_2d" in (tmp_path / "state" / "log.jsonl").read_text()


# --- Zero123++


def test_references_are_seen_as_the_networks_will_be_shown_them(diffusion, monkeypatch):
    monkeypatch.setattr(latents, "fast_autocast", lambda _: nullcontext())  # in bfloat16 the last bits differ
    model = start_zero123plus(diffusion)
    image, alpha = random_images(IMAGE_SIZE, IMAGE_SIZE), torch.zeros(IMAGE_SIZE, IMAGE_SIZE)
    alpha[32:96, 32:96] = 1.0
    grey = shown(image, alpha)
    assert torch.equal(grey[32:96, 32:96], image[32:96, 32:96]) and (grey[:32] == GREY).all()
    for how in (model.feature_extractor_vae, model.feature_extractor_clip):
        torch.testing.assert_close(normalized(grey[None], how), network_pixels(grey, how), atol=1e-6, rtol=0)
    white = torch.where(alpha[..., None] > 0, image, torch.tensor(255, dtype=torch.uint8))
    low = faded(white[None], (alpha * 255).byte()[None]).permute(0, 3, 1, 2).float() / 127.5 - 1
    torch.testing.assert_close(low, normalized(grey[None], model.feature_extractor_vae), atol=0.005, rtol=0)
    moments = encode_dataset(model.vae, grey[None], CPU, CONTRAST)
    with torch.no_grad():
        seen = model.vae.encode(network_pixels(grey, model.feature_extractor_vae)).latent_dist
    torch.testing.assert_close(moments.float(), torch.cat([seen.mean, seen.std], dim=1), atol=2e-3, rtol=2e-3)


def zero123plus_batch(model: Zero123Plus, n: int) -> dict[str, torch.Tensor]:
    images = random_images(n, IMAGE_SIZE, IMAGE_SIZE)
    return {
        "pictures": encode_dataset(model.vae, join_tiles(random_images(n, 6, TILE, TILE)), CPU, CONTRAST),
        "references": encode_dataset(model.vae, images, CPU, CONTRAST),
        "images": images,
    }


def test_zero123plus_learns_a_batch(diffusion):
    model = start_zero123plus(diffusion)
    ramp = torch.nn.Parameter(torch.tensor(model.ramping_coefficients))
    trained = [ramp, *model.unet.parameters(), *model.vision_encoder.parameters()]
    optimizer = torch.optim.AdamW([p.requires_grad_(True) for p in trained], 3e-3)
    data, drop, errors = zero123plus_batch(model, 3), torch.tensor([False, True, False]), []
    for _ in range(10):
        error = zero123plus_loss(model, ramp, **data, drop=drop, generator=torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.9 * errors[0]
    assert ramp.grad.abs().max() > 0 and model.vision_encoder.visual_projection.weight.grad.abs().max() > 0


def test_a_dropped_reference_is_not_seen(diffusion):
    model = start_zero123plus(diffusion)
    data, ramp = zero123plus_batch(model, 2), torch.tensor(model.ramping_coefficients)
    other = data | {"references": data["references"].flip(0), "images": data["images"].flip(0)}

    def error(data: dict[str, torch.Tensor], dropped: bool) -> float:
        drop = torch.full((2,), dropped)
        with torch.no_grad():
            return zero123plus_loss(model, ramp, **data, drop=drop, generator=torch.Generator().manual_seed(0)).item()

    assert error(data, True) == error(other, True)
    assert error(data, False) != error(other, False)


def test_attention_written_out_looks_at_the_same_reference(diffusion):
    unet = start_zero123plus(diffusion).unet
    channels, width = unet.config.in_channels, unet.config.cross_attention_dim
    noisy, latent, text = torch.randn(1, channels, 12, 8), torch.randn(1, channels, 8, 8), torch.randn(1, 5, width)

    def predicted() -> torch.Tensor:
        return predict_with_reference(unet, noisy, 400, text, reference_tokens(unet, latent, 400, text))

    with torch.no_grad():
        fused = predicted()
        speed_up_training(unet, CPU)
        torch.testing.assert_close(predicted(), fused, atol=1e-4, rtol=1e-3)
        latent = -latent
        assert not torch.allclose(predicted(), fused, atol=1e-3), "it does look at the reference"


def test_the_coarse_task_of_zero123plus_averages_tiles_and_reference(diffusion, monkeypatch):
    """The same draws at half the resolution: what is written and what reads it stay at one noise level."""
    model, shown = start_zero123plus(diffusion), []
    data, drop = zero123plus_batch(model, 2), torch.tensor([False, True])

    def write(unet, latent, t, text):
        shown.append(latent)

    def read(unet, noisy, t, text, tokens):
        shown.append(noisy)
        return torch.zeros_like(noisy)

    monkeypatch.setattr(train_zero123plus, "reference_tokens", write)
    monkeypatch.setattr(train_zero123plus, "predict_with_reference", read)
    ramp = torch.tensor(model.ramping_coefficients)
    for coarse in (False, True):
        zero123plus_loss(model, ramp, **data, drop=drop, generator=torch.Generator().manual_seed(0), coarse=coarse)
    for whole, averaged in zip(shown[:2], shown[2:], strict=True):
        torch.testing.assert_close(averaged, torch.nn.functional.avg_pool2d(whole, 2))


def test_a_training_of_zero123plus_moves_what_sees_the_reference(diffusion, tmp_path):
    model, count = start_zero123plus(diffusion), 34
    before, ramp = {name: x.clone() for name, x in model.state_dict().items()}, model.ramping_coefficients
    references = random_images(count, IMAGE_SIZE, IMAGE_SIZE)
    data = references, references[:1], random_images(count, 6, TILE, TILE)
    common = {"folder": tmp_path / "state", "device": CPU}
    train_zero123plus.train_zero123plus(model, *data, budget=Budget(0.0, 2, 1e-3), **common)
    assert moved(before, model.state_dict()) == set() and model.ramping_coefficients == pytest.approx(ramp)
    train_zero123plus.train_zero123plus(model, *data, budget=Budget(1e-3, 2, 1e-3, warmup_steps=1), **common)
    assert moved(before, model.state_dict()) == {"unet", "vision_encoder"}
    assert model.ramping_coefficients != pytest.approx(ramp, abs=1e-6)


def test_the_noise_schedule_of_zero123plus_is_the_released_one():
    """Betas grow linearly from 0.00085 to 0.012; nearly nothing is left of the picture at the end."""
    betas = make_zero123plus_scheduler().betas
    torch.testing.assert_close(betas, torch.linspace(0.00085, 0.012, 1000))
    assert make_zero123plus_scheduler().alphas_cumprod[-1] < make_scheduler().alphas_cumprod[-1]


# --- what is written


def state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.half() for name, tensor in network.state_dict().items()}


def test_networks_are_published_beside_text_to_image_and_their_card_stays(diffusion, lab):
    for name, start in (("mvdream", start_mvdream), ("zero123plus", start_zero123plus)):
        folder = lab / name
        folder.mkdir()
        (folder / "README.md").write_text("card")
        (folder / "unet").mkdir()
        (folder / "unet" / "weights.bin").write_text("of an earlier one")
        model = start(diffusion)
        publish(model, folder)
        loaded, wanted = type(model).load(folder), state(model)
        assert all(torch.equal(tensor, wanted[key]) for key, tensor in state(loaded).items())
        assert not (folder / "unet" / "weights.bin").exists()
        assert (folder / "README.md").read_text() == "card"
        assert not any((folder / part).exists() for part in SHARED)
    assert sorted(path.name for path in lab.iterdir()) == ["mvdream", "text_to_image", "zero123plus"]


@pytest.mark.parametrize("recipe", [make_mvdream, make_zero123plus])
def test_recipes_go_from_text_to_image_to_a_folder_and_on_from_there(lab, tmp_path, monkeypatch, recipe):
    photographs = {"images": random_images(130, IMAGE_SIZE, IMAGE_SIZE).numpy(), "captions": np.array(["a log"] * 130)}
    monkeypatch.setattr(multiview_data, "OBJECTS_PER_SHARD", 34)
    monkeypatch.setattr(train_zero123plus, "REDRAWN", 2)
    for module, render in ((train_mvdream, render_orbits), (train_zero123plus, render_tiles)):
        shard = render(0, "train") if module.__name__.endswith(recipe.__name__.removeprefix("make_")) else {}
        monkeypatch.setattr(module, "multiview_shards", lambda *_, shard=shard: shard)
    monkeypatch.setattr(train_mvdream, "make_shards", lambda render, folder, count: [])
    monkeypatch.setattr(train_mvdream, "load_shards", lambda paths, keys: photographs)
    bench = Bench(tmp_path / "work", lab, CPU, Budget(5e-4, 2, 1e-3, warmup_steps=1), False, 4, 1)
    name = recipe.__name__.removeprefix("make_")
    model = {"mvdream": MVDream, "zero123plus": Zero123Plus}[name]
    recipe(bench)
    assert (lab / name / "training.jsonl").read_text()
    before = state(model.load(lab / name))
    recipe(replace(bench, work=tmp_path / "more", warm_start=True, budget=Budget(1e-6, 2, 1e-9)))
    after = state(model.load(lab / name))
    assert all(torch.equal(tensor, before[key]) for key, tensor in after.items())


def test_references_are_redrawn_once_for_a_network_and_its_pictures(lab, tmp_path, monkeypatch):
    images, text_to_image = random_images(1, 1, IMAGE_SIZE, IMAGE_SIZE), lab / "text_to_image"
    first = redraw_once(text_to_image, images, ["a log"], tmp_path / "work", CPU)
    other = redraw_once(text_to_image, images, ["a red mushroom"], tmp_path / "work", CPU)
    assert first.shape == images.shape and not torch.equal(first, images) and not torch.equal(first, other)
    monkeypatch.setattr(imagined, "load_diffusion", lambda *_: pytest.fail("it was redrawn before"))
    assert torch.equal(redraw_once(text_to_image, images, ["a log"], tmp_path / "work", CPU), first)


def test_the_lab_preset_reaches_source_views_with_them(diffusion, lab, tmp_path, monkeypatch):
    """Four sides by MVDream, looked around by Zero123++: words in, posed views out."""
    publish(start_mvdream(diffusion), lab / "mvdream")
    publish(start_zero123plus(diffusion), lab / "zero123plus")
    shutil.copytree(data_folder() / "prompts", lab.parent / "prompts")
    monkeypatch.setenv("GEODREAM_DATA", str(lab.parent))
    settings = {"views.reference": "mvdream", "views.predictor": "zero123plus"}
    settings |= {"views.mvdream_steps": 2, "views.steps": 2}
    run = create_run("a red mushroom on a log", tmp_path / "run", overrides=settings)
    views = predict_views(run)
    # MVDream's four, and of Zero123++'s six the two that are within 45 degrees of front, left and right.
    assert len(views.images) == 4 + 3 * 2 and views.images.shape[1:] == (IMAGE_SIZE, IMAGE_SIZE, 3)
    azimuth, _ = azimuth_elevation(views.cameras.c2w[:, :3, 3])
    expected = [0, 90, 180, 270, 30, 330, 120, 60, 300, 240]
    torch.testing.assert_close(azimuth % 360, torch.tensor(expected).float(), atol=1e-2, rtol=0)
    assert [step.what for step in view_steps(run.preset, image=False)] == ["MVDream", "Zero123++"], "and can be planned"
