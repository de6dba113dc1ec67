"""Every number of a run in one place: `lab`, `colab` and `paper`. Nothing else in the library holds a setting."""

from geodream_lib.presets.fidelity import Difference, differences, released
from geodream_lib.presets.load import FAST_VARIABLE, FIDELITIES, PRESETS, load_preset
from geodream_lib.presets.settings import Cameras, Field, Guidance, Mesh, Preset, Refine, Views, Volume, flat_settings

__all__ = [
    "FAST_VARIABLE",
    "FIDELITIES",
    "PRESETS",
    "Cameras",
    "Difference",
    "Field",
    "Guidance",
    "Mesh",
    "Preset",
    "Refine",
    "Views",
    "Volume",
    "differences",
    "flat_settings",
    "load_preset",
    "released",
]
