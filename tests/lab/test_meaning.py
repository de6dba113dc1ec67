"""Captions read backwards, and the true objects behind a prompt."""

import json

import numpy as np
import pytest

from geodream_lib import lab
from geodream_lib.cameras import orbit
from geodream_lib.data import data_folder
from geodream_lib.lab.captions import caption, composition_caption
from geodream_lib.lab.compositions import sample_composition
from geodream_lib.lab.meaning import Meaning, Scene, meaning, sample_meant
from geodream_lib.lab.objects import LabObject
from geodream_lib.lab.truth import truth_of


def is_true(meant: Meaning, obj: LabObject) -> bool:
    colors = all(said in (None, real) for said, real in zip(meant.colors, obj.colors, strict=True))
    return meant.category == obj.category and colors and set(meant.attachments) <= set(obj.attachments)


def test_every_caption_is_understood_as_what_it_was_said_of():
    rng = np.random.default_rng(0)
    for category in lab.CATEGORIES * 4:
        obj = lab.sample_object(rng, category)
        text = caption(obj, rng, view="back view", background="on a white background")
        assert is_true(meaning(text), obj), text


def test_every_caption_of_two_objects_is_understood_as_both_and_their_relation():
    rng = np.random.default_rng(1)
    for _ in range(60):
        scene = sample_composition(rng)
        text = composition_caption(scene, rng)
        meant = meaning(text)
        assert isinstance(meant, Scene) and meant.relation == scene.relation, text
        assert is_true(meant.subject, scene.parts[0]) and is_true(meant.object, scene.parts[1]), text


def test_what_is_named_is_drawn():
    rng = np.random.default_rng(2)
    for prompt in ("a green corgi wearing a red hat", "a cake with candles", "a red car"):
        assert is_true(meaning(prompt), sample_meant(meaning(prompt), rng)), prompt


@pytest.mark.parametrize("prompt", ["", "a violin", "a red", "car", "two cars", "a red car riding a mushroom"])
def test_other_sentences_mean_nothing(prompt):
    assert meaning(prompt) is None and truth_of(prompt, orbit([0.0], 15.0, 2.75, 40.0, 16)) is None


def test_every_prompt_of_the_lab_has_a_truth():
    for row in json.loads((data_folder() / "prompts" / "lab_prompts.json").read_text()):
        meant = meaning(row["prompt"])
        assert isinstance(meant, Meaning) and meant.category == row["category"], row
    for row in json.loads((data_folder() / "prompts" / "composition_prompts.json").read_text()):
        meant = meaning(row["prompt"])
        assert isinstance(meant, Scene) and meant.relation == row["relation"], row


def test_the_truth_is_always_the_same_and_shows_the_colours_that_are_named():
    cameras = orbit([0.0, 90.0, 180.0], 15.0, 2.75, 40.0, 32)
    one, two = truth_of("a red car with a white roof", cameras), truth_of("a red car with a white roof", cameras)
    assert (one.images == two.images).all() and len(one.images) == 3 and not one.symmetric
    seen = one.images[(one.images.amax(-1) - one.images.amin(-1)) > 0.3]
    assert (seen[:, 0] > seen[:, 1:].amax(dim=1)).float().mean() > 0.8
    assert truth_of("a brown cake with pink icing", cameras).symmetric
    assert not truth_of("a penguin riding a turtle", cameras).symmetric
    np.testing.assert_array_equal(one.mesh(1, 20).vertices, two.mesh(1, 20).vertices)
    assert len(one.mesh(1, 20).vertices) != len(one.mesh(2, 20).vertices)
