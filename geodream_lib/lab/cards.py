"""`python -m geodream_lib.lab.cards`: draw the sample sheets of the lab networks' cards from the weights as they are.

Everything is fixed by seed, so that sheets of different weights can be compared; the objects that the autoencoder and
Zero123 are shown are held out of training.
"""

import argparse
import logging
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geodream_lib import cameras as cam
from geodream_lib import show
from geodream_lib.data import data_folder
from geodream_lib.guidance import load_diffusion
from geodream_lib.lab.datasets import (
    REFERENCE_VIEWS,
    TURNTABLE_FOV,
    TURNTABLE_RADIUS,
    turntable_angles,
    turntable_object,
)
from geodream_lib.lab.measure.views import asked_of_zero123plus, exact_views
from geodream_lib.lab.networks import IMAGE_SIZE
from geodream_lib.lab.objects import LabObject, sample_object
from geodream_lib.lab.train_vae import load_vae, reconstruct
from geodream_lib.mesh import render_normals
from geodream_lib.presets import Views, Volume, load_preset
from geodream_lib.views import MVDream, RelativePose, Zero123, Zero123Plus, pose_cameras
from geodream_lib.views.sources import predict_with_zero123plus, viewpoints
from geodream_lib.volume import build_cost_volume, load_cost_volume_networks, volume_mesh

logger = logging.getLogger(__name__)

PROMPTS = (
    "a red mushroom on a log",
    "a blue robot with yellow hands",
    "a green dinosaur",
    "a yellow teapot",
    "an orange rocket with red fins",
    "a brown corgi with a blue collar",
)
# Single objects, and two scenes that MVDream's 3D data does not have.
MVDREAM_PROMPTS = (
    "a brown corgi with a blue collar",
    "a white house with a red roof",
    "a red mushroom on a log",
    "a brown corgi riding a red rocket",
    "a white astronaut riding a brown horse",
)
# Of the held-out turntables: a corgi, a teapot, a robot, in colours that no network has seen on them.
ZERO123_OBJECTS = (3, 5, 18)
# (category, colours) whose volumes are drawn.
VOLUME_OBJECTS = (
    ("mushroom", ("red", "grey")),
    ("corgi", ("brown", "yellow")),
    ("house", ("white", "red")),
)


def held_out_object(index: int) -> tuple[LabObject, np.random.Generator]:
    """Object `index` of the held-out turntables, and the generator that goes on to draw its views."""
    return turntable_object(0, index, "held_out")


def views_of(
    obj: LabObject, azimuth: Float[np.ndarray, " n"], elevation: Float[np.ndarray, " n"]
) -> tuple[Float[Tensor, "n h w 3"], cam.Cameras]:
    """Exact views on white from a turntable's distance, 0..1, and their cameras."""
    angles = (torch.from_numpy(np.asarray(angle, np.float32)) for angle in (azimuth, elevation))
    cameras = cam.orbit(*angles, TURNTABLE_RADIUS, TURNTABLE_FOV, IMAGE_SIZE)
    return exact_views(obj, cameras)[0], cameras


def autoencoder_rows(folder: Path, count: int = 10) -> dict[str, Float[Tensor, "n h w 3"]]:
    """Held-out objects from the front, true and decoded."""
    truth = torch.cat([views_of(held_out_object(i)[0], np.zeros(1), np.full(1, 14.0))[0] for i in range(count)])
    return {"true": truth, "decoded": reconstruct(load_vae(folder), (truth * 255).byte(), torch.device("cpu"))}


def text_to_image_rows(folder: Path, settings: Views) -> dict[str, Float[Tensor, "n h w 3"]]:
    """Every prompt with and without a word for the view; the same noise for all three."""
    diffusion, rows = load_diffusion(folder), {}
    for name, suffix in (("front view", ", front view"), ("plain", ""), ("back view", ", back view")):
        generator = torch.Generator().manual_seed(0)
        prompts = [prompt + suffix for prompt in PROMPTS]
        rows[name] = diffusion.sample(prompts, settings.reference_steps, settings.reference_guidance, generator)
    return rows


def zero123_rows(folder: Path, settings: Views) -> dict[str, Float[Tensor, "n h w 3"]]:
    """Held-out objects: the true reference with the views predicted from it, and below them the true ones."""
    zero123, rows = Zero123.load(folder), {}
    for index in ZERO123_OBJECTS:
        obj, rng = held_out_object(index)
        azimuth, elevation = turntable_angles(rng)
        chosen = [0, *range(REFERENCE_VIEWS, len(azimuth), 2)]
        azimuth, elevation = azimuth[chosen], elevation[chosen]
        truth, _ = views_of(obj, azimuth, elevation)
        poses = [
            RelativePose(float(a), float(e), "card")
            for a, e in zip(azimuth[1:] - azimuth[0], elevation[1:] - elevation[0], strict=True)
        ]
        generator = torch.Generator().manual_seed(0)
        predicted = zero123.predict(truth[0], poses, settings.steps, settings.guidance, settings.eta, generator)
        rows[f"{obj.category} predicted"] = torch.cat([truth[:1], predicted])
        rows[f"{obj.category} true"] = truth
    return rows


