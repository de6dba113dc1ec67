"""Pictures for notebooks, run folders and the README: rows of views, contact sheets, turntables, curves."""

import io
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
import trimesh
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from PIL import Image, ImageDraw, ImageFont, ImageSequence
from torch import Tensor, nn
from tqdm import tqdm

from geodream_lib.cameras import Cameras
from geodream_lib.mesh import antialias, interpolate, rasterize
from geodream_lib.mesh.geometry import vertex_normals
from geodream_lib.schedules import Schedule
from geodream_lib.storage import atomic_write

LABEL_WIDTH = 104
DPI = 72  # of figures: legible, and a notebook that keeps all of its own stays below a megabyte
SUN = (0.5, 0.3, 0.8)  # direction towards the light of grey renders: above the front's left


@contextmanager
def step_bar(title: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with the remaining time; yields `advance(done, total)` for functions that report steps so."""
    with tqdm(total=total, desc=title, unit="step", dynamic_ncols=True) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance


def to_uint8(image: Float[Tensor, "*b h w 3"]) -> np.ndarray:
    """Images in 0..1 to bytes."""
    return (image.detach().cpu().float().clamp(0, 1) * 255 + 0.5).byte().numpy()


@torch.no_grad()
def render_plain(cameras: Cameras, path: Path | str) -> Float[Tensor, "n h w 3"]:
    """A mesh file (PLY) as grey plaster on white, lit from a fixed direction of the world: shape without colour."""
    mesh = trimesh.load_mesh(path)
    vertices, faces = torch.tensor(mesh.vertices).float(), torch.tensor(mesh.faces)
    sun = torch.nn.functional.normalize(torch.tensor(SUN), dim=0)
    # Half-Lambert: the side in shadow keeps its shading.
    grey = 0.15 + 0.7 * (vertex_normals(vertices, faces) @ sun / 2 + 0.5)
    raster = rasterize(cameras, vertices, faces)
    shaded = interpolate(grey[:, None].expand(-1, 3), raster, faces)
    image = torch.where(raster.face_ids[..., None] >= 0, shaded, 1.0)
    return antialias(image, raster, cameras, vertices, faces)


def grid(images: Float[Tensor, "n h w 3"], columns: int) -> Image.Image:
    """Images in rows of `columns`."""
    rows = [np.concatenate(list(to_uint8(part)), axis=1) for part in images.split(columns)]
    width = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    return Image.fromarray(np.concatenate(rows))


def contact_sheet(rows: Mapping[str, Float[Tensor, "n h w 3"]], title: str = "", tile: int = 128) -> Image.Image:
    """One labelled row of pictures for each entry, every picture `tile` pixels wide; columns follow the longest row."""
    columns = max(len(images) for images in rows.values())
    top = 28 if title else 0
    sheet = Image.new("RGB", (LABEL_WIDTH + columns * tile, top + len(rows) * tile), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    draw.text((8, 7), title, fill="black", font=ImageFont.load_default(15))
    for r, (label, images) in enumerate(rows.items()):
        middle = (8, top + r * tile + tile // 2)
        draw.multiline_text(middle, label.replace(" ", "\n"), fill="black", font=font, anchor="lm")
        for c, image in enumerate(to_uint8(images)):
            picture = Image.fromarray(image).resize((tile, tile), Image.Resampling.LANCZOS)
            sheet.paste(picture, (LABEL_WIDTH + c * tile, top + r * tile))
    return sheet


def save_image(path: Path | str, image: Image.Image) -> None:
    """Write a PNG or JPEG, atomically."""
    with atomic_write(path) as temporary:
        image.save(temporary)


def save_turntable(folder: Path, images: Float[Tensor, "n h w 3"], frames_per_second: int = 20) -> None:
    """Write `turntable.gif` and `turntable.mp4` into `folder`."""
    frames = to_uint8(images)
    palette = [Image.fromarray(frame).quantize(128, dither=Image.Dither.NONE) for frame in frames]
    with atomic_write(folder / "turntable.gif") as temporary:
        palette[0].save(
            temporary,
            save_all=True,
            append_images=palette[1:],
            duration=1000 // frames_per_second,
            loop=0,
            optimize=True,
        )
    with atomic_write(folder / "turntable.mp4") as temporary:
        iio.imwrite(temporary, frames, fps=frames_per_second, codec="libx264", macro_block_size=2)


def plot_curves(curves: Mapping[str, Sequence[float]], *, ylabel: str, log: bool = False, title: str = "") -> Figure:
    """Values against the step, one line for each entry."""
    figure = Figure(figsize=(7, 2.8), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for label, values in curves.items():
        axes.plot(values, label=label)
    axes.set(xlabel="step", ylabel=ylabel, title=title)
    if log:
        axes.set_yscale("log")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return figure


def plot_schedules(schedules: Mapping[str, Schedule], total_steps: int, *, ylabel: str = "", title: str = "") -> Figure:
    """Schedules over a run of `total_steps` steps, one line for each; the corners are marked."""
    figure = Figure(figsize=(7, 2.8), dpi=DPI, layout="constrained")
    axes, steps = figure.subplots(), np.linspace(0, total_steps, 400)
    for label, schedule in schedules.items():
        schedule = schedule.scaled(total_steps)
        (line,) = axes.plot(steps, schedule.values(steps), label=label)
        corners = [knot for knot in schedule.knots if knot[0] <= total_steps]
        axes.plot(*zip(*corners, strict=True), "o", color=line.get_color(), markersize=3)
    axes.set(xlabel="step", ylabel=ylabel, title=title)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return figure


def parameter_table(networks: Mapping[str, nn.Module]) -> str:
    """One line for each network: its name, its class and how many parameters it has."""
    sizes = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    width = max(map(len, networks))
    lines = [f"{name:{width}}  {sizes[name]:>11,}  {type(network).__name__}" for name, network in networks.items()]
    return "\n".join([*lines, f"{'in all':{width}}  {sum(sizes.values()):>11,}  parameters"])


def pictures(images: Mapping[str, Float[Tensor, "h w *c"]], columns: int = 6, tile: float = 1.7) -> Figure:
    """Pictures in rows, the name of each above it; `tile` inches wide.

    An image `[h, w]` without colours is drawn in a colour map from its smallest to its largest value.
    """
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(tile * min(columns, len(images)), (tile + 0.25) * rows), dpi=DPI, layout="constrained")
    axes = figure.subplots(rows, min(columns, len(images)), squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (name, image) in zip(axes, images.items(), strict=False):
        color = image.ndim == 3
        axis.imshow(to_uint8(image) if color else image.detach().cpu().numpy(), cmap=None if color else "magma")
        axis.set_title(name, fontsize=8)
    return figure


def points_on_views(
    images: Float[Tensor, "n h w 3"], pixels: Float[Tensor, "n m 2"], colors: Sequence[str], columns: int = 6
) -> Figure:
    """Views with the same `m` points marked in each, every point in its colour; pixel coordinates as `project`."""
    figure = pictures({f"view {i}": image for i, image in enumerate(images)}, columns)
    for axis, places in zip(figure.axes, pixels.detach().cpu().numpy(), strict=False):
        # imshow puts the centre of the first pixel at 0, `project` at 0.5.
        axis.scatter(places[:, 0] - 0.5, places[:, 1] - 0.5, c=list(colors), s=26, edgecolors="white", linewidths=0.8)
        axis.set(xlim=(-0.5, images.shape[2] - 0.5), ylim=(images.shape[1] - 0.5, -0.5))
    return figure


def viewpoints_on_sphere(sets: Mapping[str, tuple[Cameras, Sequence[str]]]) -> Figure:
    """Where cameras stand, one sphere for each entry, coloured by the label of each camera; the arrow is the front."""
    figure = Figure(figsize=(3.6 * len(sets), 3.9), dpi=DPI, layout="constrained")
    u, v = np.mgrid[0 : 2 * np.pi : 25j, -np.pi / 2 : np.pi / 2 : 13j]
    for place, (title, (cameras, labels)) in enumerate(sets.items(), start=1):
        axes = figure.add_subplot(1, len(sets), place, projection="3d")
        radius = cameras.positions.norm(dim=-1).max().item()
        x, y, z = radius * np.cos(v) * np.cos(u), radius * np.cos(v) * np.sin(u), radius * np.sin(v)
        axes.plot_wireframe(x, y, z, color="0.85", linewidth=0.4)
        axes.quiver(0, 0, 0, 0.6 * radius, 0, 0, color="0.3")
        for label in dict.fromkeys(labels):
            chosen = cameras.positions[[i for i, name in enumerate(labels) if name == label]]
            axes.scatter(*chosen.T.numpy(), s=28, label=label)
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
        axes.set_box_aspect((1, 1, 1), zoom=1.25)
        axes.view_init(elev=28, azim=-35)
        if len(set(labels)) <= 5:
            axes.legend(fontsize=7, loc="lower center", ncols=2)
    return figure


def sdf_slices(
    slices: Mapping[str, Float[Tensor, "r r"]], truth: Float[Tensor, "q q"] | None = None, limit: float = 0.3
) -> Figure:
    """Signed distances on a plane through the cube [-1, 1]^3: blue inside, red outside, the surface as a black line.

    Args:
        slices: indexed [x, z], such as `sdf[:, r // 2, :]` for the plane y = 0.
        truth: of the true object on the same plane; its surface is drawn as a green line.
        limit: distance at which the colours end.
    """
    figure = Figure(figsize=(2.3 * len(slices), 2.6), dpi=DPI, layout="constrained")
    box = (-1, 1, -1, 1)
    for axis, (name, values) in zip(figure.subplots(1, len(slices), squeeze=False)[0], slices.items(), strict=True):
        values = values.detach().cpu().numpy().T
        bands = np.linspace(-limit, limit, 25)
        axis.contourf(values, bands, origin="lower", extent=box, cmap="RdBu_r", extend="both")
        if values.min() < 0 < values.max():
            axis.contour(values, levels=[0], origin="lower", extent=box, colors="black", linewidths=1)
        if truth is not None:
            axis.contour(truth.cpu().numpy().T, levels=[0], origin="lower", extent=box, colors="green", linewidths=1)
        axis.set_title(name, fontsize=9)
        axis.set(xticks=[], yticks=[], aspect="equal")
    return figure


def tetrahedra(
    cases: Mapping[str, tuple[Float[Tensor, "4 3"], Float[Tensor, " 4"], Float[Tensor, "m 3"], Int[Tensor, "f 3"]]],
) -> Figure:
    """Tetrahedra and the surface inside each: `(corners, signed distances at them, vertices, faces)` by title."""
    figure = Figure(figsize=(3.0 * len(cases), 3.1), dpi=DPI, layout="constrained")
    for place, (title, (corners, sdf, vertices, faces)) in enumerate(cases.items(), start=1):
        axes = figure.add_subplot(1, len(cases), place, projection="3d")
        for i in range(4):
            for j in range(i):
                axes.plot(*corners[[i, j]].T.numpy(), color="0.6", linewidth=0.8)
        colors = ["tab:red" if value > 0 else "tab:blue" for value in sdf]
        axes.scatter(*corners.T.numpy(), c=colors, s=40, depthshade=False)
        for corner, value in zip(corners.tolist(), sdf.tolist(), strict=True):
            axes.text(*corner, f" {value:+.1f}", fontsize=8)
        if len(faces):
            triangles = vertices.detach()[faces].numpy()
            axes.add_collection3d(Poly3DCollection(triangles, facecolor="gold", edgecolor="black", alpha=0.7))
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
        axes.set_box_aspect((1, 1, 1), zoom=1.2)
        axes.view_init(elev=18, azim=-60)
    return figure


def small_gif(path: Path | str, size: int = 128, every: int = 5) -> bytes:
    """An animated GIF with every `every`-th frame, `size` pixels wide: small enough to be kept in a notebook."""
    with Image.open(path) as gif:
        duration = gif.info.get("duration", 50) * every
        frames = [frame.convert("RGB") for frame in itertools.islice(ImageSequence.Iterator(gif), 0, None, every)]
    frames = [frame.resize((size, size * frame.height // frame.width)).quantize(64) for frame in frames]
    stream = io.BytesIO()
    frames[0].save(stream, "gif", save_all=True, append_images=frames[1:], duration=duration, loop=0)
    return stream.getvalue()


def quiet_libraries() -> None:
    """Keep the notices and loading bars of the libraries underneath out of a notebook; their errors are still seen."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
