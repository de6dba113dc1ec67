"""The paper's pipeline with the public networks, and the same made to fit a GPU of 16 GB.

The paper gives the method, the resolutions (150^3 voxels, rendering at 512 and 1024), batch sizes (NeuS 1, mesh 2) and
the shape of the learning-rate curves (figure 6). All other numbers are those of the released configs, steps counted in
batches (the released field stage counts every batch three times) and elevations with up as positive.
"""

from dataclasses import replace

from geodream_lib.presets.settings import Cameras, Field, Guidance, Mesh, Preset, Refine, Views, Volume
from geodream_lib.schedules import annealed, constant, paper_texture, paper_volume

# Half the width of the cube around the released view frusta, where the cameras' distance is 1.2: the released distances
# of refinement are in units of the cube, those of a preset in units of the world.
CUBE = 1.3395
WORDS = {"front": 20.0, "back": 40.0, "overhead": 50.0}  # degrees, in the field and the texture stage


def paper_preset() -> Preset:
    """150^3 volume, NeuS up to 512^2, DMTet at 1024^2, Stable Diffusion 2.1 in half precision.

    For a GPU of 16 GB (the paper's had 32): `geodream plan` counts 14.6, and 22.6 with `field.memory_gib` at 16.
    """
    return Preset(
        name="paper",
        device="cuda",
        precision="float16",
        text_to_image="sd21-base",
        lora="sd21",
        mvdream="mvdream-sd21",
        zero123="zero123-xl",
        zero123plus="zero123plus-v1.1",
        cost_volume="one2345",
        image_text="clip-vit-b32",
        point_text="uni3d-g",
        viewpoint="",
        lexicon="",
        views=Views(
            reference="mvdream",
            reference_elevation=0.0,
            fill=0.75,
            count=14,
            steps=75,
            guidance=3.0,
            eta=1.0,
            neighbour_steps=50,
            radius=1.2,
            fov_y=49.13,
            size=256,
        ),
        volume=Volume(resolution=96, refined_resolution=150, mesh_resolution=150, frame="frusta", pixel_center=0.0),
        field=Field(
            levels=16,
            log2_table=19,
            sharpening=1.0,
            samples_per_ray=512,
            occupancy_resolution=32,
            random_background=0.5,
            darkest=0.0,
            memory_gib=4.0,
        ),
        refine=Refine(
            steps=20000,
            batch_size=1,
            size=annealed(1000, 256, 512, 1000, total_steps=20000),
            rates={"volume": 1e-3, "encoding": 5e-3, "texture": 5e-4, "background": 1e-3},
            schedules={
                "volume": paper_volume(20000),
                "encoding": paper_texture(20000),
                "texture": paper_texture(20000),
            },
            t_max=annealed(5000, 0.98, 0.5, 5000, total_steps=20000),
            weights={
                "sparsity": constant(10.0),
                "opaque": annealed(3334, 0.0, 1000.0, 3334, total_steps=20000),
            },
            guidance=Guidance(scale=7.5, lora_rate=1e-4, **WORDS),
            cameras=Cameras(distance=(1.0 * CUBE, 1.5 * CUBE), fov_y=(40.0, 60.0), elevation=(-35.0, 35.0)),
            weight_decay=0.01,
            checkpoint_steps=500,
        ),
        mesh=Mesh(
            grid_resolution=256,
            geometry=Refine(
                steps=6500,
                batch_size=2,
                size=constant(512),
                rates={"sdf": 1e-3, "deformation": 1e-3},
                t_max=annealed(2000, 0.98, 0.5, 2000, total_steps=6500),
                weights={
                    "normal_consistency": constant(10000.0),
                    "laplacian": constant(10000.0),
                    "deviation": constant(10000.0),
                },
                guidance=Guidance(scale=7.5, lora_rate=1e-4, front=45.0, back=45.0, overhead=60.0),
                cameras=Cameras(distance=(1.0 * CUBE, 1.25 * CUBE), fov_y=(40.0, 60.0), elevation=(-30.0, 40.0)),
                checkpoint_steps=500,
            ),
            texture=Refine(
                steps=30000,
                batch_size=2,
                size=constant(1024),
                rates={"encoding": 2.5e-3, "texture": 2.5e-4},
                t_max=annealed(3000, 0.98, 0.4, 3000, total_steps=30000),
                guidance=Guidance(scale=7.5, lora_rate=2.5e-5, **WORDS),
                cameras=Cameras(distance=(1.0 * CUBE, 1.25 * CUBE), fov_y=(40.0, 60.0), elevation=(-10.0, 60.0)),
                weight_decay=0.01,
                checkpoint_steps=500,
            ),
            atlas_size=2048,
        ),
    )


def colab_preset() -> Preset:
    """The paper's preset on one GPU of 16 GB: one Stable Diffusion in both roles, smaller renders, a shorter run."""
    paper = paper_preset()
    refine = replace(paper.refine, steps=3000, size=annealed(300, 128, 256, 300, total_steps=3000))
    geometry = replace(paper.mesh.geometry, steps=500, batch_size=1)
    texture = replace(paper.mesh.texture, steps=1500, batch_size=1, size=constant(512))
    return replace(
        paper,
        name="colab",
        lora="",
        field=replace(paper.field, samples_per_ray=256, memory_gib=2.0),
        refine=replace(refine, checkpoint_steps=100),
        mesh=replace(
            paper.mesh,
            grid_resolution=128,
            geometry=replace(geometry, checkpoint_steps=100),
            texture=replace(texture, checkpoint_steps=100),
            atlas_size=1024,
        ),
    )
