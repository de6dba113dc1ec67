"""The yardstick of the lab's networks, held against cases whose answer is known."""

import numpy as np
import pytest
import torch

from geodream_lib.cameras import orbit
from geodream_lib.data import data_folder
from geodream_lib.guidance import load_diffusion
from geodream_lib.lab.measure.pictures import has_front, noise_errors, retrieved, sides
from geodream_lib.lab.measure.strangers import STRANGERS, shown, surface, visual_hull
from geodream_lib.lab.measure.views import SPHERE, exact_views, held_out_objects, likeness
from geodream_lib.lab.measure.volume import all_around, in_true_frame, uniformly_spread
from geodream_lib.lab.objects import HELD_OUT
from geodream_lib.metrics.image_text import ImageText
from geodream_lib.metrics.viewpoint import Viewpoint


class Compass(Viewpoint):
    """Tells the azimuth that a picture's first pixel holds, in full turns."""

    def predict(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return 360 * pictures[:, 64, 64, 0], torch.ones(len(pictures))


class Judge(ImageText):
    """Embeds a picture as its first pixel and a text as its length."""

    def __init__(self):
        torch.nn.Module.__init__(self)

    def embed_images(self, pictures: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(pictures[:, 0, 0, :2], dim=-1)

    def embed_texts(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([[1.0, 0.0], [0.0, 1.0]])[: len(texts)]


def test_an_exact_picture_is_infinitely_like_and_its_silhouette_is_its_own():
    thing = next(thing for thing in held_out_objects(16) if not thing.symmetric)
    pictures, silhouettes = exact_views(thing, orbit([0.0, 90.0], [14.0, 14.0], *SPHERE))
    psnr, iou = likeness(pictures, pictures, silhouettes)
    assert torch.isinf(psnr).all()
    assert (iou > 0.97).all()
    elsewhere, _ = exact_views(thing, orbit([180.0, 270.0], [14.0, 14.0], *SPHERE))
    psnr, _ = likeness(elsewhere, pictures, silhouettes)
    assert (psnr < 25).all()


def test_objects_to_measure_on_are_held_out():
    assert all((thing.category, thing.colors[0]) in HELD_OUT for thing in held_out_objects(16))


def test_sides_are_counted_as_captions_name_them():
    pictures = torch.ones(5, 128, 128, 3)
    pictures[:, 32:96, 32:96] = torch.tensor([0.0, 20.0, 90.0, 180.0, 200.0])[:, None, None, None] / 360
    assert sides(Compass(), pictures) == {"front": 0.4, "side": 0.2, "back": 0.4}


def test_a_picture_finds_its_own_prompt_or_not():
    pictures = torch.zeros(3, 4, 4, 3)
    pictures[0, ..., 0], pictures[1, ..., 1], pictures[2, ..., 1] = 1, 1, 1
    assert retrieved(Judge(), pictures, [0, 1, 0], ["a", "b"]) == [True, True, False]


def test_a_network_sees_noise_the_better_the_more_there_is_and_one_that_sees_none_errs_by_all_of_it():
    network = load_diffusion(data_folder() / "lab" / "text_to_image_base")
    thing = next(thing for thing in held_out_objects(16) if not thing.symmetric)
    pictures, _ = exact_views(thing, orbit([0.0, 180.0], [14.0, 14.0], *SPHERE))
    errors = list(noise_errors(network, pictures, ["", ""]).values())
    assert errors == sorted(errors, reverse=True) and errors[0] < 0.5
    for weight in network.denoiser.unet.conv_out.parameters():
        weight.data.zero_()
    assert list(noise_errors(network, pictures, ["", ""]).values()) == pytest.approx([1.0] * 5, abs=0.1)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("a red mushroom on a log", True), ("a brown cake with pink icing", False), ("a corgi riding a rocket", False)],
)
def test_single_objects_with_a_front_are_known(prompt: str, expected: bool):
    assert has_front(prompt) is expected


def test_a_shape_is_nothing_but_itself_in_its_own_frame():
    ball = surface(lambda p: np.linalg.norm(p, axis=1) - 0.6, 64)
    scores = in_true_frame(ball, ball)
    assert scores.chamfer < 1e-3
    assert scores.iou == 1
    larger = surface(lambda p: np.linalg.norm(p, axis=1) - 0.66, 64)
    assert in_true_frame(larger, ball).chamfer == pytest.approx(0.06 * 0.8 / 0.6, abs=2e-3)


def test_the_visual_hull_holds_the_shape_and_misses_what_no_outline_shows():
    """A cup's outlines are those of a full one; a knot has nothing that would be hidden from all sides."""
    cameras, filled = all_around(12, 0), {}
    for name in ("cup", "knot"):
        shape, colour = STRANGERS[name]
        true = surface(shape, 96)
        images, opacity = shown(true, colour, cameras)
        assert images.shape == (12, 128, 128, 3)
        hull = visual_hull(opacity, cameras, 80)
        bare = surface(lambda p, shape=shape: shape(p) + 0.05, 96)  # the hull holds all but a voxel of the surface
        assert hull.volume > 0.95 * bare.volume
        filled[name] = hull.volume / true.volume
    assert filled["cup"] > 1.8 > filled["knot"]


def test_uniform_spread_starts_from_every_side_alike():
    poses = uniformly_spread(28, torch.Generator().manual_seed(0), 14.0)
    assert len(poses) == 28
    drawn = [pose for pose in poses if pose.rule == "anywhere"]
    assert {
        angle: sum(pose.reference == angle for pose in drawn) for angle in (0.0, 90.0, 180.0, 270.0)
    } == dict.fromkeys((0.0, 90.0, 180.0, 270.0), 6)
    turned = np.sort([pose.azimuth for pose in drawn])
    assert turned[0] < -165 and turned[-1] > 165 and np.diff(turned).max() <= 30
    assert all(-24 <= pose.elevation <= 30 for pose in drawn)
