"""Stage 2: the cost volume, the native 3D prior (section 2.1 of the paper)."""

from geodream_lib.volume.ball import ball_volume
from geodream_lib.volume.cost_volume import CostVolume, build_cost_volume, predict_volume, resize_volume
from geodream_lib.volume.decoder import GeometryDecoder, query_sdf, query_sdf_and_gradient
from geodream_lib.volume.frame import OBJECT_RADIUS, crop_to_sphere, move_to_cube, sphere_fill, spread_views
from geodream_lib.volume.mesh import volume_mesh
from geodream_lib.volume.networks import CostVolumeNetworks, load_cost_volume_networks, save_cost_volume_networks
from geodream_lib.volume.normalize import normalize_cameras
from geodream_lib.volume.visual_hull import find_object

__all__ = [
    "OBJECT_RADIUS",
    "CostVolume",
    "CostVolumeNetworks",
    "GeometryDecoder",
    "ball_volume",
    "build_cost_volume",
    "crop_to_sphere",
    "find_object",
    "load_cost_volume_networks",
    "move_to_cube",
    "normalize_cameras",
    "predict_volume",
    "query_sdf",
    "query_sdf_and_gradient",
    "resize_volume",
    "save_cost_volume_networks",
    "sphere_fill",
    "spread_views",
    "volume_mesh",
]
