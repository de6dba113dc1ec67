"""What is optimised in stages 3 and 4, each as one render function with its parameters: field, mesh shape, mesh colour.

The refinement loop sees nothing else of them: images for the guidance, further loss terms by name, parameters by group.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from geodream_lib.cameras import Cameras
from geodream_lib.field import (
    HashEncoding,
    NeuSField,
    TextureDecoder,
    normal_colors,
    occupancy_grid,
    render,
    solid_background,
    training_background,
)
from geodream_lib.field.cube import cube_points
from geodream_lib.mesh import DMTet, FlexiCubes, normal_consistency, render_normals, render_texture, uniform_laplacian
from geodream_lib.presets import Field
from geodream_lib.processes import draw_rows


@dataclass(frozen=True)
class Shot:
    """What a scene shows the guidance: images in 0..1, and the terms of its own that the loss adds by weight."""

    images: Float[Tensor, "n h w 3"]
    terms: dict[str, Float[Tensor, ""]]


class FieldScene(nn.Module):
    """Stage 3: the cost volume under the frozen geometry decoder, with its texture field, rendered by NeuS (eqs. 7, 8).

    Terms, as released: `sparsity`, mean of sqrt(opacity^2 + 0.01), which keeps empty space empty; `opaque`, the binary
    entropy of the opacity, which pushes every pixel to all or nothing.
    """

    def __init__(self, field: NeuSField, settings: Field):
        super().__init__()
        self.field, self.settings = field, settings
        # Part of the state: a run that resumes between two measurements goes on with the same one.
        self.register_buffer(
            "occupancy", torch.zeros((settings.occupancy_resolution,) * 3, device=field.to_world.device)
        )

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return self.field.parameter_groups()

    def forward(self, cameras: Cameras, step: int, generator: torch.Generator) -> Shot:
        if step % self.settings.occupancy_steps == 0:
            self.measure_occupancy()
        return self.shoot(cameras, step, generator)

    def measure_occupancy(self) -> None:
        """Where the surface is now."""
        self.occupancy = occupancy_grid(self.field, resolution=self.settings.occupancy_resolution)

    def shoot(self, cameras: Cameras, step: int, generator: torch.Generator) -> Shot:
        """Render with the occupancy that was measured last."""
        settings = self.settings
        annealed = min(1.0, step / settings.cos_anneal_steps) if settings.cos_anneal_steps else 1.0
        background = training_background(
            self.field.background, settings.random_background, generator, darkest=settings.darkest
        )
        rendered = render(
            self.field,
            cameras,
            samples_per_ray=settings.samples_per_ray,
            background=background,
            occupancy=self.occupancy,
            generator=generator,
            cos_anneal_ratio=annealed * settings.cos_anneal_ratio,
            memory_gib=settings.memory_gib,
        )
        opacity = rendered.opacity.clamp(1e-3, 1 - 1e-3)
        terms = {
            "sparsity": (rendered.opacity.square() + 0.01).sqrt().mean(),
            "opaque": functional.binary_cross_entropy(opacity, opacity),
        }
        return Shot(rendered.rgb, terms)

    def preview(self, cameras: Cameras) -> dict[str, Float[Tensor, "n h w 3"]]:
        """Colour on white, and normals; measures the occupancy only where no step has yet."""
        settings, white = self.settings, solid_background(torch.ones(3))
        occupancy = self.occupancy
        if not occupancy.any():
            occupancy = occupancy_grid(self.field, resolution=settings.occupancy_resolution)
        seen = render(
            self.field,
            cameras,
            samples_per_ray=settings.samples_per_ray,
            background=white,
            occupancy=occupancy,
            cos_anneal_ratio=settings.cos_anneal_ratio,
            memory_gib=settings.memory_gib,
        )
        return {"colour": seen.rgb, "normals": normal_colors(seen.normal, seen.opacity)}


class Particles(nn.Module):
    """Several fields for one prompt: samples of the distribution that VSD fits, each step shows one of them.

    With one it is the paper's method; with several (ProlificDreamer) the second network learns what all of them look
    like, and pushes them apart.
    """

    def __init__(self, scenes: Sequence[FieldScene]):
        super().__init__()
        self.scenes = nn.ModuleList(scenes)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        groups = [scene.parameter_groups() for scene in self.scenes]
        return {name: [parameter for group in groups for parameter in group[name]] for name in groups[0]}

    def forward(self, cameras: Cameras, step: int, generator: torch.Generator) -> Shot:
        """The others get no gradient, so the optimiser leaves them where they are."""
        if step % self.scenes[0].settings.occupancy_steps == 0:
            for scene in self.scenes:
                scene.measure_occupancy()
        chosen = int(torch.randint(len(self.scenes), (), generator=generator))
        return self.scenes[chosen].shoot(cameras, step, generator)

    def preview(self, cameras: Cameras) -> dict[str, Float[Tensor, "n h w 3"]]:
        """Colour and normals of every particle."""
        seen = [scene.preview(cameras) for scene in self.scenes]
        return {f"particle {i} {name}": images for i, part in enumerate(seen) for name, images in part.items()}


# What the grid of stage 4 carries, by the setting `mesh.surface`.
SURFACES: dict[str, type[DMTet] | type[FlexiCubes]] = {"dmtet": DMTet, "flexicubes": FlexiCubes}


class GeometryScene(nn.Module):
    """Stage 4, first: the grid's mesh, shown to the guidance as its normal map on the background 'black'.

    Terms, as released: `normal_consistency` and `laplacian`, which keep the surface smooth. `deviation`, the L_dev of
    FlexiCubes; 0 for a DMTet.
    """

    def __init__(self, surface: DMTet | FlexiCubes):
        super().__init__()
        self.surface = surface

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return self.surface.parameter_groups()

    def forward(self, cameras: Cameras, step: int, generator: torch.Generator) -> Shot:
        vertices, faces, deviation = self.surface.mesh_with_deviation()
        images = render_normals(cameras, vertices, faces, vertices.new_zeros(len(cameras), 3))
        terms = {
            "normal_consistency": normal_consistency(vertices, faces),
            "laplacian": uniform_laplacian(vertices, faces),
            "deviation": deviation,
        }
        return Shot(images, terms)

    def preview(self, cameras: Cameras) -> dict[str, Float[Tensor, "n h w 3"]]:
        """Normals on white."""
        vertices, faces = self.surface.mesh()
        return {"normals": render_normals(cameras, vertices, faces, vertices.new_ones(len(cameras), 3))}


class TextureScene(nn.Module):
    """Stage 4, second: colour on a mesh whose shape is final; `encoding` and `texture` as in eq. 8."""

    def __init__(
        self,
        vertices: Float[Tensor, "v 3"],
        faces: Int[Tensor, "f 3"],
        encoding: HashEncoding,
        texture: TextureDecoder,
        to_world: Float[Tensor, "4 4"],
        darkest: float,
    ):
        super().__init__()
        self.encoding, self.texture, self.darkest = encoding, texture, darkest
        self.register_buffer("vertices", vertices, persistent=False)
        self.register_buffer("faces", faces, persistent=False)
        self.register_buffer("to_world", to_world, persistent=False)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"encoding": list(self.encoding.parameters()), "texture": list(self.texture.parameters())}

    def color(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Colour 0..1 at world points."""
        position = cube_points(self.to_world, points)
        return self.texture(self.encoding((position + 1) / 2), position)

    def forward(self, cameras: Cameras, step: int, generator: torch.Generator) -> Shot:
        random = draw_rows(lambda rows: torch.rand(rows, 3, generator=generator), len(cameras), generator)
        random = self.darkest + (1 - self.darkest) * random
        images = render_texture(cameras, self.vertices, self.faces, self.color, random.to(self.vertices))
        return Shot(images, {})

    def preview(self, cameras: Cameras) -> dict[str, Float[Tensor, "n h w 3"]]:
        """Colour on white."""
        white = self.vertices.new_ones(len(cameras), 3)
        return {"colour": render_texture(cameras, self.vertices, self.faces, self.color, white)}
