"""The population: splits, seeds, captions and prompts."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from geodream_lib import lab
from geodream_lib.errors import InputError
from geodream_lib.lab.objects import _KINDS
from geodream_lib.lab.shape import GLASS

PROMPTS = Path(__file__).resolve().parents[2] / "data" / "prompts"


def words(text: str) -> set[str]:
    return set(re.findall("[a-z]+", text))


def test_train_objects_never_show_a_held_out_combination_and_held_out_ones_always_do():
    rng = np.random.default_rng(0)
    for _ in range(150):
        train, held_out = lab.sample_object(rng), lab.sample_object(rng, split="held_out")
        assert (train.category, train.colors[0]) not in lab.HELD_OUT
        assert (held_out.category, held_out.colors[0]) in lab.HELD_OUT


def test_every_category_keeps_combinations_for_testing_and_the_file_lists_them():
    listed = {(row["category"], row["primary"]) for row in json.loads((PROMPTS / "held_out.json").read_text())}
    assert listed == lab.HELD_OUT
    assert {category for category, _ in listed} == set(lab.CATEGORIES)
    assert {colour for _, colour in listed} <= set(lab.COLORS)


def test_a_colour_one_expects_of_a_kind_is_never_held_out():
    for category, kind in _KINDS.items():
        assert not set(kind.natural[0]) & set(kind.held_out), category
        assert set(kind.natural[0] + kind.natural[1] + kind.held_out) <= set(lab.COLORS), category
        assert len(set(kind.held_out)) == 2, category


def test_the_twelve_colours_can_be_told_apart():
    assert len(lab.COLORS) == 12
    values = np.array(list(lab.COLORS.values()))
    distance = np.linalg.norm(values[:, None] - values[None], axis=-1)
    assert distance[~np.eye(12, dtype=bool)].min() > 0.28
    assert min(np.linalg.norm(np.array(lab.COLORS["turquoise"]) - lab.COLORS[c]) for c in ("blue", "green")) > 0.4
    assert np.linalg.norm(np.array(lab.COLORS["turquoise"]) - GLASS) > 0.4


def test_given_colours_override_the_split():
    category, primary = sorted(lab.HELD_OUT)[0]
    obj = lab.sample_object(np.random.default_rng(0), category, (primary, "grey"))
    assert obj.category == category and obj.colors == (primary, "grey")


def test_same_seed_same_object():
    one, two = (lab.sample_object(np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one.primitives, two.primitives)
    assert (one.category, one.colors, one.attachments) == (two.category, two.colors, two.attachments)


@pytest.mark.parametrize("arguments", [{"category": "unicorn"}, {"colors": ("mauve", "red")}, {"split": "test"}])
def test_unknown_names_are_refused(arguments):
    with pytest.raises(InputError):
        lab.sample_object(np.random.default_rng(0), **arguments)


def test_a_fifth_of_the_categories_is_symmetric():
    symmetric = [category for category in lab.CATEGORIES if lab.is_symmetric(category)]
    assert len(lab.CATEGORIES) >= 24
    assert 0.15 <= len(symmetric) / len(lab.CATEGORIES) <= 0.25


@pytest.mark.parametrize("category", lab.CATEGORIES)
def test_a_seat_is_on_the_surface_and_the_space_above_it_is_free(category):
    """Riders and things are put there, so nothing of the object may be where they will be."""
    above = np.array([[0, 0, height] for height in (0.0, 0.05, 0.1, 0.15, 0.3, 0.5)])
    for seed in range(12):
        obj = lab.sample_object(np.random.default_rng(seed), category)
        if obj.seat is None:
            continue
        distance = lab.sdf(obj, np.array(obj.seat) + above)[0]
        assert abs(distance[0]) < 0.008, "the seat is on the surface"
        assert (distance[1:] > 0.5 * np.minimum(above[1:, 2], 0.15)).all(), "the space above it is free"
        assert (distance[1:3] < 1.1 * above[1:3, 2] + 0.008).all(), "the surface below is what holds the rider"


def test_half_of_the_kinds_can_carry_something():
    rng = np.random.default_rng(0)
    seats = {c: any(lab.sample_object(rng, c).seat is not None for _ in range(12)) for c in lab.CATEGORIES}
    assert sum(seats.values()) >= 12
    assert {"horse", "giraffe", "car", "boat", "turtle", "cake"} <= {c for c in seats if seats[c]}
    assert not seats["guitar"] and not seats["axe"]


def test_captions_use_lexicon_words_only_and_name_no_colour_the_object_lacks():
    rng = np.random.default_rng(1)
    for _ in range(300):
        obj = lab.sample_object(rng)
        text = lab.caption(obj, rng, view=lab.VIEWS[rng.integers(4)])
        assert words(text) <= lab.LEXICON, text
        assert words(text) & set(lab.COLORS) <= set(obj.colors), text
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|\s\s|[{}]", text), text


def test_captions_mention_only_attachments_that_are_there():
    rng = np.random.default_rng(2)
    for _ in range(200):
        obj = lab.sample_object(rng)
        said = words(lab.caption(obj, rng))
        for attachment in ("flag", "chimney", "crown", "beard", "candles", "cherry", "suitcase", "antenna", "scarf"):
            assert attachment not in said or attachment in obj.attachments


def test_caption_appends_view_and_background():
    obj = lab.sample_object(np.random.default_rng(0), "mushroom", ("red", "brown"))
    text = lab.caption(obj, np.random.default_rng(0), "back view", "on a white background")
    assert text.endswith(", back view, on a white background")
    with pytest.raises(InputError, match="isometric"):
        lab.caption(obj, np.random.default_rng(0), "isometric view")


@pytest.mark.parametrize(
    "azimuth, elevation, expected",
    [
        (0, 15, "front view"),
        (-29, 0, "front view"),
        (350, 0, "front view"),
        (31, 0, "side view"),
        (-90, 0, "side view"),
        (141, 0, "back view"),
        (-180, 0, "back view"),
        (200, 30, "back view"),
        (0, 61, "overhead view"),
    ],
)
def test_view_words(azimuth, elevation, expected):
    assert lab.view_word(azimuth, elevation) == expected


def test_function_words_are_not_content():
    assert {"red", "mushroom", "log"} <= lab.CONTENT_WORDS < lab.LEXICON
    assert not {"a", "on", "with", "the", "view"} & lab.CONTENT_WORDS


def test_lab_prompts_are_captions_that_objects_of_their_category_can_have():
    prompts = json.loads((PROMPTS / "lab_prompts.json").read_text())
    assert len({row["prompt"] for row in prompts}) == 35
    assert sum(row["symmetric"] for row in prompts) == 7
    assert "a red mushroom on a log" in {row["prompt"] for row in prompts}
    assert {row["category"] for row in prompts} == set(lab.CATEGORIES)
    assert any(row["held_out"] for row in prompts)
    for row in prompts:
        assert row["symmetric"] == lab.is_symmetric(row["category"])
        named = [w for w in re.findall("[a-z]+", row["prompt"]) if w in lab.COLORS]
        assert row["held_out"] == ((row["category"], named[0]) in lab.HELD_OUT)
        assert row["prompt"] in possible_captions(row["category"], named), row["prompt"]


def possible_captions(category: str, named: list[str]) -> set[str]:
    """Captions of objects in the named colours (primary first; the other one grey where only one is named)."""
    colors = (named[0], named[1] if len(named) > 1 else "grey")
    rng = np.random.default_rng(0)
    objects = {}
    for _ in range(6):
        obj = lab.sample_object(rng, category, colors)
        objects[obj.attachments] = obj
    return {lab.caption(obj, rng) for obj in objects.values() for _ in range(400)}
