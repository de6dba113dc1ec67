"""Train the lab's point-text evaluator: Uni3D's point encoder, aligned with the texts of the image-text evaluator."""

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from geodream_lib.lab.bench import Bench
from geodream_lib.lab.datasets import load_shards, make_shards
from geodream_lib.lab.evaluator_data import render_cloud_exams, render_clouds
from geodream_lib.lab.evaluator_networks import make_uni3d
from geodream_lib.lab.train_image_text import (
    PHRASE_WEIGHT,
    contrastive_loss,
    exam_score,
    index_phrases,
    make_phrase_head,
    phrase_loss,
)
from geodream_lib.lab.training import Budget, train
from geodream_lib.metrics.image_text import ImageText
from geodream_lib.metrics.point_cloud import to_uni3d
from geodream_lib.metrics.point_text import PointText, save_uni3d
from geodream_lib.precision import fast_autocast

EXAMS = 2
WRONG_TEXTS = 1024  # beside those of the batch; they are read once, so they cost little
TEXTS = "../image_text"  # the folder whose texts it is compared with, as seen from its own


def make_point_text(bench: Bench) -> None:
    """Draw coloured clouds, train the point encoder on them, write `point_text/`."""
    keys = ("xyz", "rgb", "captions")
    clouds = load_shards(make_shards(render_clouds, bench.data, bench.turntables), keys)
    exams = load_shards(make_shards(render_cloud_exams, bench.data, EXAMS, "test"), keys)
    out = bench.out / "point_text"
    if bench.warm_start:
        network = PointText.load(out, bench.device)
    else:
        texts = ImageText.load(bench.out / "image_text", bench.device)
        network = PointText(make_uni3d(texts.clip.config.projection_dim), texts.clip, texts.tokenizer)
    network = train_point_text(
        network, clouds, exams, budget=bench.budget, folder=bench.folder("point_text"), device=bench.device
    )
    save_uni3d(out, network.uni3d.half(), TEXTS)
    bench.keep_curve("point_text", out)


def train_point_text(
    network: PointText,
    clouds: dict[str, np.ndarray],
    exams: dict[str, np.ndarray],
    *,
    budget: Budget,
    folder: Path,
    device: torch.device,
) -> PointText:
    """Train on clouds (xyz, rgb `[n, p, 3]`, captions `[n, c]`); log retrieval in the exams (captions `[m]`).

    The text tower is frozen, as in the released training, so all captions are read once. Beside texts that one is
    aligned with pictures too; here the texts were aligned with pictures before. Of a batch of some dozens little can be
    learned by comparison: so every cloud is compared with many more texts, and asked for the phrases of its longest
    caption, as pictures are (see `train_image_text`).
    """
    network.to(device)
    captions, said = np.unique(clouds["captions"], return_inverse=True)
    texts, said = network.embed_texts(captions.tolist()), torch.from_numpy(said.reshape(clouds["captions"].shape))
    xyz, rgb = torch.from_numpy(clouds["xyz"]).to(device), torch.from_numpy(clouds["rgb"]).to(device)
    said = said.to(device)
    said_phrases, phrase_count = index_phrases(clouds["captions"])
    said_phrases = said_phrases[:, 0].to(device)

    def loss(model: nn.ModuleDict, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        draw = {"generator": generator, "device": device}
        index = torch.randint(len(xyz), (budget.batch_size,), **draw)
        which = torch.randint(said.shape[1], (budget.batch_size,), **draw)
        # All points or half of them: patches are thinned by different factors, and in tests by another one.
        half = torch.rand((), **draw).item() < 0.5
        points = torch.randperm(xyz.shape[1], **draw)[: xyz.shape[1] // (2 if half else 1)]
        places, colours = disturb_cloud(
            xyz[index[:, None], points].float(), rgb[index[:, None], points].float() / 255, generator
        )
        with fast_autocast(device):
            items = model["uni3d"].point_encoder(to_uni3d(places), colours)
        sentence = said[index, which]
        asked = torch.cat([sentence, torch.randint(len(texts), (WRONG_TEXTS,), **draw)])
        contrast = contrastive_loss(
            items, texts[asked], model["uni3d"].logit_scale, said[index, :, None].eq(asked).any(1)
        )
        shown = phrase_loss(model["phrases"], items, said_phrases[index])
        return contrast + PHRASE_WEIGHT * shown, {"contrast": contrast.item(), "phrases": shown.item()}

    def validate(model: nn.ModuleDict) -> dict[str, float]:
        points, colours = torch.from_numpy(exams["xyz"]).float(), torch.from_numpy(exams["rgb"]).float() / 255
        found = network.embed_points(points, colours)
        return {"retrieval": exam_score(found, network.embed_texts(exams["captions"].tolist()))}

    head = make_phrase_head(network.uni3d.point_encoder.config.embed_dim, phrase_count)
    model = nn.ModuleDict({"uni3d": network.uni3d, "phrases": head}).requires_grad_(True)
    train("point_text", model, loss, budget=budget, folder=folder, device=device, validate=validate)
    return network.eval()


def disturb_cloud(
    xyz: Float[Tensor, "n p 3"], rgb: Float[Tensor, "n p 3"], generator: torch.Generator
) -> tuple[Float[Tensor, "n p 3"], Float[Tensor, "n p 3"]]:
    """Clouds turned about z, stretched by up to 7 % along each axis, roughened and in other light, as meshes may be."""
    count, draw = len(xyz), {"generator": generator, "device": xyz.device}
    angle = 2 * math.pi * torch.rand(count, **draw)
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    turn = [angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero, zero, zero, one]
    stretch = 0.93 + 0.14 * torch.rand(count, 1, 3, **draw)
    rough = 0.015 * torch.rand(count, 1, 1, **draw)
    xyz = (xyz * stretch) @ torch.stack(turn, dim=-1).view(count, 3, 3).mT
    xyz = xyz + rough * torch.randn(xyz.shape, **draw)
    gain, spread = 0.85 + 0.3 * torch.rand(count, 1, 3, **draw), 0.05 * torch.rand(count, 1, 1, **draw)
    return xyz, (rgb * gain + spread * torch.randn(rgb.shape, **draw)).clamp(0, 1)
