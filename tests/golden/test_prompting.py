"""View words, Perp-Neg and text embeddings against the tables of threestudio and of GeoDream."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from geodream_lib.guidance import ViewPrompts, encode_prompts, load_diffusion
from geodream_lib.guidance.prompts import OVERHEAD, PromptEmbeddings

SOURCES = ["threestudio", "geodream"]


def our_azimuth(azimuth: torch.Tensor, source: str) -> torch.Tensor:
    """GeoDream's world has azimuth 0 behind the object, threestudio's and ours in front of it."""
    return azimuth + 180 if source == "geodream" else azimuth


@pytest.mark.parametrize("thresholds", ["defaults", "geodream_yaml"])
@pytest.mark.parametrize("source", SOURCES)
def test_words_of_every_camera(source: str, thresholds: str, golden: Path) -> None:
    table = json.loads((golden / "prompting" / f"directions_{source}.json").read_text())
    expected = table["tables"][thresholds]
    # float64 as in the table: half a turn added to 44.9 in float32 would cross a threshold.
    azimuth = our_azimuth(torch.tensor(table["azimuth_deg"], dtype=torch.float64), source)
    # The released code compares GeoDream's elevation as if positive were above, so its numbers go in as they are.
    elevation = torch.tensor(table["elevation_deg"], dtype=torch.float64)

    prompts = ViewPrompts(expected["plain_prompt"], **expected["thresholds"])
    words = [prompts.texts()[slot] for slot in prompts.slots(azimuth, elevation)]
    assert words == expected["chosen_prompt"]


@pytest.mark.parametrize("source", SOURCES)
def test_perp_neg_embeddings_and_weights(source: str, golden: Path) -> None:
    with np.load(golden / "prompting" / f"perp_neg_{source}.npz") as file:
        expected = {name: torch.from_numpy(file[name]) for name in file.files if file[name].dtype.kind != "U"}
    # The slots come with their texts, swapped ones in GeoDream's case, so both sources share one rule here.
    uncond = expected["uncond_vd"]
    prompts = PromptEmbeddings(ViewPrompts(""), uncond[:1], expected["embeddings_vd"], uncond[:1])
    condition = prompts.perp_neg_condition(expected["azimuth"], expected["elevation"])

    slots = prompts.prompts.slots(expected["azimuth"], expected["elevation"])
    assert (slots == OVERHEAD).any()
    torch.testing.assert_close(slots, expected["slot"])
    torch.testing.assert_close(condition.text, expected["pos"], atol=1e-5, rtol=0)
    torch.testing.assert_close(condition.negative, expected["uncond"], atol=1e-5, rtol=0)
    torch.testing.assert_close(condition.weights, expected["neg_weights"], atol=1e-5, rtol=0)
    torch.testing.assert_close(condition.repelled.flatten(0, 1), expected["neg"], atol=1e-5, rtol=0)


@pytest.mark.needs_golden("vsd")
def test_text_embeddings(golden: Path) -> None:
    diffusion = load_diffusion(golden / "vsd" / "sd_base")
    with np.load(golden / "prompting" / "text_embeddings.npz") as file:
        texts, expected = [str(text) for text in file["prompts"]], torch.from_numpy(file["embeddings"])
    torch.testing.assert_close(diffusion.encode_text(texts), expected, atol=1e-5, rtol=0)

    # The table has the plain text, the negative prompt, and the four sides.
    encoded = encode_prompts(diffusion, ViewPrompts(texts[0], negative=texts[1]))
    together = torch.cat([encoded.plain, encoded.negative, encoded.views])
    torch.testing.assert_close(together, expected, atol=1e-5, rtol=0)
