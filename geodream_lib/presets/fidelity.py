"""Where the paper's text and the released code disagree: the paper is the default, `released` gives the other."""

from dataclasses import dataclass, replace

from geodream_lib.presets.settings import Preset, Refine, flat_settings
from geodream_lib.schedules import released_texture, released_volume

# Setting: what the paper says, what was released, and what the difference does.
REASONS = {
    "views.predictor": "the paper looks around with Zero123 or Zero123++ (appendix L); the released text path takes "
    "Zero123++ v1.1, which has six fixed views",
    "views.guidance": "Zero123 is asked with 3, Zero123++ with 4",
    "views.sampling": "appendix F draws viewpoints at random within 45 degrees (180 from one front view); the released "
    "code feeds a fixed list, some of it 150 degrees from the view it was predicted from",
    "views.declared_elevation": "MVDream's views are made at 15 degrees; the released pose file enters them at 0, so "
    "every projection into the volume is off by that",
    "views.drop_noisiest": "Zero123's released sampler leaves out the noisiest step and starts at t = 976 of 1000 from "
    "pure noise",
    "refine.schedules.volume": "section 3.2 and figure 6: the volume's rate starts small and grows; the released one "
    "is full for 3500 steps, then drops to a tenth and grows",
    "refine.schedules.encoding": "figure 6: falls over the whole run; released: full for 3500 steps, then falls",
    "refine.schedules.texture": "as the encoding",
    "refine.guidance.overhead": "with the sign of the released elevations the overhead words are never said",
    "refine.guidance.silent_camera": "the released camera embedding starts at random, so the second network starts "
    "a little off the one it is a copy of",
    "field.cos_anneal_ratio": "NeuS anneals the slope in its opacity from 0 to 1; the released field stage keeps it at "
    "0, which moves every outline outwards",
    "field.color_from_position": "eq. (8) gives the texture decoder the position too; the released one sees its "
    "encoding alone",
    "mesh.inherit_texture": "the paper extracts a textured mesh; the released texture stage starts from a new encoding",
    "mesh.geometry.guidance.kind": "section 2.2 and algorithm 1: VSD; the released config: SDS",
    "mesh.geometry.guidance.scale": "of SDS as released; it counts one more than VSD's",
    "mesh.geometry.guidance.overhead": "as in the field stage",
    "mesh.geometry.guidance.silent_camera": "as in the field stage",
    "mesh.geometry.batch_size": "appendix K: meshes with a batch of 2; the released geometry stage takes 8",
    "mesh.texture.batch_size": "appendix K: 2; the released config: 1 (its scripts: 2)",
    "mesh.texture.guidance.overhead": "as in the field stage",
    "mesh.texture.guidance.silent_camera": "as in the field stage",
}
NEVER = 180.0  # degrees: no elevation is above


@dataclass(frozen=True)
class Difference:
    """One setting in both readings, and what it does."""

    setting: str
    paper: object
    released: object
    reason: str


def released(preset: Preset) -> Preset:
    """The preset with the behaviour of the released code wherever the paper's text says otherwise."""

    def as_released(refine: Refine) -> Refine:
        return replace(refine, guidance=replace(refine.guidance, overhead=NEVER, silent_camera=False))

    schedules = {name: released_texture() for name in preset.refine.schedules} | {"volume": released_volume()}
    geometry, texture = as_released(preset.mesh.geometry), as_released(preset.mesh.texture)
    geometry = replace(geometry, guidance=replace(geometry.guidance, kind="sds", scale=100.0))
    if preset.views.reference == "mvdream":
        preset = replace(preset, views=replace(preset.views, declared_elevation=0.0))
        if preset.name != "lab":  # whose Zero123++ is behind its Zero123, which looks from the same viewpoints
            preset = replace(preset, views=replace(preset.views, predictor="zero123plus", guidance=4.0))
    if preset.name == "paper":
        geometry, texture = replace(geometry, batch_size=8), replace(texture, batch_size=1)
    return replace(
        preset,
        views=replace(preset.views, sampling="released", drop_noisiest=True),
        field=replace(preset.field, cos_anneal_ratio=0.0, color_from_position=False),
        refine=replace(as_released(preset.refine), schedules=schedules),
        mesh=replace(preset.mesh, inherit_texture=False, geometry=geometry, texture=texture),
    )


def differences(preset: Preset) -> list[Difference]:
    """Every setting that `released` changes in a preset, in the order of the stages."""
    before, after = flat_settings(preset), flat_settings(released(preset))
    return [
        Difference(setting, before[setting], after[setting], REASONS[setting])
        for setting in before
        if before[setting] != after[setting]
    ]
