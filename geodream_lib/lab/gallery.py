"""`python -m geodream_lib.lab.gallery FILE RUN...`: finished runs below each other, as the README shows them."""

import argparse
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from geodream_lib import show
from geodream_lib.cameras import orbit
from geodream_lib.mesh import TexturedMesh, render_textured_mesh
from geodream_lib.run import Run, open_run
from geodream_lib.views import PosedViews

SIDES, ELEVATION = 8, 15.0


@torch.no_grad()
def row(run: Run, size: int) -> Float[Tensor, "n size size 3"]:
    """The reference view of a run and its mesh from all around, the front first; 0..1 on white.

    Raises:
        InputError: the run is not finished.
    """
    reference = PosedViews.load(run.views).images[:1].permute(0, 3, 1, 2)
    reference = torch.nn.functional.interpolate(reference, (size, size), mode="area").permute(0, 2, 3, 1)
    views, azimuth = run.preset.views, [360 / SIDES * k for k in range(SIDES)]
    around = orbit(azimuth, ELEVATION, views.radius, views.fov_y, size)
    mesh = TexturedMesh.load_glb(run.mesh)
    return torch.cat([reference, render_textured_mesh(around, mesh, torch.ones(SIDES, 3))])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m geodream_lib.lab.gallery", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="the picture, .png or .jpg")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders made by geodream generate or sweep")
    parser.add_argument("--tile", type=int, default=116, help="pixels a side of one view (default: %(default)s)")
    arguments = parser.parse_args()
    runs = [open_run(folder) for folder in arguments.runs]
    prompts, folders = [run.prompt for run in runs], [str(folder) for folder in arguments.runs]
    labels = prompts if len(set(prompts)) == len(prompts) else folders
    rows = {label: row(run, arguments.tile) for label, run in zip(labels, runs, strict=True)}
    show.save_image(arguments.file, show.contact_sheet(rows, tile=arguments.tile))


if __name__ == "__main__":
    main()
