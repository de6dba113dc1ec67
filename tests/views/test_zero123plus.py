import json
import shutil

import pytest
import torch
from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from geodream_lib.errors import InputError
from geodream_lib.views import Zero123Plus, pose_cameras, released_viewpoints, zero123plus_viewpoints
from geodream_lib.views.zero123plus.files import INPUTS, NETWORKS, PLAIN
from geodream_lib.views.zero123plus.image import ImageInput, network_pixels, on_grey
from geodream_lib.views.zero123plus.layout import split_tiles

WIDTH, TOKENS, TILE = 16, 9, 16


def tiny(folder) -> Zero123Plus:
    """Zero123++ with random networks: tiles of 16 px, latents half as large, a text of 9 tokens."""
    torch.manual_seed(0)
    vocabulary = {"<|startoftext|>": 2, "<|endoftext|>": 3, "!": 0, "a</w>": 1}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    text = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
    )
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        projection_dim=WIDTH,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=2,
        cross_attention_dim=WIDTH,
        norm_num_groups=8,
        use_linear_projection=True,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 16),
        norm_num_groups=8,
        latent_channels=4,
    )
    model = Zero123Plus(
        unet=unet,
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer.from_pretrained(folder, pad_token="!"),
        vision_encoder=CLIPVisionModelWithProjection(vision),
        scheduler=EulerAncestralDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, prediction_type="v_prediction", steps_offset=1
        ),
        feature_extractor_vae=ImageInput(24, (0.5,) * 3, (0.8,) * 3, Image.Resampling.BILINEAR),
        feature_extractor_clip=ImageInput(16, (0.48, 0.46, 0.41), (0.27, 0.26, 0.28), Image.Resampling.BICUBIC),
        ramping_coefficients=[k / (TOKENS - 1) for k in range(TOKENS)],
    )
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Zero123Plus:
    return tiny(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("zero123plus")
    model.save(folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


REFERENCE = torch.rand(20, 20, 4, generator=torch.Generator().manual_seed(1))


def predict(model: Zero123Plus, seed: int = 0, reference: torch.Tensor = REFERENCE, **changes) -> torch.Tensor:
    arguments = {"steps": 3, "guidance": 4.0, "tile": TILE} | changes
    return model.predict(reference, torch.Generator().manual_seed(seed), **arguments)


def test_six_views_and_the_seed_decides(model):
    views = predict(model)
    assert views.shape == (6, TILE, TILE, 3) and views.dtype == torch.float32
    assert views.min() >= 0 and views.max() <= 1
    assert torch.equal(views, predict(model))
    assert not torch.allclose(views, predict(model, seed=1))
    assert not torch.allclose(views, predict(model, reference=1 - REFERENCE))


def test_guidance_zero_knows_nothing_of_the_reference(model):
    """The unconditional half has the plain empty prompt and reads the latent of a grey image."""
    other = predict(model, reference=torch.zeros(30, 30, 3), guidance=0.0)
    torch.testing.assert_close(predict(model, guidance=0.0), other, atol=1e-5, rtol=0)


def test_the_two_halves_are_those_of_grey_and_of_the_reference(model):
    """The latents are drawn samples: with noise of one sign they lie on either side of the posterior's mean."""
    up = model.condition(REFERENCE, lambda shape: torch.ones(shape))
    down = model.condition(REFERENCE, lambda shape: -torch.ones(shape))
    pixels = network_pixels(on_grey(REFERENCE), model.feature_extractor_vae)
    posterior = model.vae.encode(torch.cat([torch.zeros_like(pixels), pixels])).latent_dist
    torch.testing.assert_close((up.latent + down.latent) / 2, posterior.mean, atol=1e-5, rtol=0)
    torch.testing.assert_close((up.latent - down.latent) / 2, posterior.std, atol=1e-5, rtol=0)
    assert torch.equal(up.text[0, 0], up.text[1, 0]), "the first token's ramp weight is zero"
    assert not torch.allclose(up.text[0, 1:], up.text[1, 1:])


def test_the_empty_prompt_is_padded_with_the_tokenizer_s_own_padding(model):
    assert model.empty_prompt().tolist() == [[2, 3] + [0] * (TOKENS - 2)]


def test_progress_counts_to_the_end(model):
    seen = []
    predict(model, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_lower_precision_stays_near(model, saved):
    exact = predict(model, guidance=1.0)
    for rough in (predict(model, guidance=1.0, autocast=torch.bfloat16), predict(_half(saved), guidance=1.0)):
        assert rough.dtype == torch.float32
        assert (exact - rough).abs().mean() < 0.03


def _half(saved) -> Zero123Plus:
    loaded = Zero123Plus.load(saved, dtype=torch.float16)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float16}
    return loaded


def test_bad_arguments_are_named(model):
    with pytest.raises(InputError, match="20x18; expected a square of at least 16x16"):
        predict(model, reference=REFERENCE[:18])
    with pytest.raises(InputError, match="14x14; expected a square of at least 16x16"):
        predict(model, reference=REFERENCE[:14, :14])
    with pytest.raises(InputError, match="2 channels"):
        predict(model, reference=REFERENCE[..., :2])
    with pytest.raises(InputError, match="multiple of 2"):
        predict(model, tile=15)
    for steps in (0, 1001):
        with pytest.raises(InputError, match=f"{steps} sampling steps.*1 to 1000"):
            predict(model, steps=steps)


def test_the_views_are_tiles_row_by_row():
    rows = [torch.cat([torch.full((3, 4, 4), float(2 * row + column)) for column in (0, 1)], 2) for row in range(3)]
    tiles = split_tiles(torch.cat(rows, dim=1))
    assert tiles.shape == (6, 4, 4, 3)
    assert [tile.unique().tolist() for tile in tiles] == [[0], [1], [2], [3], [4], [5]]


def test_elevations_are_absolute():
    """Whatever the reference's elevation is, the outputs' cameras are the same; only the poses from it differ."""
    for version, up, down in (("1.1", 30.0, -20.0), ("1.2", 20.0, -10.0)):
        for elevation in (0.0, 15.0):
            poses = zero123plus_viewpoints(version, elevation)
            assert [pose.azimuth for pose in poses] == [30, 90, 150, 210, 270, 330]
            assert [pose.elevation + elevation for pose in poses] == [up, down] * 3
    level, raised = (pose_cameras(zero123plus_viewpoints("1.1", e), e, 1.2, 49.13, 32) for e in (0.0, 15.0))
    torch.testing.assert_close(level.c2w, raised.c2w)
    with pytest.raises(InputError, match="'1.1', '1.2'"):
        zero123plus_viewpoints("1.0", 0.0)


def test_the_released_list_takes_its_poses_from_here():
    six = {(pose.azimuth, pose.elevation) for pose in zero123plus_viewpoints("1.1", 0.0)}
    released = [pose for pose in released_viewpoints("text") if "Zero123++" in pose.rule]
    assert released and all((pose.azimuth, pose.elevation) in six for pose in released)


def test_save_and_load_give_the_same_pictures(model, saved):
    loaded = Zero123Plus.load(saved)
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded.ramping_coefficients == model.ramping_coefficients
    assert torch.equal(predict(loaded), predict(model))


def test_code_in_the_folder_is_not_run(model, copy):
    """Public folders come with a pipeline file; theirs is not needed, and a foreign one does no harm."""
    for place in (copy, copy / "unet", copy / "tokenizer"):
        (place / "pipeline.py").write_text("raise SystemExit('was run')\n")
    index = json.loads((copy / "model_index.json").read_text())
    index["_class_name"] = ["pipeline", "Zero123PlusPipeline"]
    (copy / "model_index.json").write_text(json.dumps(index))
    assert torch.equal(predict(Zero123Plus.load(copy)), predict(model))


def test_sizes_of_older_image_processors_are_read(copy, saved):
    """One number for both edges, and one number for a mean of all channels."""
    file = copy / "feature_extractor_vae" / "preprocessor_config.json"
    config = json.loads(file.read_text()) | {"size": 24, "crop_size": 24, "image_mean": 0.5}
    file.write_text(json.dumps(config))
    assert Zero123Plus.load(copy).feature_extractor_vae == Zero123Plus.load(saved).feature_extractor_vae


@pytest.mark.parametrize("part", [*NETWORKS, *PLAIN, *INPUTS])
def test_a_missing_part_is_named(copy, part):
    shutil.rmtree(copy / part)
    with pytest.raises(InputError, match=f"has no {part}/"):
        Zero123Plus.load(copy)


@pytest.mark.parametrize("part", NETWORKS)
def test_weights_must_be_whole_and_safetensors(copy, part):
    weights = next((copy / part).glob("*.safetensors"))
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=part):
        Zero123Plus.load(copy)
    weights.unlink()
    (copy / part / "pytorch_model.bin").write_bytes(content)
    (copy / part / "diffusion_pytorch_model.bin").write_bytes(content)
    with pytest.raises(InputError, match=f"{part}.*convert .bin files"):
        Zero123Plus.load(copy)


@pytest.mark.parametrize("part", NETWORKS)
def test_every_weight_has_its_place(copy, part):
    file = next((copy / part).glob("*.safetensors"))
    tensors = load_file(file)
    first = next(iter(tensors))
    for changed in (
        {name: tensor for name, tensor in tensors.items() if name != first},
        tensors | {"stray.weight": torch.zeros(1)},
        tensors | {first: torch.zeros(3, 5)},
    ):
        save_file(changed, file, metadata={"format": "pt"})
        with pytest.raises(InputError, match=part):
            Zero123Plus.load(copy)


def test_parts_of_different_models_are_named(saved, copy, tmp_path):
    def change(file: str, **entries) -> None:
        content = json.loads((saved / file).read_text()) | entries
        (copy / file).write_text(json.dumps(content))

    vae, clip = (f"{name}/preprocessor_config.json" for name in INPUTS)
    for file, entries, match in (
        ("model_index.json", {"ramping_coefficients": None}, "ramping_coefficients"),
        ("model_index.json", {"ramping_coefficients": [0.1]}, "ramping_coefficients 1; expected 9"),
        ("scheduler/scheduler_config.json", {"prediction_type": "epsilon"}, "epsilon; expected v_prediction"),
        (vae, {"size": None}, "feature_extractor_vae.*not understood"),
        (vae, {"crop_size": 20}, "feature_extractor_vae.*crop 20"),
        (clip, {"size": 8, "crop_size": 8}, "CLIP input size 8; expected 16"),
    ):
        change(file, **entries)
        with pytest.raises(InputError, match=match):
            Zero123Plus.load(copy)
        shutil.copy(saved / file, copy / file)
    for file in ("tokenizer.json", "vocab.json"):
        (copy / "tokenizer" / file).unlink(missing_ok=True)
    with pytest.raises(InputError, match="no vocab.json or tokenizer.json"):
        Zero123Plus.load(copy)
    with pytest.raises(InputError, match="not a Zero123\\+\\+ folder"):
        Zero123Plus.load(tmp_path)


def test_a_folder_of_the_user_s_is_not_written_over(model, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds files of yours"):
        model.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
