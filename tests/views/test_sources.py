"""Source views: each is predicted from its own reference, and the rule of appendix F says which may be."""

from dataclasses import replace

import pytest
import torch

from geodream_lib.pipeline import predict_views
from geodream_lib.presets import Views
from geodream_lib.run import create_run
from geodream_lib.views import Zero123, Zero123Plus
from geodream_lib.views.sampling import released_rounds, released_viewpoints
from geodream_lib.views.sources import (
    predict_in_two_rounds,
    predict_with_zero123,
    predict_with_zero123plus,
    viewpoints,
)

SIDES = {0.0: 0.1, 90.0: 0.3, 180.0: 0.5, 270.0: 0.7}
REFERENCES = {azimuth: torch.full((8, 8, 3), grey) for azimuth, grey in SIDES.items()}
SETTINGS = Views(reference="mvdream", count=13, size=8, tile=16, steps=3, neighbour_steps=2)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class Remembering(Zero123):
    """In place of a network: notes what it was shown and answers with its brightness, one step brighter per pose."""

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.calls = []

    def predict(self, image, poses, steps, *_, **options):
        self.calls.append((round(image.mean().item(), 3), list(poses), steps, options))
        return torch.stack([image + 0.01 * (i + 1) for i in range(len(poses))])


class RememberingPlus(Zero123Plus):
    """In place of Zero123++: six tiles on grey, each with a square of its own brightness."""

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.shown = []

    def predict(self, image, generator, steps, guidance, tile, progress=None):
        self.shown.append(image)
        tiles = torch.full((6, tile, tile, 3), 0.5)
        for k in range(6):
            tiles[k, tile // 4 : -tile // 4, tile // 4 : -tile // 4] = 0.05 * k
        return tiles


def test_appendix_f_never_predicts_from_the_back():
    for predictor in ("zero123", "zero123plus"):
        poses = viewpoints(replace(SETTINGS, predictor=predictor), True, seeded())
        predicted = [pose for pose in poses if (pose.azimuth, pose.elevation) != (0.0, 0.0)]
        assert {pose.reference for pose in predicted} == {0.0, 90.0, 270.0}
        assert all(min(pose.azimuth % 360, -pose.azimuth % 360) < 45 for pose in predicted)
        assert {pose.reference for pose in poses} == set(SIDES)


def test_released_lists_are_chosen_by_what_the_references_are():
    settings = replace(SETTINGS, sampling="released", declared_elevation=0.0)
    assert viewpoints(settings, True, seeded()) == released_viewpoints("text")
    assert viewpoints(settings, False, seeded()) == released_viewpoints("image")


@pytest.mark.parametrize("fidelity", ["paper", "released"])
def test_a_run_of_the_lab_has_a_picture_for_every_camera_of_either_reading(fidelity, tmp_path, monkeypatch):
    """The released text path wants Zero123++, which the lab has not: its Zero123 looks from the same viewpoints."""
    monkeypatch.setenv("GEODREAM_FAST", "1")
    views = predict_views(create_run("a red mushroom on a log", tmp_path / "run", fidelity=fidelity))
    assert len(views.images) == len(views.cameras) == {"paper": 12, "released": 14}[fidelity]
    assert [name for name in views.names if "MVDream" in name][0] == "00_MVDream_front"


def test_elevations_of_zero123plus_are_absolute():
    """Relative to references declared at 15 degrees, its +30 and -20 are 15 and -35."""
    poses = viewpoints(replace(SETTINGS, predictor="zero123plus"), True, seeded())
    assert {pose.elevation for pose in poses} == {0.0, 15.0, -35.0}


def test_each_view_comes_from_its_own_reference():
    network = Remembering()
    poses = viewpoints(SETTINGS, True, seeded())
    images = predict_with_zero123(network, REFERENCES, poses, SETTINGS, 15.0, seeded())
    assert len(images) == SETTINGS.count
    for pose, image in zip(poses, images, strict=True):
        shown, change = SIDES[pose.reference], image.mean().item() - SIDES[pose.reference]
        is_reference = (pose.azimuth, pose.elevation) == (0.0, 0.0)
        assert change == pytest.approx(0, abs=1e-6) if is_reference else change > 0.005, shown
    assert [call[0] for call in network.calls] == pytest.approx([0.1, 0.3, 0.7])
    assert all(call[3]["reference_elevation"] == 15.0 for call in network.calls)


def test_the_second_round_looks_around_predicted_views():
    network = Remembering()
    images = predict_in_two_rounds(network, REFERENCES[0.0], SETTINGS, seeded())
    first, second = released_rounds()
    assert len(images) == len(second) == 30
    around, *rounds = network.calls
    assert around[1] == first and around[2] == SETTINGS.steps
    # The eight predictions get brighter one by one: each round starts from the next of them.
    assert [call[0] for call in rounds] == pytest.approx([0.1 + 0.01 * (i + 1) for i in range(8)], abs=1e-3)
    assert {call[2] for call in rounds} == {SETTINGS.neighbour_steps}


def test_tiles_of_zero123plus_come_to_their_azimuth_on_white():
    network = RememberingPlus()
    references = {azimuth: torch.ones(32, 32, 3) for azimuth in SIDES}
    for image in references.values():
        image[8:24, 8:24] = 0.2
    settings = replace(SETTINGS, predictor="zero123plus", sampling="released", tile=32)
    poses = viewpoints(settings, True, seeded())
    images = predict_with_zero123plus(network, references, poses, settings, seeded())
    for pose, image in zip(poses, images, strict=True):
        if pose.azimuth:
            assert image[16, 16].mean().item() == pytest.approx(0.05 * (pose.azimuth - 30) / 60, abs=1e-3)
        assert image[0, 0].tolist() == pytest.approx([1.0] * 3, abs=1e-3)
    # It sees straight colours and their alpha: grey, not a white rim, is what lies behind.
    assert all(image.shape == (32, 32, 4) and image[0, 0, 3] == 0 and image[16, 16, 3] == 1 for image in network.shown)
