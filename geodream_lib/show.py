"""Pictures for notebooks, run folders and the README: rows of views, contact sheets, turntables, curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import imageio.v3 as iio

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from geodream_lib.storage import atomic_write

LABEL_WIDTH = 104


def to_uint8(image: Float[Tensor, "*b h w 3"]) -> np.ndarray:
    """Images in 0..1 to bytes."""
    return (image.detach().cpu().float().clamp(0, 1) * 255 + 0.5).byte().numpy()


def normal_colors(normals: Float[Tensor, "*b h w 3"], opacity: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b h w 3"]:
    """World normals as colours ((n+1)/2) on white."""
    return (normals / 2 + 0.5) * opacity[..., None] + (1 - opacity[..., None])


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
        draw.multiline_text((8, top + r * tile + tile // 2 - 14), label.replace(" ", "\n"), fill="black", font=font)
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
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axes = figure.subplots()
    for label, values in curves.items():
        axes.plot(values, label=label)
    axes.set(xlabel="step", ylabel=ylabel, title=title)
    if log:
        axes.set_yscale("log")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return figure
