"""The evaluators' data and trainings: seeds of their own, true captions, and losses that fall."""

import json
import re

import numpy as np
import pytest
import torch

from geodream_lib.data import data_folder
from geodream_lib.lab import evaluator_data as data
from geodream_lib.lab.augment import disturb
from geodream_lib.lab.compositions import Composition
from geodream_lib.lab.evaluator_networks import make_clip, make_uni3d, make_viewpoint_network
from geodream_lib.lab.geometry import albedo, sdf
from geodream_lib.lab.measure import judges
from geodream_lib.lab.measure.judges import measure_image_text, measure_point_text, measure_viewpoint
from geodream_lib.lab.networks import make_tokenizer
from geodream_lib.lab.objects import HELD_OUT, is_symmetric, sample_object
from geodream_lib.lab.shape import COLORS
from geodream_lib.lab.train_image_text import (
    COLOUR_WORD,
    catch_up,
    contrastive_loss,
    exam_score,
    index_phrases,
    make_phrase_head,
    mistake_colours,
    phrase_loss,
    train_image_text,
)
from geodream_lib.lab.train_point_text import disturb_cloud, train_point_text
from geodream_lib.lab.train_viewpoint import angle_between, soft_bins, train_viewpoint
from geodream_lib.lab.training import Budget
from geodream_lib.metrics.point_text import PointText, load_uni3d, save_uni3d
from geodream_lib.metrics.viewpoint import mean_direction

CPU = torch.device("cpu")
COLOURS = {"red": (230, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 230), "white": (250, 250, 250)}


def budget(steps: int, batch: int = 8, rate: float = 3e-3) -> Budget:
    """Every step counts as a second, see `counted`; the average of the weights keeps up with so few."""
    return Budget(steps / 60, batch, rate, ema_decay=0.5, warmup_steps=1, checkpoint_seconds=4)


