"""References redrawn by text-to-image: another hand, the same object in the same place."""

import numpy as np
import torch

from geodream_lib import cameras as cam
from geodream_lib.data import data_folder
from geodream_lib.guidance import load_diffusion
from geodream_lib.lab import render_rgba, sample_object
from geodream_lib.lab.imagined import redraw, redraw_references


def a_robot() -> tuple[torch.Tensor, torch.Tensor]:
    obj = sample_object(np.random.default_rng(3), "robot")
    camera = cam.orbit([10.0], [14.0], 2.75, 40.0, 128)
    rgb, alpha = render_rgba([obj], camera, np.ones((1, 3), np.float32), threads=1)
    return torch.from_numpy(rgb), torch.from_numpy(alpha)


def test_the_silhouette_stays_and_the_more_noise_the_more_changes():
    diffusion = load_diffusion(data_folder() / "lab" / "text_to_image")
    rgb, alpha = a_robot()
    image, inside = rgb.float() / 255, alpha > 127
    changes = []
    for strength in (0.06, 0.6):
        drawn = redraw(diffusion, image, ["a robot, front view, on a white background"], strength, torch.Generator())
        assert drawn.shape == image.shape and drawn.min() >= 0 and drawn.max() <= 1
        object_pixels = (drawn < 0.9).any(-1)
        assert (object_pixels & inside).sum() / (object_pixels | inside).sum() > 0.7
        changes.append((drawn - image).square().mean())
    assert changes[1] > 1.5 * changes[0]


def test_redrawn_references_do_not_depend_on_anything_but_the_seed():
    diffusion = load_diffusion(data_folder() / "lab" / "text_to_image")
    image = a_robot()[0][None]
    first, again, other = (redraw_references(diffusion, image, ["a robot"], seed) for seed in (0, 0, 1))
    assert first.dtype == torch.uint8 and first.shape == image.shape
    assert torch.equal(first, again) and not torch.equal(first, other)
