"""Stage 1: from one reference view to posed views of all sides (section 3.1, appendix F)."""

from geodream_lib.views.background import center_object, remove_background
from geodream_lib.views.coupled import CoupledPrior, couple_prior
from geodream_lib.views.images import read_image, write_image
from geodream_lib.views.mvdream.model import MVDream
from geodream_lib.views.posed_views import PosedViews
from geodream_lib.views.reference import load_reference, prepare_reference
from geodream_lib.views.sampling import (
    RelativePose,
    pose_cameras,
    released_viewpoints,
    sample_mvdream_viewpoints,
    sample_viewpoints,
)
from geodream_lib.views.zero123.model import CameraProjection, Zero123, pose_token
from geodream_lib.views.zero123plus.layout import zero123plus_viewpoints
from geodream_lib.views.zero123plus.model import Zero123Plus

__all__ = [
    "CameraProjection",
    "CoupledPrior",
    "MVDream",
    "PosedViews",
    "RelativePose",
    "Zero123",
    "Zero123Plus",
    "center_object",
    "couple_prior",
    "load_reference",
    "pose_cameras",
    "pose_token",
    "prepare_reference",
    "read_image",
    "released_viewpoints",
    "remove_background",
    "sample_mvdream_viewpoints",
    "sample_viewpoints",
    "write_image",
    "zero123plus_viewpoints",
]
