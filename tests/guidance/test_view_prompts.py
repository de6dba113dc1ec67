"""View words and Perp-Neg."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from geodream_lib.errors import InputError
from geodream_lib.guidance import LatentDiffusion, ViewPrompts, load_diffusion
from geodream_lib.guidance.prompts import (
    BACK,
    FRONT,
    Condition,
    PromptEmbeddings,
    guided_noise,
    perp_neg_direction,
    perpendicular,
)
from geodream_lib.pipeline import make_guidance
from geodream_lib.run import create_run


def word(azimuth: float, elevation: float, **thresholds: float) -> str:
    prompts = ViewPrompts("a corgi", **thresholds)
    slot = prompts.slots(torch.tensor([float(azimuth)]), torch.tensor([float(elevation)]))[0]
    return prompts.texts()[slot].removeprefix("a corgi, ").removesuffix(" view")


@pytest.mark.parametrize(
    ("azimuth", "elevation", "expected"),
    [
        (0, 0, "front"),
        (44.9, 0, "front"),
        (45, 0, "side"),
        (-45, 0, "side"),
        (90, 0, "side"),
        (135, 0, "side"),
        (135.1, 0, "back"),
        (180, 0, "back"),
        (-135.1, 0, "back"),
        (360, 0, "front"),
        (-200, 0, "back"),
        (0, 60, "front"),
        (0, 60.1, "overhead"),
        (180, 90, "overhead"),
        (0, -90, "front"),
    ],
)
def test_words_at_the_thresholds(azimuth: float, elevation: float, expected: str) -> None:
    assert word(azimuth, elevation) == expected


def test_thresholds_of_the_released_configs() -> None:
    released = {"front": 20.0, "back": 40.0, "overhead": 50.0}
    assert word(19.9, 0, **released) == "front"
    assert word(20.1, 0, **released) == "side"
    assert word(139.9, 0, **released) == "side"
    assert word(140.1, 0, **released) == "back"
    assert word(90, 50.1, **released) == "overhead"


def test_without_view_words_every_side_is_asked_for_the_same() -> None:
    assert set(ViewPrompts("a corgi", view_words=False).texts()) == {"a corgi"}
    assert len(set(ViewPrompts("a corgi").texts())) == 4


@pytest.mark.parametrize("said", [True, False])
def test_a_run_says_the_view_or_not_as_its_preset_asks(said: bool, tmp_path: Path) -> None:
    changes = {"refine.guidance.kind": "sds", "refine.guidance.view_words": said}
    run = create_run("a red mushroom on a log", tmp_path / "run", overrides=changes)
    prompts = make_guidance(run, run.preset.refine.guidance, torch.Generator()).prompts
    assert torch.equal(prompts.views[FRONT], prompts.views[BACK]) != said


@pytest.mark.parametrize("kind", ["sds", "vsd"])
def test_a_run_moves_away_from_the_wrong_views_if_its_preset_asks(kind: str, tmp_path: Path) -> None:
    changes = {"refine.guidance.kind": kind, "refine.guidance.perp_neg": True}
    run = create_run("a red mushroom on a log", tmp_path / "run", overrides=changes)
    guidance = make_guidance(run, run.preset.refine.guidance, torch.Generator().manual_seed(0))
    grey, angles = torch.full((1, 128, 128, 3), 0.5), (torch.tensor([60.0]), torch.tensor([15.0]))

    def asked(guidance: object) -> torch.Tensor:
        return guidance(grey, torch.eye(4)[None], *angles, (0.4, 0.6), torch.Generator().manual_seed(0)).grad_norm

    assert not torch.equal(asked(guidance), asked(replace(guidance, perp_neg=False)))
    with pytest.raises(InputError, match="perp_neg moves away from view words; leave guidance.view_words on"):
        create_run("a corgi", tmp_path / "other", overrides=changes | {"refine.guidance.view_words": False})


@pytest.fixture
def embeddings() -> PromptEmbeddings:
    plain, views, negative = torch.randn(6, 3, 8, generator=torch.Generator().manual_seed(0)).split([1, 4, 1])
    return PromptEmbeddings(ViewPrompts("a corgi"), plain, views, negative)


def test_each_camera_gets_the_text_of_its_side(embeddings: PromptEmbeddings) -> None:
    condition = embeddings.condition(torch.tensor([90.0, 0.0, 180.0, 0.0]), torch.tensor([0.0, 0.0, 0.0, 80.0]))
    assert torch.equal(condition.text, embeddings.views)
    assert torch.equal(condition.negative, embeddings.negative.expand(4, -1, -1))
    assert condition.repelled is None


def test_perp_neg_repels_nothing_from_above(embeddings: PromptEmbeddings) -> None:
    condition = embeddings.perp_neg_condition(torch.tensor([0.0, 100.0]), torch.tensor([80.0, 80.0]))
    assert torch.equal(condition.weights, torch.zeros(2, 2))
    assert torch.equal(condition.text, embeddings.views[[3, 3]])


def test_perp_neg_blend_is_continuous_and_pure_at_the_sides(embeddings: PromptEmbeddings) -> None:
    side, front, back, _ = embeddings.views
    pure = embeddings.perp_neg_condition(torch.tensor([0.0, 90.0, -90.0, -180.0]), torch.zeros(4)).text
    torch.testing.assert_close(pure, torch.stack([front, side, side, back]))
    before, after = embeddings.perp_neg_condition(torch.tensor([89.999, 90.001]), torch.zeros(2)).text
    torch.testing.assert_close(before, after, atol=1e-3, rtol=0)


def test_perp_neg_never_attracts(embeddings: PromptEmbeddings) -> None:
    """The weights are fitted so that they reach about zero where the repelled side is the wanted one."""
    weights = embeddings.perp_neg_condition(torch.arange(-180.0, 180.0), torch.zeros(360)).weights
    assert weights.max() < 1e-2


def test_what_perp_neg_adds_is_perpendicular_to_the_wanted_direction() -> None:
    generator = torch.Generator().manual_seed(0)
    wanted = torch.randn(2, 4, 8, 8, generator=generator, dtype=torch.float64)
    repelled = torch.randn(2, 2, 4, 8, 8, generator=generator, dtype=torch.float64)
    weights = -torch.rand(2, 2, generator=generator, dtype=torch.float64)
    added = perp_neg_direction(wanted, repelled, weights) - wanted
    assert added.abs().max() > 0.1
    torch.testing.assert_close((added * wanted).sum(dim=(1, 2, 3)), torch.zeros(2, dtype=torch.float64))

    parallel = perpendicular(3 * wanted, wanted)
    torch.testing.assert_close(parallel, torch.zeros_like(wanted))
    assert torch.equal(perp_neg_direction(wanted, repelled, torch.zeros_like(weights)), wanted)


@pytest.fixture(scope="module")
def diffusion(golden: Path) -> LatentDiffusion:
    return load_diffusion(golden / "vsd" / "sd_base")


@pytest.mark.needs_golden("vsd")
@pytest.mark.parametrize("perp_neg", [False, True])
def test_a_batch_of_views_is_each_view_alone(diffusion: LatentDiffusion, perp_neg: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    size, width = diffusion.latent_size, diffusion.denoiser.unet.config.cross_attention_dim
    noisy, t = torch.randn(2, 4, size, size, generator=generator), torch.tensor([100, 800])
    text, negative = torch.randn(2, 2, 5, width, generator=generator).unbind(0)
    repelled, weights = torch.randn(2, 2, 5, width, generator=generator), -torch.rand(2, 2, generator=generator)

    def ask(rows: slice) -> torch.Tensor:
        extra = (repelled[rows], weights[rows]) if perp_neg else ()
        return guided_noise(
            diffusion.denoiser, noisy[rows], t[rows], Condition(text[rows], negative[rows], *extra), 7.5
        )

    alone = torch.cat([ask(slice(0, 1)), ask(slice(1, 2))])
    torch.testing.assert_close(ask(slice(0, 2)), alone, atol=1e-4, rtol=1e-4)
