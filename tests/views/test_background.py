import numpy as np
import pytest
import torch
from PIL import Image

from geodream_lib.errors import InputError
from geodream_lib.views.background import center_object, remove_background
from geodream_lib.views.reference import load_reference, prepare_reference


def disc(size: int = 96, radius: float = 24.0, centre: tuple[float, float] = (48.0, 48.0), supersample: int = 4):
    """Anti-aliased coverage of a disc."""
    axis = (torch.arange(size * supersample) + 0.5) / supersample
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    inside = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2).float()
    return torch.nn.functional.avg_pool2d(inside[None], supersample)[0]


def picture(alpha: torch.Tensor, background: torch.Tensor, color: tuple[float, ...] = (0.2, 0.3, 0.7)) -> torch.Tensor:
    return alpha[..., None] * torch.tensor(color) + (1 - alpha[..., None]) * background


PLAIN = torch.ones(96, 96, 3)
GRADIENT = torch.linspace(0.55, 0.95, 96)[:, None, None] * torch.tensor([1.0, 0.95, 0.9]).expand(96, 96, 3)


@pytest.mark.parametrize("noise", [0.0, 0.015])
@pytest.mark.parametrize("background", [PLAIN, 0.5 * PLAIN, GRADIENT], ids=["white", "grey", "gradient"])
def test_recovers_the_coverage_of_a_disc(background, noise):
    alpha = disc()
    image = picture(alpha, background) + noise * torch.randn(96, 96, 3, generator=torch.Generator().manual_seed(0))
    found = remove_background(image.clamp(0, 1))
    assert (found - alpha).abs().mean() < 0.004
    assert (found - alpha).abs().max() < (0.2 if noise == 0 else 0.5)
    edge = (alpha > 0.05) & (alpha < 0.95)
    assert ((found > 0.02) & (found < 0.98))[edge].float().mean() > 0.6, "the edge is soft"


def test_an_object_that_touches_the_border_does_not_become_background():
    alpha = disc(radius=30.0, centre=(48.0, 90.0))
    found = remove_background(picture(alpha, GRADIENT))
    assert (found - alpha).abs().mean() < 0.01


def test_an_enclosed_part_in_the_background_colour_stays_object():
    alpha = disc()
    image = picture(alpha, PLAIN)
    image[40:56, 40:56] = 1.0
    assert remove_background(image)[40:56, 40:56].min() == 1


def test_an_alpha_channel_is_taken_as_it_is():
    alpha = disc()
    image = torch.cat([torch.rand(96, 96, 3), alpha[..., None]], dim=-1)
    assert torch.equal(remove_background(image), alpha)


def test_an_opaque_alpha_channel_says_nothing():
    alpha = disc()
    image = torch.cat([picture(alpha, PLAIN), torch.ones(96, 96, 1)], dim=-1)
    assert (remove_background(image) - alpha).abs().mean() < 0.004


def test_specks_are_not_the_object():
    alpha = disc()
    image = picture(alpha, PLAIN)
    image[5, 5] = 0.0
    assert remove_background(image)[5, 5] == 0


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.ones(1, 1, 3), "1x1"),
        (torch.ones(40, 15, 3), "15x40"),
        (torch.ones(64, 64, 3), "no object found"),
        (torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(1)), "not plain"),
        (torch.cat([torch.zeros(64, 32, 3), torch.ones(64, 32, 3)], dim=1), "not plain"),
        (torch.zeros(64, 64, 4), "transparent everywhere"),
    ],
)
def test_bad_images_are_named(image, message):
    with pytest.raises(InputError, match=message):
        remove_background(image)


def test_the_centred_object_fills_the_frame_as_asked():
    alpha = disc(radius=12.0, centre=(20.0, 70.0))
    image, opacity = center_object(picture(alpha, 0.3 * PLAIN), alpha, 64, 0.75)
    rows, columns = torch.nonzero(opacity > 0.5, as_tuple=True)
    for inside in (rows, columns):
        assert inside.max() - inside.min() + 1 == pytest.approx(48, abs=2)
        assert (inside.max() + inside.min() + 1) / 2 == pytest.approx(32, abs=1)
    assert image[0].min() > 0.999, "white around it"
    torch.testing.assert_close(image[32, 32], torch.tensor([0.2, 0.3, 0.7]), atol=1e-3, rtol=0)


def test_an_object_larger_than_the_frame_allows_is_padded_with_white():
    image, opacity = center_object(torch.zeros(20, 40, 3), torch.ones(20, 40), 64, 0.5)
    assert opacity.sum() == pytest.approx(32 * 16, rel=0.1)
    assert image.mean() == pytest.approx(1 - 32 * 16 / 64**2, abs=0.02)


def test_an_empty_object_cannot_be_centred():
    with pytest.raises(InputError, match="empty"):
        center_object(torch.ones(20, 20, 3), torch.zeros(20, 20), 32, 0.75)


def test_a_reference_from_a_file_is_centred_on_white(tmp_path):
    alpha = disc()
    pixels = (picture(alpha, GRADIENT) * 255).round().byte().numpy()
    Image.fromarray(pixels).save(tmp_path / "photo.jpg", quality=92)
    image, opacity = load_reference(tmp_path / "photo.jpg", 64)
    assert image.shape == (64, 64, 3) and opacity.shape == (64, 64)
    assert image[:4].min() > 0.99
    assert opacity.sum() == pytest.approx(np.pi * (0.75 * 32) ** 2, rel=0.06)


def test_a_large_photograph_is_shrunk_before_it_is_cut_out():
    small = prepare_reference(picture(disc(), PLAIN), 48)[1]
    large = prepare_reference(
        torch.nn.functional.interpolate(
            picture(disc(), PLAIN).permute(2, 0, 1)[None], scale_factor=16, mode="bilinear"
        )[0].permute(1, 2, 0),
        48,
    )[1]
    assert (small - large).abs().mean() < 0.02


def test_a_bad_file_is_named(tmp_path):
    with pytest.raises(InputError, match="no image at .*nothing.png"):
        load_reference(tmp_path / "nothing.png", 64)
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(InputError, match="cannot read the image .*text.png"):
        load_reference(tmp_path / "text.png", 64)
    Image.new("RGB", (64, 64), "white").save(tmp_path / "empty.png")
    with pytest.raises(InputError, match="empty.png: no object found"):
        load_reference(tmp_path / "empty.png", 64)
