"""The true objects behind a prompt of the lab world, for what is made of it to be measured against."""

import numpy as np
import torch

from geodream_lib.cameras import Cameras
from geodream_lib.lab.geometry import mesh
from geodream_lib.lab.meaning import meaning, sample_meant
from geodream_lib.lab.render import render_rgba
from geodream_lib.metrics.truth import Truth

CANDIDATES = 24  # a prompt leaves proportions open: as many objects are drawn, always the same ones


def truth_of(prompt: str, cameras: Cameras) -> Truth | None:
    """Objects that the prompt is true of; their exact pictures on white are dealt out over the cameras.

    None if the prompt is no sentence about a single object of the lab.
    """
    meant = meaning(prompt)
    if meant is None:
        return None
    objects = [sample_meant(meant, np.random.default_rng([70, k])) for k in range(CANDIDATES)]
    seen = [objects[i % CANDIDATES] for i in range(len(cameras))]
    images, _ = render_rgba(seen, cameras, np.ones((len(cameras), 3), np.float32))
    return Truth(
        symmetric=objects[0].symmetric,
        images=torch.from_numpy(images).float() / 255,
        candidates=CANDIDATES,
        mesh=lambda candidate, resolution: mesh(objects[candidate], resolution),
    )
