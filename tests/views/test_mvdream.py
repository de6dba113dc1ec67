"""MVDream: what its views know of each other, its cameras, its sampler, and folders that cannot be used."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.embeddings import TimestepEmbedding

from geodream_lib.cameras import azimuth_elevation, orbit
from geodream_lib.cameras_sampling import mvdream_condition
from geodream_lib.errors import InputError
from geodream_lib.guidance import load_diffusion
from geodream_lib.views.mvdream.model import AZIMUTHS, MVDream, released_timesteps, view_cameras
from geodream_lib.views.mvdream.network import MultiViewUNet

pytestmark = pytest.mark.needs_golden("vsd")

CONTEXT = 12


def random_unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=2,
        cross_attention_dim=CONTEXT,
        norm_num_groups=8,
    ).requires_grad_(False)


@pytest.fixture(scope="module")
def network() -> MultiViewUNet:
    unet = random_unet()
    return MultiViewUNet(unet, TimestepEmbedding(16, unet.time_embedding.linear_2.out_features)).requires_grad_(False)


def views(n: int) -> dict[str, torch.Tensor]:
    """Inputs of `n` views, all different."""
    generator = torch.Generator().manual_seed(1)
    return {
        "noisy": torch.randn(n, 4, 8, 8, generator=generator),
        "t": torch.randint(1000, (n,), generator=generator),
        "text": torch.randn(n, 5, CONTEXT, generator=generator),
        "camera": torch.randn(n, 16, generator=generator),
    }


def taken(inputs: dict[str, torch.Tensor], rows: list[int]) -> dict[str, torch.Tensor]:
    return {name: tensor[rows] for name, tensor in inputs.items()}


def test_views_of_one_object_see_each_other_and_no_other_object(network) -> None:
    inputs = views(6)
    before = network(**inputs, num_frames=3)
    inputs["noisy"][1] += 1.0
    change = (network(**inputs, num_frames=3) - before).abs().amax(dim=(1, 2, 3))
    assert (change[:3] > 1e-4).all(), "each view of the object takes note"
    assert (change[3:] == 0).all(), "the other object does not"


def test_objects_and_views_may_stand_in_any_order(network) -> None:
    """No view has a place of its own: the camera alone says where it stands."""
    inputs = views(6)
    expected = network(**inputs, num_frames=3)
    for order in ([3, 4, 5, 0, 1, 2], [2, 0, 1, 4, 3, 5]):
        torch.testing.assert_close(network(**taken(inputs, order), num_frames=3), expected[order], atol=1e-5, rtol=0)


def test_one_frame_without_camera_is_the_plain_unet(network) -> None:
    inputs = views(3)
    plain = random_unet()(inputs["noisy"], inputs["t"], inputs["text"]).sample
    torch.testing.assert_close(network(**inputs | {"camera": None}, num_frames=1), plain, atol=1e-6, rtol=0)
    assert not torch.allclose(network(**inputs | {"camera": None}, num_frames=3), plain, atol=1e-4)
    assert not torch.allclose(network(**inputs, num_frames=1), plain, atol=1e-4)


def test_equal_views_are_the_plain_unet(network) -> None:
    """Attention over copies of the same tokens is attention over the tokens."""
    inputs = taken(views(1), [0, 0, 0, 0])
    torch.testing.assert_close(network(**inputs, num_frames=4), network(**inputs, num_frames=1), atol=1e-5, rtol=0)


def test_the_network_asks_for_whole_objects(network) -> None:
    with pytest.raises(InputError, match="6 views; expected a multiple of num_frames, 4"):
        network(**views(6), num_frames=4)


def test_the_four_cameras_stand_around_the_object_front_first() -> None:
    matrices = view_cameras(15.0).view(-1, 4, 4)
    azimuth, elevation = azimuth_elevation(matrices[:, :3, 3])
    torch.testing.assert_close(azimuth % 360, torch.tensor(AZIMUTHS), atol=1e-3, rtol=0)
    torch.testing.assert_close(elevation, torch.full((4,), 15.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(matrices[0, :3, 3], torch.tensor([0.9659258, 0.0, 0.2588190]), atol=1e-6, rtol=0)


def test_the_network_is_told_directions_and_no_distances() -> None:
    near, far = (orbit([10.0, 200.0], 20.0, radius, 40.0, 8).c2w for radius in (1.0, 7.0))
    torch.testing.assert_close(mvdream_condition(near), near.flatten(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(mvdream_condition(far), near.flatten(1), atol=1e-6, rtol=0)


def test_the_sampler_uses_every_timestep_of_its_list() -> None:
    assert released_timesteps(1000, 4) == [751, 501, 251, 1]
    fifty = released_timesteps(1000, 50)
    assert (len(fifty), fifty[0], fifty[-1]) == (50, 981, 1)
    assert len(released_timesteps(1000, 75)) == 77
    assert released_timesteps(1000, 3) == [667, 334, 1], "timestep 1000 does not exist"
    for steps in (0, 1001):
        with pytest.raises(InputError, match="expected 1 to 1000"):
            released_timesteps(1000, steps)


@pytest.fixture(scope="module")
def model(golden: Path) -> MVDream:
    diffusion = load_diffusion(golden / "vsd" / "sd_base")
    torch.manual_seed(0)
    return MVDream(diffusion, TimestepEmbedding(16, diffusion.denoiser.unet.time_embedding.linear_2.out_features))


@pytest.fixture(scope="module")
def saved(model: MVDream, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "mvdream"
    model.save(folder)
    return folder


def predict(model: MVDream, prompt: str = "a red fox", seed: int = 0, **changes) -> torch.Tensor:
    arguments = {"steps": 3, "size": model.diffusion.image_size} | changes
    return model.predict(prompt, torch.Generator().manual_seed(seed), **arguments)


def test_a_prompt_gives_four_views_and_the_seed_decides(model) -> None:
    images = predict(model)
    assert images.shape == (4, model.diffusion.image_size, model.diffusion.image_size, 3)
    assert images.min() >= 0 and images.max() <= 1
    assert torch.equal(images, predict(model))
    assert not torch.allclose(images, predict(model, seed=1))


def test_images_have_the_size_asked_for(model) -> None:
    factor = model.diffusion.image_size // model.diffusion.latent_size
    assert predict(model, size=4 * factor).shape == (4, 4 * factor, 4 * factor, 3)
    with pytest.raises(InputError, match=f"multiple of {factor}"):
        predict(model, size=4 * factor + 1)


def test_guidance_leads_from_the_negative_prompt_to_the_prompt(model) -> None:
    """Guidance 0 asks the negative prompt alone and 1 the prompt alone; both see the same cameras."""
    fox = predict(model, "a red fox", guidance=1.0)
    torch.testing.assert_close(predict(model, "a red fox", guidance=1.0, negative="a house"), fox, atol=1e-5, rtol=0)
    as_negative = predict(model, "a house", guidance=0.0, negative="a red fox, 3d asset")
    torch.testing.assert_close(as_negative, fox, atol=1e-5, rtol=0)
    assert not torch.allclose(predict(model, "a house", guidance=1.0), fox, atol=1e-3)


def test_suffix_and_elevation_are_heard(model) -> None:
    images = predict(model)
    torch.testing.assert_close(predict(model, "a red fox, 3d asset", suffix=""), images, atol=1e-5, rtol=0)
    assert not torch.allclose(predict(model, suffix=""), images, atol=1e-3)
    assert not torch.equal(predict(model, elevation=40.0), images), "faint in a random network, but heard"


def test_progress_counts_to_the_end(model) -> None:
    seen = []
    predict(model, steps=6, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 7) for done in range(1, 8)], "six do not divide a thousand: the released list has seven"


def test_lower_precision_stays_near(model) -> None:
    exact, rough = predict(model, guidance=1.0), predict(model, guidance=1.0, autocast=torch.bfloat16)
    assert rough.dtype == torch.float32
    assert (exact - rough).abs().mean() < 0.03


def test_save_and_load_give_the_same_pictures(model, saved) -> None:
    loaded = MVDream.load(saved)
    assert not loaded.training
    assert torch.equal(predict(loaded), predict(model))


def test_weights_load_in_half_precision(saved) -> None:
    loaded = MVDream.load(saved, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    assert predict(loaded).dtype == torch.float32


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler", "camera_embedding"])
def test_a_missing_part_is_named(saved, tmp_path, part) -> None:
    shutil.copytree(saved, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / part)
    with pytest.raises(InputError, match=part):
        MVDream.load(tmp_path / "copy")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "camera_embedding"])
def test_truncated_weights_are_named(saved, tmp_path, part) -> None:
    shutil.copytree(saved, tmp_path / "copy")
    weights = next((tmp_path / "copy" / part).glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(InputError, match=part):
        MVDream.load(tmp_path / "copy")


def test_other_folders_are_refused(golden, saved, tmp_path) -> None:
    with pytest.raises(InputError, match="not an MVDream folder"):
        MVDream.load(golden / "vsd" / "sd_base")
    shutil.copytree(saved, tmp_path / "copy")
    (tmp_path / "copy" / "model_index.json").unlink()
    with pytest.raises(InputError, match="no model_index.json"):
        MVDream.load(tmp_path / "copy")


def test_a_failed_save_leaves_nothing(model, tmp_path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="holds files of yours"):
        model.save(tmp_path / "mine")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "letter.txt"]
