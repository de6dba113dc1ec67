import json
import math
import shutil

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from geodream_lib.errors import InputError
from geodream_lib.views.ddim import ddim_timesteps
from geodream_lib.views.sampling import RelativePose
from geodream_lib.views.zero123.model import CLIP_MEAN, CLIP_STD, CameraProjection, Zero123, clip_pixels, pose_token

EMBEDDING, CONTEXT = 12, 16


def tiny(prediction_type: str = "epsilon", stable: bool = False) -> Zero123:
    """Zero123 with random networks: 16 px images, 8x8 latents."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=4,
        block_out_channels=(16, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=2,
        cross_attention_dim=CONTEXT,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 16),
        norm_num_groups=8,
        latent_channels=4,
    )
    encoder = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
            projection_dim=EMBEDDING,
        )
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )
    projection = CameraProjection(EMBEDDING, CONTEXT)
    model = Zero123(unet, vae, encoder, projection, scheduler, stable=stable)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model() -> Zero123:
    return tiny()


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("zero123")
    model.save(folder)
    return folder


REFERENCE = torch.rand(16, 16, 3, generator=torch.Generator().manual_seed(1))
POSES = [RelativePose(a, e, "test") for a, e in ((0.0, 0.0), (90.0, 10.0), (-120.0, -20.0))]


def predict(model: Zero123, seed: int = 0, **changes) -> torch.Tensor:
    arguments = {"steps": 3, "guidance": 3.0, "eta": 1.0} | changes
    return model.predict(REFERENCE, POSES, generator=torch.Generator().manual_seed(seed), **arguments)


def test_one_image_for_every_pose_and_the_seed_decides(model):
    images = predict(model)
    assert images.shape == (3, 16, 16, 3)
    assert images.min() >= 0 and images.max() <= 1
    assert torch.equal(images, predict(model))
    assert not torch.allclose(images, predict(model, seed=1))


def test_the_result_does_not_depend_on_the_batch_size(model):
    torch.testing.assert_close(predict(model, batch_size=2), predict(model), atol=1e-4, rtol=0)


def test_guidance_one_is_the_conditional_prediction_and_zero_the_unconditional_one(model):
    """uncond + s (cond - uncond), with zeros for both conditions in the unconditional half."""
    latent, token, sample = torch.randn(2, 4, 8, 8), torch.randn(2, 1, CONTEXT), torch.randn(2, 4, 8, 8)
    conditional = model.unet(torch.cat([sample, latent], 1), 7, token).sample
    blind = model.unet(torch.cat([sample, torch.zeros_like(sample)], 1), 7, torch.zeros_like(token)).sample
    for guidance in (0.0, 1.0, 3.0):
        guided = model.guided(sample, token, latent, 7, guidance)
        torch.testing.assert_close(guided, blind + guidance * (conditional - blind), atol=1e-5, rtol=1e-4)


def test_without_guidance_neither_reference_nor_pose_matters(model):
    images = predict(model, guidance=0.0, eta=0.0)
    other = model.predict(1 - REFERENCE, POSES[::-1], 3, 0.0, 0.0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(images, other, atol=1e-5, rtol=0)


def test_the_reference_latent_is_the_unscaled_mode(model):
    _, latent = model.conditions(REFERENCE[None])
    posterior = model.vae.encode(REFERENCE.permute(2, 0, 1)[None] * 2 - 1).latent_dist
    torch.testing.assert_close(latent, posterior.mean)


def test_clip_sees_normalised_pixels():
    pixels = clip_pixels(torch.tensor(CLIP_MEAN)[None, :, None, None].expand(1, 3, 9, 9) + 0.0, 16)
    assert pixels.abs().max() < 1e-5
    pixels = clip_pixels(torch.ones(1, 3, 9, 9), 16)
    torch.testing.assert_close(pixels[0, :, 0, 0], (1 - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD))
    corners = torch.rand(1, 3, 9, 9)
    torch.testing.assert_close(
        clip_pixels(corners, 33)[..., ::32, ::32], clip_pixels(corners, 9)[..., ::8, ::8], atol=1e-5, rtol=0
    )


def test_the_camera_projection_starts_as_the_identity_on_the_embedding():
    projection = CameraProjection(EMBEDDING, EMBEDDING)
    embedding = torch.randn(2, EMBEDDING)
    torch.testing.assert_close(projection(embedding, torch.zeros(2, 4))[:, 0], embedding)
    assert not torch.allclose(projection(embedding, torch.ones(2, 4))[:, 0], embedding), (
        "the pose is heard from the start"
    )


def test_the_reference_elevation_is_heard_by_stable_zero123_only():
    for stable in (False, True):
        model = tiny(stable=stable)
        same = torch.equal(predict(model), predict(model, reference_elevation=20.0))
        assert same is not stable


@pytest.mark.parametrize(
    "stable, arguments, expected",
    [
        (False, {"radius": 0.3}, 0.3),  # Zero123
        (True, {"reference_elevation": 30.0}, math.pi / 3),  # Stable Zero123
        (False, {}, 0.0),  # One-2-3-45 and GeoDream
        (True, {}, math.pi / 2),  # GeoDream with Stable Zero123
    ],
)
def test_the_fourth_number_of_the_pose_follows_the_rule_asked_for(stable, arguments, expected):
    model, seen = tiny(stable=stable), []
    model.clip_camera_projection.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    predict(model, **arguments)
    azimuth, elevation = (torch.tensor([getattr(pose, name) for pose in POSES]) for name in ("azimuth", "elevation"))
    wanted = pose_token(azimuth, elevation, torch.full_like(azimuth, expected))
    torch.testing.assert_close(seen[0], wanted, atol=1e-6, rtol=0)


def test_the_full_schedule_is_the_scheduler_s_own(model):
    assert ddim_timesteps(model.scheduler, 4) == [751, 501, 251, 1]
    assert ddim_timesteps(model.scheduler, 4, drop_noisiest=True) == [501, 251, 1]
    seventy_five = ddim_timesteps(model.scheduler, 75, drop_noisiest=True)
    assert (len(seventy_five), seventy_five[0]) == (76, 976)


def test_progress_counts_to_the_end(model):
    seen = []
    predict(model, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_lower_precision_stays_near(model):
    exact, rough = predict(model, eta=0.0, guidance=1.0), predict(model, eta=0.0, guidance=1.0, autocast=torch.bfloat16)
    assert rough.dtype == torch.float32
    assert (exact - rough).abs().mean() < 0.03


def test_velocity_prediction_is_read_from_the_scheduler(model):
    assert not torch.allclose(predict(tiny("v_prediction")), predict(model))


def test_bad_arguments_are_named(model):
    with pytest.raises(InputError, match="16x14; expected a square"):
        model.predict(REFERENCE[:14], POSES, 2, 3.0, 0.0, torch.Generator())
    with pytest.raises(InputError, match="multiple of 2"):
        model.predict(REFERENCE[:15, :15], POSES, 2, 3.0, 0.0, torch.Generator())
    with pytest.raises(InputError, match="no pose"):
        model.predict(REFERENCE, [], 2, 3.0, 0.0, torch.Generator())


def test_save_and_load_give_the_same_pictures(model, saved):
    loaded = Zero123.load(saved)
    assert not loaded.stable and not loaded.training
    assert torch.equal(predict(loaded), predict(model))


def test_what_is_stored_says_whether_it_is_stable(tmp_path):
    tiny(stable=True).save(tmp_path)
    assert Zero123.load(tmp_path).stable
    assert not Zero123.load(tmp_path, stable=False).stable
    # Public conversions say nothing about it.
    config = tmp_path / "clip_camera_projection" / "config.json"
    config.write_text(json.dumps({"embedding_dim": EMBEDDING, "additional_embeddings": 4}))
    assert not Zero123.load(tmp_path).stable


def test_half_precision_weights_are_computed_in_the_type_asked_for(model, saved, tmp_path):
    tiny().half().save(tmp_path)
    loaded = Zero123.load(tmp_path)
    assert all(parameter.dtype == torch.float32 for parameter in loaded.parameters())
    torch.testing.assert_close(predict(loaded), predict(model), atol=0.05, rtol=0)


@pytest.mark.parametrize("part", ["unet", "vae", "image_encoder", "clip_camera_projection", "scheduler"])
def test_a_missing_part_is_named(saved, tmp_path, part):
    shutil.copytree(saved, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / part)
    with pytest.raises(InputError, match=f"has no {part}/"):
        Zero123.load(tmp_path / "copy")


@pytest.mark.parametrize("part", ["unet", "vae", "image_encoder", "clip_camera_projection"])
def test_truncated_weights_are_named(saved, tmp_path, part):
    shutil.copytree(saved, tmp_path / "copy")
    weights = next((tmp_path / "copy" / part).glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(InputError, match=part):
        Zero123.load(tmp_path / "copy")


def test_foreign_folders_are_named(saved, tmp_path):
    with pytest.raises(InputError, match="not a Zero123 folder"):
        Zero123.load(tmp_path)
    shutil.copytree(saved, tmp_path / "copy")
    foreign = UNet2DConditionModel(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=CONTEXT,
    )
    foreign.save_pretrained(tmp_path / "copy" / "unet")
    with pytest.raises(InputError, match="4 input channels; expected 8"):
        Zero123.load(tmp_path / "copy")
    shutil.copy(
        saved / "vae" / "diffusion_pytorch_model.safetensors",
        tmp_path / "copy" / "unet" / "diffusion_pytorch_model.safetensors",
    )
    with pytest.raises(InputError, match="unet"):
        Zero123.load(tmp_path / "copy")
    (tmp_path / "copy" / "unet" / "config.json").write_text("{")
    with pytest.raises(InputError, match="unet"):
        Zero123.load(tmp_path / "copy")
    for part in ("unet", "vae"):
        shutil.rmtree(tmp_path / "copy" / part)
        shutil.copytree(saved / part, tmp_path / "copy" / part)
    CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, projection_dim=8
        )
    ).save_pretrained(tmp_path / "copy" / "image_encoder")
    with pytest.raises(InputError, match="clip_camera_projection"):
        Zero123.load(tmp_path / "copy")


def test_conditions_can_be_trained_through(model):
    """The lab trains the image encoder along: a gradient reaches it and the projection."""
    trained = tiny()
    trained.image_encoder.requires_grad_(True)
    embedding, _ = trained.conditions(REFERENCE[None])
    trained.clip_camera_projection(embedding, torch.zeros(1, 4)).sum().backward()
    assert all(p.grad is not None for p in trained.image_encoder.visual_projection.parameters())
