"""The lab: the method on two CPU cores in minutes, with the small networks of `data/lab/`.

Its sizes differ from the paper's; the steps, equations and schedules do not.
"""

from geodream_lib.presets.settings import Field, Mesh, Preset, Refine, Views, Volume
from geodream_lib.schedules import annealed, constant, paper_texture, paper_volume


def lab_preset() -> Preset:
    """The lab: 128-pixel images, 16x16 latents, a 48^3 volume, minutes on two cores."""
    return Preset(
        name="lab",
        device="cpu",
        precision="float32",
        text_to_image="lab/text_to_image",
        lora="",
        mvdream="lab/mvdream",
        zero123="lab/zero123",
        zero123plus="lab/zero123plus",
        cost_volume="lab/cost_volume/model.safetensors",
        image_text="lab/image_text",
        point_text="lab/point_text",
        viewpoint="lab/viewpoint",
        lexicon="prompts/lexicon.json",
        views=Views(reference="mvdream", reference_guidance=3.0, mvdream_steps=30, mvdream_guidance=5.0, tile=80),
        volume=Volume(),
        # Finest level 128^3, as fine as the finest pictures: what is finer is taught nothing but grain.
        field=Field(growth=8 ** (1 / 7)),
        refine=Refine(
            steps=320,
            batch_size=2,
            size=annealed(200, 64, 96, 200, total_steps=320),
            # A volume rate of 1e-3 makes the surface ripple from voxel to voxel within 240 steps.
            rates={"volume": 1e-4, "encoding": 1.2e-2, "texture": 3e-3, "background": 1e-3},
            schedules={"volume": paper_volume(320), "encoding": paper_texture(320), "texture": paper_texture(320)},
            t_max=annealed(0, 0.75, 0.25, 320, total_steps=320),
            weights={"sparsity": constant(0.0)},
        ),
        mesh=Mesh(
            grid_resolution=48,
            geometry=Refine(
                steps=60,
                batch_size=2,
                size=constant(96),
                rates={"sdf": 5e-4, "deformation": 5e-4},
                weights={
                    "normal_consistency": constant(300.0),
                    "laplacian": constant(300.0),
                    "deviation": constant(300.0),
                },
            ),
            texture=Refine(
                steps=240,
                batch_size=2,
                size=constant(128),
                rates={"encoding": 6e-3, "texture": 1.5e-3},
                schedules={"encoding": paper_texture(240), "texture": paper_texture(240)},
                t_max=annealed(0, 0.6, 0.2, 240, total_steps=240),
            ),
        ),
    )
