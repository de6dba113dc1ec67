"""Scenes of two objects: which there are, how they are put together, and what is said of them."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from geodream_lib import lab
from geodream_lib.cameras import orbit
from geodream_lib.errors import InputError
from geodream_lib.lab.compositions import RELATIONS, compose
from geodream_lib.lab.primitives import support_points

PROMPTS = Path(__file__).resolve().parents[2] / "data" / "prompts"
TRAINED = [t for t in lab.COMPOSITIONS if t not in lab.HELD_OUT_COMPOSITIONS]


def words(text: str) -> set[str]:
    return set(re.findall("[a-z]+", text))


def one_of_each_relation() -> list[lab.Composition]:
    rng = np.random.default_rng(3)
    return [lab.sample_composition(rng, next(t for t in TRAINED if t[1] == relation)) for relation in RELATIONS]


def test_there_are_300_triples_of_known_things_and_the_paper_s_own_are_trained():
    assert len(set(lab.COMPOSITIONS)) == len(lab.COMPOSITIONS) >= 300
    assert {name for a, _, b in lab.COMPOSITIONS for name in (a, b)} == set(lab.CATEGORIES)
    assert {relation for _, relation, _ in lab.COMPOSITIONS} == set(RELATIONS)
    for triple in (
        ("astronaut", "riding", "horse"),
        ("corgi", "riding", "rocket"),
        ("squirrel", "playing", "guitar"),
    ):
        assert triple in TRAINED


def test_forty_triples_of_every_relation_are_held_out_and_their_parts_are_known_from_others():
    assert len(lab.HELD_OUT_COMPOSITIONS) == 40 and lab.HELD_OUT_COMPOSITIONS <= set(lab.COMPOSITIONS)
    assert {relation for _, relation, _ in lab.HELD_OUT_COMPOSITIONS} == set(RELATIONS)
    known = {name for a, _, b in TRAINED for name in (a, b)}
    assert known == set(lab.CATEGORIES)


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_a_split_keeps_its_triples_and_colours(split):
    rng, held = np.random.default_rng(0), split == "held_out"
    for _ in range(60):
        scene = lab.sample_composition(rng, split=split)
        triple = (scene.parts[0].category, scene.relation, scene.parts[1].category)
        assert (triple in lab.HELD_OUT_COMPOSITIONS) == held
        for part in scene.parts:
            assert ((part.category, part.colors[0]) in lab.HELD_OUT) == held


def test_a_given_triple_is_taken_and_the_same_seed_gives_the_same_scene():
    triple = sorted(lab.HELD_OUT_COMPOSITIONS)[0]
    one, two = (lab.sample_composition(np.random.default_rng(1), triple) for _ in range(2))
    assert (one.parts[0].category, one.relation, one.parts[1].category) == triple
    np.testing.assert_array_equal(one.primitives, two.primitives)


@pytest.mark.parametrize("arguments", [{"triple": ("horse", "riding", "owl")}, {"split": "test"}])
def test_unknown_scenes_are_refused(arguments):
    with pytest.raises(InputError, match="unknown composition|expected 'train'"):
        lab.sample_composition(np.random.default_rng(0), **arguments)


def test_a_scene_fills_the_world_s_sphere_and_is_centred():
    directions = np.random.default_rng(0).normal(size=(4000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    axes = np.concatenate([np.eye(3), -np.eye(3)])
    for scene in one_of_each_relation():
        reach = np.linalg.norm(support_points(scene.primitives, directions), axis=1).max()
        assert reach == pytest.approx(0.9, abs=0.01)
        box = support_points(scene.primitives, axes)
        np.testing.assert_allclose(box[:3].diagonal(), -box[3:].diagonal(), atol=1e-4)


def test_both_parts_are_seen_from_the_front_and_from_the_side():
    scenes = [lab.sample_composition(np.random.default_rng(i), t) for i, t in enumerate(TRAINED[::6])]
    for azimuth in (20.0, -60.0):
        cameras = orbit([azimuth] * len(scenes), 14.0, 2.8, 40.0, 64)
        parts = lab.render(scenes, cameras, np.ones((len(scenes), 3)), threads=1).part
        shares = [[np.mean(s.owner[p[p >= 0]] == k) for k in (0, 1)] for s, p in zip(scenes, parts, strict=True)]
        hidden = [s for s, share in zip(scenes, shares, strict=True) if min(share) < 0.04]
        assert not [(s.parts[0].category, s.relation, s.parts[1].category) for s in hidden]


def test_parts_touch_unless_they_stand_beside_each_other():
    for scene in one_of_each_relation():
        points = np.random.default_rng(0).uniform(-1, 1, (60_000, 3)).astype(np.float32)
        distances = []
        for part in (0, 1):
            alone = lab.LabObject("", ("", ""), (), scene.primitives[scene.owner == part], False, None)
            distances.append(lab.sdf(alone, points)[0])
        gap = np.maximum(*distances).min()  # below zero where a point is inside both
        assert gap > 0 if scene.relation == "beside" else gap < 0.01


def test_riders_are_above_their_mounts_and_things_above_their_bases():
    for scene in one_of_each_relation():
        heights = [scene.primitives[scene.owner == part, 3].mean() for part in (0, 1)]
        if scene.relation in ("riding", "on"):
            assert heights[0] > heights[1] + 0.2


def test_a_guitar_hides_its_player_s_belly_and_is_hidden_from_behind():
    rng = np.random.default_rng(0)
    scenes = [lab.sample_composition(rng, t) for t in lab.COMPOSITIONS if t[1] == "playing"]
    shares = []
    for azimuth in (0.0, 180.0):
        cameras = orbit([azimuth] * len(scenes), 14.0, 2.8, 40.0, 64)
        parts = lab.render(scenes, cameras, np.ones((len(scenes), 3)), threads=1).part
        shares.append([np.mean(s.owner[p[p >= 0]] == 1) for s, p in zip(scenes, parts, strict=True)])
    assert min(shares[0]) > 0.2 and max(shares[1]) < 0.15


def test_composing_leaves_the_objects_as_they_were():
    rng = np.random.default_rng(0)
    rider, mount = lab.sample_object(rng, "robot"), lab.sample_object(rng, "horse")
    before = rider.primitives.copy(), mount.primitives.copy()
    scene = compose(rider, "riding", mount, rng)
    np.testing.assert_array_equal(rider.primitives, before[0])
    np.testing.assert_array_equal(mount.primitives, before[1])
    assert len(scene.owner) == len(scene.primitives) and scene.parts == (rider, mount)


def test_captions_name_both_parts_and_no_colour_they_lack():
    rng = np.random.default_rng(1)
    for _ in range(150):
        scene = lab.sample_composition(rng)
        text = lab.composition_caption(scene, rng, view=lab.VIEWS[rng.integers(4)], background="on grass")
        assert words(text) <= lab.LEXICON, text
        said = words(text) & set(lab.COLORS)
        assert said <= {colour for part in scene.parts for colour in part.colors}, text
        assert f" {scene.relation} " in text
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|\s\s|[{}]", text), text


def test_materials_are_always_said_and_a_black_and_white_photo_has_no_colours():
    rng = np.random.default_rng(2)
    scene = lab.sample_composition(rng, ("squirrel", "playing", "guitar"))
    for _ in range(20):
        assert re.search(
            r"squirrel.* playing a wooden guitar$", lab.composition_caption(scene, rng, materials=(None, "wooden"))
        )
        style = "black and white photo"
        text = lab.composition_caption(scene, rng, style=style)
        assert text.endswith(f", {style}") and not words(text.removesuffix(style)) & set(lab.COLORS)


def test_composition_prompts_are_captions_of_scenes_in_colours_of_training():
    prompts = json.loads((PROMPTS / "composition_prompts.json").read_text())
    assert len({row["prompt"] for row in prompts}) == 100
    triples = [(row["parts"][0], row["relation"], row["parts"][1]) for row in prompts]
    assert {t for t, row in zip(triples, prompts, strict=True) if row["held_out"]} == lab.HELD_OUT_COMPOSITIONS
    assert sum(row["held_out"] for row in prompts) == 40
    assert {("astronaut", "riding", "horse"), ("corgi", "riding", "rocket")} <= set(triples)
    for triple, row in zip(triples, prompts, strict=True):
        assert row["kind"] == "composition"
        assert row["held_out"] == (triple in lab.HELD_OUT_COMPOSITIONS) and triple in lab.COMPOSITIONS
        colours = [word for word in re.findall("[a-z]+", row["prompt"]) if word in lab.COLORS]
        rng = np.random.default_rng(0)
        parts = [
            lab.sample_object(rng, name, (colour, "grey")) for name, colour in zip(row["parts"], colours, strict=True)
        ]
        assert not {(part.category, part.colors[0]) for part in parts} & lab.HELD_OUT
        scene = lab.Composition(
            tuple(parts), row["relation"], parts[0].primitives, np.zeros(len(parts[0].primitives), int)
        )
        assert row["prompt"] in {lab.composition_caption(scene, rng) for _ in range(60)}, row["prompt"]
