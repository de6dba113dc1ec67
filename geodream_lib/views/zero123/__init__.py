"""Zero123: one picture and a relative pose in, the picture from there out."""

from geodream_lib.views.zero123.model import CameraProjection, Zero123, pose_token

__all__ = ["CameraProjection", "Zero123", "pose_token"]