def zero123plus_rows(folder: Path, settings: Views) -> dict[str, Float[Tensor, "n h w 3"]]:
    """Held-out objects from the front with the six views around them, cut out of the tile, and the true ones."""
    network, rows = Zero123Plus.load(folder), {}
    settings = asked_of_zero123plus(settings)
    for index in ZERO123_OBJECTS:
        obj, _ = held_out_object(index)
        generator = torch.Generator().manual_seed(0)
        poses = viewpoints(settings, False, generator)
        cameras = pose_cameras(poses, settings.reference_elevation, TURNTABLE_RADIUS, TURNTABLE_FOV, IMAGE_SIZE)
        truth, _ = exact_views(obj, cameras)
        rows[f"{obj.category} predicted"] = predict_with_zero123plus(
            network, {0.0: truth[0]}, poses, settings, generator
        )
        rows[f"{obj.category} true"] = truth
    return rows


def mvdream_rows(folder: Path, settings: Views) -> dict[str, Float[Tensor, "n h w 3"]]:
    """Front, left, back and right of every prompt; the same noise for all."""
    mvdream = MVDream.load(folder)
    return {
        prompt: mvdream.predict(
            prompt,
            torch.Generator().manual_seed(0),
            settings.mvdream_steps,
            settings.mvdream_guidance,
            settings.mvdream_elevation,
            settings.size,
        )
        for prompt in MVDREAM_PROMPTS
    }


def cost_volume_rows(path: Path, settings: Volume) -> dict[str, Float[Tensor, "n h w 3"]]:
    """Objects from four sides, and below them the normals of what the volume of twelve true views has for a surface."""
    networks, rows = load_cost_volume_networks(path), {}
    sides = [0.0, 90.0, 180.0, 270.0]
    around = cam.orbit(sides, 15.0, TURNTABLE_RADIUS, TURNTABLE_FOV, IMAGE_SIZE)
    azimuth, elevation = (angle[REFERENCE_VIEWS:] for angle in turntable_angles(np.random.default_rng(0)))
    for category, colors in VOLUME_OBJECTS:
        obj = sample_object(np.random.default_rng(0), category, colors)
        volume = build_cost_volume(*views_of(obj, azimuth, elevation), networks, settings.resolution)
        mesh = volume_mesh(volume, networks.decoder, settings.mesh_resolution)
        vertices, faces = torch.tensor(mesh.vertices).float(), torch.tensor(mesh.faces)
        rows[f"{category} true"] = views_of(obj, np.array(sides), np.full(4, 15.0))[0]
        rows[f"{category} volume"] = render_normals(around, vertices, faces, torch.ones(4, 3))
    return rows


@torch.no_grad()
def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m geodream_lib.lab.cards", description=__doc__)
    parser.add_argument("--lab", type=Path, default=data_folder() / "lab", help="folder of the networks and the cards")
    parser.add_argument("names", nargs="*", help="which (default: all that are there)")
    arguments = parser.parse_args()
    lab, preset = arguments.lab, load_preset("lab")
    show.quiet_libraries()
    sheets = {
        "text_to_image/vae": lambda: autoencoder_rows(lab / "text_to_image"),
        "text_to_image": lambda: text_to_image_rows(lab / "text_to_image", preset.views),
        "text_to_image_base": lambda: text_to_image_rows(lab / "text_to_image_base", preset.views),
        "zero123": lambda: zero123_rows(lab / "zero123", preset.views),
        "zero123plus": lambda: zero123plus_rows(lab / "zero123plus", preset.views),
        "mvdream": lambda: mvdream_rows(lab / "mvdream", preset.views),
        "cost_volume": lambda: cost_volume_rows(lab / "cost_volume" / "model.safetensors", preset.volume),
    }
    if unknown := set(arguments.names) - set(sheets):
        parser.error(f"no sheet {', '.join(sorted(unknown))}; choose from {', '.join(sheets)}")
    for name in arguments.names or [name for name in sheets if (lab / name).is_dir()]:
        path = lab / name / "samples.png"
        show.save_image(path, show.contact_sheet(sheets[name]()))
        logger.info("%s", path)


if __name__ == "__main__":
    main()
