"""The inverse test: from 24 pictures of a lab object, and a ball, back to the object's shape and colours."""

import numpy as np
import pytest
import torch
import trimesh

from geodream_lib.field import HashEncoding, TextureDecoder
from geodream_lib.lab import mesh as true_mesh
from geodream_lib.lab import sample_object
from geodream_lib.lab.inverse import (
    all_around,
    fit_geometry,
    fit_texture,
    peak_signal_to_noise,
    rough_ball,
    take_pictures,
)
from geodream_lib.mesh import DMTet, FlexiCubes, remove_floaters
from geodream_lib.metrics.shape import TAU, compare_shapes
from geodream_lib.presets import load_preset
from geodream_lib.scenes import TextureScene


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "resolution", "category"), [(DMTet, 48, "mushroom"), (FlexiCubes, 32, "robot")])
def test_shape_and_colours_come_back_from_pictures(
    kind: type[DMTet] | type[FlexiCubes], resolution: int, category: str
) -> None:
    """F-score at 0.02 of 0.95, and 28 dB on held-out views, background included."""
    obj, generator = sample_object(np.random.default_rng(0), category), torch.Generator().manual_seed(0)
    pictures = take_pictures(obj, all_around(24, 128))
    surface = kind.from_sdf(rough_ball, resolution)
    fit_geometry(surface, pictures, generator)
    with torch.no_grad():
        vertices, faces = remove_floaters(*surface.eval().mesh())
    mesh = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
    assert TAU == 0.02 and mesh.is_watertight
    assert compare_shapes(mesh, true_mesh(obj, 128)).f_score >= 0.95

    torch.manual_seed(0)
    settings = load_preset("lab").field
    encoding = HashEncoding(settings.levels, 2, settings.log2_table, settings.base_resolution, settings.growth)
    scene = TextureScene(vertices, faces, encoding, TextureDecoder(encoding.dimension), torch.eye(4), 0.0)
    fit_texture(scene, pictures, generator)
    held_out = take_pictures(obj, all_around(8, 128, turned=77.0))
    with torch.no_grad():
        images = scene.preview(held_out.cameras)["colour"]
    assert peak_signal_to_noise(images, held_out.colors) >= 28
