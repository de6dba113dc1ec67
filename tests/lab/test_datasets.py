"""The 2D and the 3D data: what the datasheet says of them is what the code draws."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from geodream_lib import lab
from geodream_lib.cameras import orbit
from geodream_lib.lab import datasets
from geodream_lib.lab.backgrounds import PHRASES, PLACES, Background, draw_background
from geodream_lib.lab.materials import MATERIALS, made_of
from geodream_lib.lab.photographs import Photograph, develop, photograph
from geodream_lib.lab.styles import STYLES, stylized
from geodream_lib.lab.turntables import REFERENCE_VIEWS, VIEWS_PER_TURNTABLE, photograph_around, turntable_angles

DATASHEET = Path(__file__).resolve().parents[2] / "data" / "lab" / "DATASHEET.md"
COUNT = 1500
WHITE = Background("white", (1, 1, 1), (1, 1, 1), None)


@pytest.fixture(scope="module")
def photos() -> list[Photograph]:
    rng = np.random.default_rng(7)
    return [photograph(rng, "train") for _ in range(COUNT)]


@pytest.fixture(scope="module")
def stated() -> dict[str, float]:
    rows = re.findall(r"^\| (.+) \| ([\d.]+) \|$", DATASHEET.read_text(), re.MULTILINE)
    return {name: float(number) / 100 for name, number in rows}


def agree(share: float, stated: float, count: int) -> bool:
    """Whether a measured share is within four standard errors of the stated one, half a per cent being rounding."""
    return abs(share - stated) < 4 * np.sqrt(max(stated * (1 - stated), 1e-4) / count) + 0.005


def turned(photo: Photograph) -> float:
    return abs((photo.azimuth + 180) % 360 - 180)


def is_composition(photo: Photograph) -> bool:
    return isinstance(photo.subject, lab.Composition)


def is_special(photo: Photograph) -> bool:
    return photo.style is not None or any(photo.materials)


PHOTOGRAPH_ROWS = {
    "one object": lambda p: not is_composition(p),
    "two objects (313 triples, 273 of them in training)": is_composition,
    "one object, in neither a material nor a style": lambda p: not is_composition(p) and not is_special(p),
    "two objects, in neither a material nor a style": lambda p: is_composition(p) and not is_special(p),
    "in a material: wooden, golden, stone": lambda p: any(p.materials),
    "in a style: cartoon, pixel art, black and white photo": lambda p: p.style is not None,
    "caption says no view": lambda p: not any(view in p.caption for view in lab.VIEWS),
    **{f'caption says "{view}"': lambda p, view=view: view in p.caption for view in lab.VIEWS},
    "seen within 45° of the front": lambda p: turned(p) < 45,
    "seen from behind (beyond 135°)": lambda p: turned(p) > 135,
    "seen from behind, and the caption does not say so": lambda p: turned(p) > 135 and "view" not in p.caption,
    "white background": lambda p: p.background.kind == "white",
    "plain background": lambda p: p.background.kind == "plain",
    "gradient background": lambda p: p.background.kind == "gradient",
    "a place: grass, snow, beach, night": lambda p: p.background.kind in PLACES,
    '"front view, on a white background", what the 3D stages ask for': lambda p: (
        "front view, on a white background" in p.caption
    ),
}


@pytest.mark.parametrize("row", PHOTOGRAPH_ROWS)
def test_the_datasheet_states_the_shares_of_photographs(photos, stated, row):
    share = np.mean([PHOTOGRAPH_ROWS[row](photo) for photo in photos])
    assert agree(share, stated[row], COUNT), f"{row}: {100 * share:.1f} % drawn, {100 * stated[row]} % stated"


def test_the_datasheet_states_the_shares_of_relations_and_counts_the_triples(photos, stated):
    scenes = [photo.subject for photo in photos if is_composition(photo)]
    for relation in {scene.relation for scene in scenes}:
        assert agree(np.mean([scene.relation == relation for scene in scenes]), stated[relation], len(scenes))
    text = DATASHEET.read_text()
    total, held_out = len(lab.COMPOSITIONS), len(lab.HELD_OUT_COMPOSITIONS)
    assert f"({total} triples, {total - held_out} of them in training)" in text
    assert f"{held_out} of {total} triples" in text and f"{len(lab.HELD_OUT)} pairs, are held out" in text
    assert f"{len(lab.CATEGORIES)} categories in {len(lab.COLORS)} colours" in text
    assert f"in a material: {', '.join(MATERIALS)}" in text and f"in a style: {', '.join(STYLES)}" in text


def test_the_datasheet_states_the_shares_of_turntable_views(stated):
    rng = np.random.default_rng(0)
    azimuths = np.stack([turntable_angles(rng)[0] for _ in range(300)])
    ring = np.abs(azimuths[:, REFERENCE_VIEWS:])
    assert stated["reference views (azimuth normal, sigma 18°)"] == REFERENCE_VIEWS / VIEWS_PER_TURNTABLE
    assert stated["views around the circle, uniform in azimuth"] == 1 - REFERENCE_VIEWS / VIEWS_PER_TURNTABLE
    assert agree(np.mean(ring > 135), stated["of these, seen from behind (beyond 135°)"], ring.size)
    assert agree(np.mean(ring < 45), 0.25, ring.size)
    assert np.std(azimuths[:, :REFERENCE_VIEWS]) == pytest.approx(18, rel=0.1)


def test_photographs_are_front_biased_and_backs_are_captioned(photos):
    """The asymmetry the paper fights, and the words by which a network can be asked for a back all the same."""
    front = np.mean([turned(p) < 45 for p in photos])
    backs = [p for p in photos if turned(p) > 135]
    assert front >= 0.65 and len(backs) <= 0.12 * COUNT
    assert np.mean(["back view" in p.caption for p in backs]) > 0.85
    assert np.mean(["view" not in p.caption for p in photos]) >= 0.55


def test_captions_say_the_view_truly_and_in_words_of_the_lexicon(photos):
    for photo in photos:
        words = set(re.findall("[a-z]+", photo.caption))
        assert words <= lab.LEXICON, photo.caption
        if photo.view:
            assert photo.view == lab.view_word(photo.azimuth, photo.elevation) and f", {photo.view}" in photo.caption
        said = [phrase for phrase in PHRASES.values() if f", {phrase}" in photo.caption]
        assert said in ([], [PHRASES[photo.background.kind]]), photo.caption
        assert all(material is None or material in words for material in photo.materials)
        assert photo.style is None or photo.caption.endswith(photo.style)


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_a_split_of_photographs_keeps_its_objects_and_triples(split):
    rng, held = np.random.default_rng(1), split == "held_out"
    for photo in (photograph(rng, split) for _ in range(60)):
        subject = photo.subject
        for part in subject.parts if is_composition(photo) else (subject,):
            assert ((part.category, part.colors[0]) in lab.HELD_OUT) == held
        if is_composition(photo):
            triple = (subject.parts[0].category, subject.relation, subject.parts[1].category)
            assert (triple in lab.HELD_OUT_COMPOSITIONS) == held


def test_each_object_is_seen_from_the_angles_of_its_own_generator():
    things = [lab.sample_object(np.random.default_rng(seed)) for seed in range(2)]
    shown = photograph_around([(thing, np.random.default_rng(seed)) for seed, thing in enumerate(things)])
    azimuth, elevation = turntable_angles(np.random.default_rng(1))
    np.testing.assert_allclose((shown["azimuth"][1], shown["elevation"][1]), (azimuth, elevation), atol=1e-5)
    camera = orbit([azimuth[9]], [elevation[9]], datasets.TURNTABLE_RADIUS, datasets.TURNTABLE_FOV, 128)
    picture, alpha = lab.render_rgba(things[1:], camera, np.ones((1, 3), np.float32))
    assert (shown["images"][1, 9] == picture[0]).mean() > 0.999 and (shown["alpha"][1, 9] == alpha[0]).mean() > 0.999


def test_turntables_show_single_objects_on_white():
    for index in range(20):
        obj, _ = datasets.turntable_object(3, index, "train")
        assert isinstance(obj, lab.LabObject) and (obj.category, obj.colors[0]) not in lab.HELD_OUT


def test_a_shard_is_the_same_every_time_and_its_name_tells_its_world(monkeypatch):
    monkeypatch.setattr("geodream_lib.lab.photographs.PHOTOGRAPHS_PER_SHARD", 6)
    one, two, other = (datasets.render_photographs(shard, "train") for shard in (0, 0, 1))
    for key in ("images", "captions", "azimuth", "elevation", "kind"):
        np.testing.assert_array_equal(one[key], two[key])
    assert one["images"].shape == (6, 128, 128, 3) and one["images"].dtype == np.uint8
    assert set(one["kind"]) <= {0, 1} and not np.array_equal(one["azimuth"], other["azimuth"])
    name = datasets.world_name()
    monkeypatch.setattr(datasets, "VERSION", datasets.VERSION + 1)
    assert datasets.world_name() != name


def test_a_background_changes_nothing_where_the_object_is(photos):
    photo = next(p for p in photos if p.background.kind == "grass" and not is_special(p))
    before, after = develop([replace(photo, background=WHITE), photo])
    camera = orbit([photo.azimuth], photo.elevation, photo.radius, photo.fov, 128)
    inside = lab.render([photo.subject], camera, np.ones((1, 3)), threads=1).alpha[0] == 255
    np.testing.assert_allclose(before[inside], after[inside], atol=1)
    assert np.abs(before[~inside].astype(int) - after[~inside]).mean() > 20


def test_the_horizon_sinks_as_the_camera_looks_up():
    grass = Background("grass", (0.5, 0.7, 1.0), (0.3, 0.6, 0.2), None)
    pictures = [draw_background(grass, elevation, 2.8, 40.0, -0.7, 64) for elevation in (2.0, 10.0, 40.0)]
    sky = [np.mean(picture[..., 2] > picture[..., 1]) for picture in pictures]
    assert 0.3 < sky[0] < 0.6 and sky[0] > sky[1] > sky[2] == 0
    assert all(picture.min() >= 0 and picture.max() <= 1 for picture in pictures)


def test_no_background_has_the_colour_of_the_object_before_it(photos):
    for photo in photos:
        if photo.background.kind == "white":
            continue
        parts = photo.subject.parts if is_composition(photo) else (photo.subject,)
        for colour in (lab.COLORS[part.colors[0]] for part in parts):
            assert (
                min(np.linalg.norm(np.subtract(colour, c)) for c in (photo.background.top, photo.background.bottom))
                > 0.2
            )


@pytest.mark.parametrize("material", MATERIALS)
def test_a_material_keeps_what_is_light_and_what_is_dark(material):
    rows = lab.sample_object(np.random.default_rng(0), "kitten").primitives
    made = made_of(rows, material)
    luma = np.array([0.30, 0.59, 0.11])
    before, after = rows[:, 17:20] @ luma, made[:, 17:20] @ luma
    assert (np.diff(after[np.argsort(before)]) > -1e-6).all() and after.std() > 0.03
    np.testing.assert_array_equal(rows[:, :17], made[:, :17])


@pytest.mark.parametrize("style", STYLES)
def test_styles_do_what_they_are_called(style):
    rng = np.random.default_rng(0)
    image, part = rng.random((32, 32, 3)), np.full((32, 32), -1)
    part[8:24, 8:24] = 0
    drawn = stylized(style, image, np.full((32, 32, 3), 0.8), part)
    assert drawn.shape == image.shape and drawn.min() >= 0 and drawn.max() <= 1
    if style == "cartoon":
        assert drawn[8, 10:20].max() < drawn[12:20, 12:20].min()  # an ink line around flat colour
    elif style == "pixel art":
        assert len(np.unique(drawn.reshape(-1, 3), axis=0)) <= 64
    else:
        assert np.ptp(drawn, axis=-1).max() < 1e-9