@pytest.fixture
def counted(monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr("geodream_lib.lab.training.time.perf_counter", lambda: float(next(clock)))


@pytest.fixture
def small(monkeypatch):
    for name in ("PICTURES_PER_SHARD", "CLOUDS_PER_SHARD", "BEARINGS_PER_SHARD"):
        monkeypatch.setattr(data, name, 4)
    monkeypatch.setattr(data, "EXAM", {"single": 2, "composition": 3})
    monkeypatch.setattr(data, "CLOUD", 300)
    monkeypatch.setattr(data, "STORED", 200)
    monkeypatch.setattr(data, "CELLS", 24)


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_shards_are_made_by_seed_and_tests_are_other_objects(small):
    for render in (data.render_pictures, data.render_clouds, data.render_bearings):
        one, again, other = render(0, "train"), render(0, "train"), render(0, "test")
        assert all(np.array_equal(one[key], again[key]) for key in one)
        assert not np.array_equal(one[next(iter(one))], other[next(iter(one))])
        assert len({len(values) for values in one.values()}) == 1


def test_a_judge_sees_every_side_and_what_is_held_out_from_the_generators():
    rng = np.random.default_rng(0)
    photos = [data.picture(rng) for _ in range(160)]
    said = [photo for photo in photos if photo.view is None]
    back = np.mean([abs(photo.azimuth) > 90 for photo in said])
    assert 0.1 < back < 0.45
    singles = [photo.subject for photo in photos if not isinstance(photo.subject, Composition)]
    held_out = np.mean([(obj.category, obj.colors[0]) in HELD_OUT for obj in singles])
    assert 0.05 < held_out < 0.35
    for photo in photos:
        assert not photo.background.is_place or photo.elevation >= 2


def test_the_longer_caption_says_what_the_shorter_one_may_leave_out():
    rng = np.random.default_rng(1)
    photos = [data.picture(rng) for _ in range(40)]
    lengths = [(len(data.describe(photo, rng, 6)), len(data.describe(photo, rng, 1))) for photo in photos]
    assert np.mean([much > little for much, little in lengths]) > 0.6


def test_exams_ask_for_distinct_prompts_that_name_the_main_colours(small):
    questions = data.exam(np.random.default_rng(2))
    assert [isinstance(subject, Composition) for subject, _ in questions] == [False] * 2 + [True] * 3
    assert len({text for _, text in questions}) == 5
    for subject, text in questions:
        for part in subject.parts if isinstance(subject, Composition) else (subject,):
            assert part.colors[0] in text
    pictures, clouds = data.render_exams(0, "test"), data.render_cloud_exams(0, "test")
    assert pictures["images"].shape == (5, 128, 128, 3) and clouds["xyz"].shape == (5, 300, 3)


def test_no_two_questions_of_an_exam_are_true_of_the_same_thing(monkeypatch):
    monkeypatch.setattr(data, "EXAM", {"single": 90, "composition": 90})
    questions = data.exam(np.random.default_rng(0))
    whole = [subject.parts if isinstance(subject, Composition) else (subject,) for subject, _ in questions]
    assert len({tuple((part.category, part.colors[0]) for part in parts) for parts in whole}) == len(questions) == 180


def test_clouds_lie_on_the_surface_in_its_colours(small):
    obj = sample_object(np.random.default_rng(3))
    xyz, rgb = data.cloud(obj, 0, 500)
    assert np.abs(sdf(obj, xyz.astype(np.float32))[0]).mean() < 0.02
    assert np.median(np.abs(albedo(obj, xyz.astype(np.float32)) - rgb / 255)) < 0.02


def test_bearings_are_of_objects_that_have_a_front(small, monkeypatch):
    drawn = []
    sample = data.sample_object
    monkeypatch.setattr(
        data, "sample_object", lambda rng, category, split: drawn.append(category) or sample(rng, category)
    )
    shard = data.render_bearings(0, "train")
    assert len(drawn) == 4 and not any(is_symmetric(category) for category in drawn)
    assert shard["images"].shape == (4, 64, 64, 3)


def test_disturbed_pictures_are_the_same_to_a_human():
    images = torch.full((6, 32, 32, 3), 255, dtype=torch.uint8)
    images[:, 10:22, 10:22] = torch.tensor([200, 30, 30], dtype=torch.uint8)
    found = disturb(images, draw(0))
    assert found.shape == images.shape and 0 <= found.min() and found.max() <= 1
    assert (found[:, :2].mean((1, 2)) > 0.94).all(), "white stays white"
    centre = found[:, 15:17, 15:17].mean((1, 2))
    assert (centre[:, 0] > 0.6).all() and (centre[:, 1:] < 0.35).all(), "red stays red"
    assert not torch.equal(found, disturb(images, draw(1)))


def test_disturbed_clouds_keep_their_up_and_their_distances():
    xyz, rgb = torch.randn(2, 500, 3, generator=draw(0)), torch.rand(2, 500, 3, generator=draw(1))
    found, colours = disturb_cloud(xyz, rgb, draw(2))
    for before, after in zip(xyz, found, strict=True):
        height = torch.corrcoef(torch.stack([before[:, 2], after[:, 2]]))[0, 1]
        assert height > 0.99
        torch.testing.assert_close(after.norm(dim=-1), before.norm(dim=-1), atol=0.4, rtol=0.1)
    assert 0 <= colours.min() and colours.max() <= 1 and (colours - rgb).abs().mean() < 0.15


def test_a_text_that_two_items_share_is_no_wrong_answer():
    items = torch.eye(3)
    texts = torch.stack([items[0], items[0], items[2]])
    same = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    scale = torch.tensor(3.0)
    assert contrastive_loss(items[[0, 0, 2]], texts, scale, same) < 1e-3
    assert contrastive_loss(items[[0, 0, 2]], texts, scale, torch.eye(3).bool()) > 0.4


def test_texts_of_no_item_are_wrong_answers_only():
    """One that looks like an item's own costs that item a nat or less; it is itself not asked for an item."""
    items = torch.eye(3)
    texts, scale = torch.cat([items, items[:1]]), torch.tensor(100.0).log()
    alone = contrastive_loss(items, texts[:3], scale, torch.eye(3).bool())
    confused = contrastive_loss(items, texts, scale, torch.eye(3, 4).bool())
    torch.testing.assert_close(confused - alone, torch.tensor(2.0).log() / 6, atol=1e-4, rtol=0)
    told = torch.eye(3, 4).bool() | torch.tensor([[False, False, False, True]] + [[False] * 4] * 2)
    torch.testing.assert_close(contrastive_loss(items, texts, scale, told), alone)


def test_phrases_are_words_and_pairs_of_neighbours_and_rare_ones_are_left_out():
    captions = np.array([["a red log", "a log"], ["a red hat", "red"]])
    numbers, count = index_phrases(captions, least=2)
    # a, log, red, "a red"
    assert count == 4
    assert numbers.shape == (2, 2, 4)
    assert [sum(number < count for number in row) for row in numbers.flatten(0, 1).tolist()] == [4, 2, 3, 1]
    assert set(numbers[0, 0].tolist()) == {0, 1, 2, 3}


def test_mistaken_captions_differ_in_colours_alone_and_are_never_true():
    rng = np.random.default_rng(0)
    wrong = {mistake_colours("a red owl on a pink mushroom", rng) for _ in range(200)}
    assert "a pink owl on a red mushroom" in wrong
    assert "a red owl on a pink mushroom" not in wrong
    assert all(
        re.fullmatch(rf"a {COLOUR_WORD.pattern} owl on a {COLOUR_WORD.pattern} mushroom", text) for text in wrong
    )
    # Nothing of it was said: ten other colours in either place, and the two exchanged.
    assert len(wrong) == 21
    same = {mistake_colours("a red rocket with red fins", rng) for _ in range(50)}
    assert all(text.count("red") == 1 for text in same)
    assert mistake_colours("an orangery on a log", rng) == "an orangery on a log"


def test_the_layer_for_phrases_catches_up_with_what_is_known():
    """Embeddings that tell all phrases leave next to nothing to ask."""
    torch.manual_seed(0)
    said = torch.stack([torch.arange(8), torch.arange(8).roll(1)], 1)
    head = make_phrase_head(8, 8)
    before = phrase_loss(head, torch.eye(8), said).item()
    catch_up(head, torch.eye(8), said)
    assert phrase_loss(head, torch.eye(8), said).item() < 0.05 * before


def test_image_text_that_goes_on_forgets_nothing(squares, tmp_path, counted, monkeypatch):
    """Its first steps are taken with a layer for phrases that has learned to read what the network says; and texts stay
    where the point-text judge finds them."""
    monkeypatch.setattr("geodream_lib.lab.train_image_text.EXAM", {"single": 4})
    torch.manual_seed(0)
    images, captions = squares
    network = make_clip(make_tokenizer(["a", "log", *COLORS], tmp_path / "words"))
    lesson = {"exam_images": images, "exam_captions": captions[:, 0].tolist(), "device": CPU}
    images, captions = images.repeat(20, 1, 1, 1), np.tile(captions, (20, 1))  # often enough to be learned
    asked = {}
    for name, rate in (("begin", 1e-3), ("cold", 1e-5), ("warm", 1e-5)):
        lesson |= {"budget": budget(16, rate=rate), "folder": (folder := tmp_path / name)}
        texts = network.embed_texts(lesson["exam_captions"])
        train_image_text(network, images, captions, **lesson, warm_start=name == "warm")
        asked[name] = json.loads((folder / "log.jsonl").read_text().splitlines()[0])["phrases"]
        assert torch.equal(network.embed_texts(lesson["exam_captions"]), texts) == (name == "warm")
    assert asked["warm"] < 0.5 * asked["cold"]


def test_exams_are_marked_one_by_one(monkeypatch):
    """An item may be taken for a text of another exam without harm."""
    monkeypatch.setattr("geodream_lib.lab.train_image_text.EXAM", {"single": 1, "composition": 1})
    texts = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    assert exam_score(texts, texts) == 1
    assert exam_score(texts[[0, 0, 2, 3]], texts) == 0.75


def test_an_angle_becomes_bins_whose_mean_direction_it_is():
    azimuth = torch.tensor([0.0, 7.0, -178.0, 184.0, 359.0])
    distribution = soft_bins(azimuth)
    torch.testing.assert_close(distribution.sum(-1), torch.ones(5))
    assert ((distribution > 0).sum(-1) <= 2).all()
    assert angle_between(mean_direction(distribution)[0], azimuth).max() < 0.1
    assert angle_between(torch.tensor([170.0]), torch.tensor([-170.0])).item() == pytest.approx(20)


def fall(folder) -> float:
    """The loss of the last line of the log as a share of that of the first."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert len(lines) > 2
    return lines[-1]["loss"] / lines[0]["loss"]


@pytest.fixture
def squares(tmp_path) -> tuple[torch.Tensor, np.ndarray]:
    """Pictures of one colour each, and what they are called."""
    names = list(COLOURS)
    images = torch.tensor([COLOURS[name] for name in names], dtype=torch.uint8)[:, None, None].expand(-1, 128, 128, 3)
    return images.contiguous(), np.array([[f"a {name} log", name] for name in names])


def test_image_text_learns_what_colours_are_called(squares, tmp_path, counted, monkeypatch):
    monkeypatch.setattr("geodream_lib.lab.train_image_text.EXAM", {"single": 4})
    torch.manual_seed(0)
    images, captions = squares
    network = make_clip(make_tokenizer(["a", "log", *COLOURS], tmp_path / "words"))
    asked, plan = captions[:, 0].tolist(), budget(16, rate=1e-3)
    train_image_text(network, images, captions, images, asked, budget=plan, folder=tmp_path, device=CPU)
    assert fall(tmp_path) < 0.8
    assert exam_score(network.embed_images(images / 255), network.embed_texts(asked)) >= 0.5


def test_point_text_learns_which_cloud_is_called_what(tmp_path, counted, monkeypatch):
    monkeypatch.setattr("geodream_lib.lab.train_image_text.EXAM", {"single": 4})
    monkeypatch.setattr("geodream_lib.lab.train_point_text.WRONG_TEXTS", 4)
    torch.manual_seed(0)
    texts = make_clip(make_tokenizer(["a", "log", *COLOURS], tmp_path / "words"))
    network = PointText(make_uni3d(texts.clip.config.projection_dim), texts.clip.eval(), texts.tokenizer)
    ball = torch.nn.functional.normalize(torch.randn(4, 2048, 3, generator=draw(0)), dim=-1)
    rgb = np.array(list(COLOURS.values()), dtype=np.uint8)[:, None].repeat(2048, 1)
    captions = np.array([[f"a {name} log"] for name in COLOURS])
    clouds = {"xyz": ball.numpy().astype(np.float16), "rgb": rgb, "captions": captions}
    tower = {name: tensor.clone() for name, tensor in texts.clip.state_dict().items()}
    train_point_text(
        network, clouds, clouds | {"captions": captions[:, 0]}, budget=budget(20, 4), folder=tmp_path, device=CPU
    )
    assert fall(tmp_path) < 0.8
    assert all(torch.equal(tensor, tower[name]) for name, tensor in texts.clip.state_dict().items()), "frozen"
    save_uni3d(tmp_path / "point_text", network.uni3d.half(), "../image_text")
    assert load_uni3d(tmp_path / "point_text").point_encoder.config == network.uni3d.point_encoder.config


def test_viewpoint_learns_where_a_mark_is(tmp_path, counted):
    """A dark stripe that moves to the right as the camera goes around."""
    torch.manual_seed(0)
    azimuth = torch.arange(0, 360, 45.0)
    images = torch.full((8, 64, 64, 3), 255, dtype=torch.uint8)
    for i, image in enumerate(images):
        image[:, 8 * i : 8 * i + 8] = 0
    network = make_viewpoint_network()
    train_viewpoint(network, images, azimuth, images, azimuth, budget=budget(12), folder=tmp_path, device=CPU)
    assert fall(tmp_path) < 0.9


def test_the_shipped_viewpoint_judge_knows_from_where_an_exact_picture_was_taken(monkeypatch):
    """On exact views of objects that no network has seen: 2.5 degrees and 98 % were measured on 1024 of them."""
    monkeypatch.setattr(data, "BEARINGS_PER_SHARD", 96)
    scores = measure_viewpoint(data_folder() / "lab" / "viewpoint")
    assert scores["median_error"] < 8
    assert scores["front_told"] > 0.9


@pytest.mark.parametrize(("name", "measure"), [("image_text", measure_image_text), ("point_text", measure_point_text)])
def test_a_shipped_judge_finds_the_sentence_of_an_exact_picture_or_cloud(name, measure, monkeypatch):
    """In an exam that no network has seen; of 135 questions 97 % (pictures) and 98 % (clouds) were answered rightly."""
    monkeypatch.setattr(judges, "PICTURE_EXAMS", 1)
    monkeypatch.setattr(judges, "CLOUD_EXAMS", 1)
    for sort, count in (("single", 10), ("composition", 20)):
        monkeypatch.setitem(data.EXAM, sort, count)
    assert measure(data_folder() / "lab" / name)["retrieval"] > 0.85
