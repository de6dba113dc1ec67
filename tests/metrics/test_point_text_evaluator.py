"""The point-text evaluator: clouds drawn, brought into one frame, divided and embedded, whatever their order."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from geodream_lib.errors import InputError
from geodream_lib.lab.networks import make_tokenizer
from geodream_lib.metrics.point_cloud import farthest_points, group, to_uni3d
from geodream_lib.metrics.point_encoder import PointEncoderConfig, Uni3D
from geodream_lib.metrics.point_text import PointText, sample_surface, save_uni3d
from geodream_lib.storage import load_tensors, save_tensors

CONFIG = PointEncoderConfig(
    width=16,
    depth=2,
    heads=2,
    mlp="gated",
    hidden=24,
    embed_dim=10,
    patch_widths=(8, 12, 16),
    patch_dim=14,
    groups=6,
    group_size=5,
    points=40,
)


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cloud(points: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    return torch.randn(2, points, 3, generator=draw(seed)), torch.rand(2, points, 3, generator=draw(seed + 1))


@pytest.fixture
def folder(tmp_path):
    """A small evaluator and the text tower it names, both as they lie on disk."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer(["a", "red", "blue", "log"], tmp_path / "words")
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "max_position_embeddings": 12, "projection_dim": CONFIG.embed_dim}
    tower = CLIPTextModelWithProjection(CLIPTextConfig(**sizes, eos_token_id=tokenizer.eos_token_id))
    tower.save_pretrained(tmp_path / "texts")
    tokenizer.save_pretrained(tmp_path / "texts")
    save_uni3d(tmp_path / "points", Uni3D(CONFIG), "../texts")
    return tmp_path / "points"


def test_farthest_points_of_a_line():
    """0, 1, 2, 3, 10: the one furthest from the middle, then the other end, then the one furthest from both."""
    line = torch.tensor([1.0, 0.0, 10.0, 2.0, 3.0])[:, None] * torch.tensor([0.0, 1.0, 0.0])
    assert farthest_points(line[None], 3).tolist() == [[2, 1, 4]]
    with pytest.raises(InputError, match="6 points cannot be chosen out of 5"):
        farthest_points(line[None], 6)


def test_patches_are_the_nearest_points_relative_to_their_centre():
    xyz, rgb = cloud(30)
    centres, patches = group(xyz, rgb, groups=4, size=7)
    for i in range(2):
        for centre, patch in zip(centres[i], patches[i], strict=True):
            nearest = (xyz[i] - centre).norm(dim=-1).sort().indices[:7]
            expected = torch.cat([xyz[i] - centre, rgb[i]], dim=-1)[nearest]
            found = patch[patch[:, :3].norm(dim=-1).argsort()]
            torch.testing.assert_close(found, expected)
    with pytest.raises(InputError, match="groups of 31 out of 30 points"):
        group(xyz, rgb, groups=4, size=31)


def test_patches_of_a_denser_cloud_cover_as_much():
    """Four times as many points on the same square: patches of as many points, and as large."""
    flat = torch.tensor([1.0, 1.0, 0.0])
    xyz = torch.rand(1, 4000, 3, generator=draw(0)) * flat
    rgb = torch.rand(1, 4000, 3, generator=draw(1))

    def size(points: int, spread: int) -> float:
        _, patches = group(xyz[:, :points], rgb[:, :points], groups=20, size=30, spread=spread)
        assert patches.shape == (1, 20, 30, 6)
        return patches[..., :3].norm(dim=-1).amax(-1).mean().item()

    assert size(4000, 4) == pytest.approx(size(1000, 1), rel=0.1)
    assert size(4000, 1) < 0.6 * size(1000, 1)


def test_a_cloud_is_seen_without_its_place_and_size_and_with_y_up():
    xyz, _ = cloud(50)
    framed = to_uni3d(xyz)
    torch.testing.assert_close(to_uni3d(3 * xyz + torch.tensor([1.0, -2.0, 5.0])), framed, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(framed.norm(dim=-1).amax(1), torch.ones(2))
    highest = xyz[..., 2].argmax(1)
    assert torch.equal(framed[..., 1].argmax(1), highest), "what was up in the world is up there"
    handed, hand = ((points[:, 1:4] - points[:, :1]).det().sign() for points in (xyz, framed))
    assert torch.equal(hand, handed), "nothing is mirrored"


@pytest.mark.parametrize("points", [40, 90], ids=["as many as the network takes", "more, to be thinned"])
def test_the_order_of_the_points_does_not_matter(folder, points):
    network = PointText.load(folder)
    xyz, rgb = cloud(points)
    order = torch.randperm(points, generator=draw(7))
    embedded = network.embed_points(xyz, rgb)
    torch.testing.assert_close(embedded.norm(dim=-1), torch.ones(2))
    torch.testing.assert_close(network.embed_points(xyz[:, order], rgb[:, order]), embedded, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(network.embed_points(xyz, rgb.flip(1)), embedded, atol=1e-3), "colours are seen"


def test_a_saved_evaluator_embeds_as_before(folder):
    network = PointText.load(folder)
    save_uni3d(folder.parent / "again", network.uni3d, "../texts")
    again = PointText.load(folder.parent / "again")
    xyz, rgb = cloud(60)
    assert torch.equal(again.embed_points(xyz, rgb), network.embed_points(xyz, rgb))
    texts = again.embed_texts(["a red log", "a blue log"])
    assert texts.shape == (2, CONFIG.embed_dim) and torch.equal(texts, network.embed_texts(["a red log", "a blue log"]))


def test_what_does_not_fit_is_named(folder):
    config, weights = folder / "config.json", folder / "model.safetensors"
    tensors, known = load_tensors(weights)[0], json.loads(config.read_text())
    renamed = {name.replace("cls_pos", "cls_place"): tensor for name, tensor in tensors.items()}
    save_tensors(weights, renamed)
    with pytest.raises(InputError, match="missing point_encoder.cls_pos; unknown point_encoder.cls_place"):
        PointText.load(folder)
    save_tensors(weights, tensors)

    def change(**values: object) -> None:
        config.write_text(json.dumps(known | values))

    change(text="../nowhere")
    with pytest.raises(InputError, match="the texts of nowhere, which is not there"):
        PointText.load(folder)
    change(text=None)
    with pytest.raises(InputError, match="names no text tower"):
        PointText.load(folder)
    change(point_encoder=known["point_encoder"] | {"heads": 3})
    with pytest.raises(InputError, match="describes no point encoder: heads divide the width"):
        PointText.load(folder)
    change(point_encoder=known["point_encoder"] | {"colour": 3})
    with pytest.raises(InputError, match="does not describe a point encoder"):
        PointText.load(folder)
    change(point_encoder=known["point_encoder"] | {"embed_dim": 12})
    save_tensors(weights, Uni3D(replace(CONFIG, embed_dim=12)).state_dict())
    with pytest.raises(InputError, match="12 numbers and .* texts in 10"):
        PointText.load(folder)
    with pytest.raises(InputError, match="no point-text evaluator at"):
        PointText.load(folder / "nothing")


def two_squares() -> trimesh.Trimesh:
    """One of side 1 at z = 0 and one of side 2 at z = 1: four fifths of the area are above."""
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=float)
    vertices = np.concatenate([np.c_[square, np.zeros(4)], np.c_[2 * square, np.ones(4)]])
    faces = [[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]]
    return trimesh.Trimesh(vertices, faces, process=False)


def test_points_are_spread_evenly_over_the_surface():
    xyz, rgb = sample_surface(two_squares(), 20_000, draw(0))
    above = xyz[:, 2] == 1
    assert abs(above.float().mean().item() - 0.8) < 0.01
    quarter = (xyz[above, 0] < 1) & (xyz[above, 1] < 1)
    assert abs(quarter.float().mean().item() - 0.25) < 0.015
    assert (rgb == 0.4).all(), "without a colour they are grey"
    again, _ = sample_surface(two_squares(), 20_000, draw(0))
    assert torch.equal(again, xyz)


def test_points_have_the_colour_of_the_place_they_lie_on():
    mesh = two_squares()
    mesh.visual = trimesh.visual.ColorVisuals(mesh, face_colors=[[255, 0, 0, 255]] * 2 + [[0, 0, 255, 255]] * 2)
    xyz, rgb = sample_surface(mesh, 500, draw(1))
    assert torch.equal(rgb, torch.where(xyz[:, 2:] == 1, torch.tensor([0.0, 0, 1]), torch.tensor([1.0, 0, 0])))

    corners = np.round(255 * np.c_[mesh.vertices[:, :2] / 2, np.zeros(8), np.ones(8)]).astype(np.uint8)
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=corners)
    xyz, rgb = sample_surface(mesh, 500, draw(2))
    torch.testing.assert_close(rgb[:, :2], xyz[:, :2] / 2, atol=0.01, rtol=0)

    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, :, 0], pixels[1, :, 1] = 255, 255  # the upper row of a texture is at v = 1
    uv = mesh.vertices[:, :2] / 2
    mesh.visual = trimesh.visual.TextureVisuals(uv, image=Image.fromarray(pixels))
    xyz, rgb = sample_surface(mesh, 500, draw(3))
    upper = xyz[:, 1] / 2 > 0.5
    clear = (xyz[:, 1] / 2 - 0.5).abs() > 0.26
    assert (rgb[upper & clear, 0] > 0.9).all() and (rgb[~upper & clear, 1] > 0.9).all()


def test_a_mesh_without_a_surface_is_refused():
    flat = trimesh.Trimesh(np.zeros((3, 3)), [[0, 1, 2]], process=False)
    for mesh in (flat, trimesh.Trimesh()):
        with pytest.raises(InputError, match="without a face that has an area"):
            sample_surface(mesh, 10, draw(0))
