"""The artifact of stage 1: images with known cameras, stored in the layout the field uses for posed images."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from geodream_lib.cameras import Cameras, check_rigid
from geodream_lib.errors import InputError
from geodream_lib.storage import read_json, write_json
from geodream_lib.views.images import off_white, on_white, read_image, write_image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")


@dataclass(frozen=True)
class PosedViews:
    """`n` images of one object with their cameras (the posed images I_p of section 3.1).

    images: composited on white, 0..1. alpha: 0..1, or None where it is not known. cameras: in the library's world
    (z up, front toward +x). names: one per view, used as file names.
    """

    images: Float[Tensor, "n h w 3"]
    alpha: Float[Tensor, "n h w"] | None
    cameras: Cameras
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        n, height, width = self.images.shape[:3]
        if not (n == len(self.cameras) == len(self.names)):
            raise InputError(
                f"{n} images, {len(self.cameras)} cameras and {len(self.names)} names; expected one of each per view"
            )
        if (height, width) != (self.cameras.height, self.cameras.width):
            raise InputError(
                f"images are {width}x{height} but the cameras are {self.cameras.width}x{self.cameras.height}; "
                "use cameras.resized() or resize the images"
            )

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, indices: list[int]) -> "PosedViews":
        """The views at `indices`, in that order."""
        return PosedViews(
            self.images[indices],
            None if self.alpha is None else self.alpha[indices],
            self.cameras[indices],
            tuple(self.names[index] for index in indices),
        )

    def to(self, device: torch.device | str) -> "PosedViews":
        alpha = None if self.alpha is None else self.alpha.to(device)
        return PosedViews(self.images.to(device), alpha, self.cameras.to(device), self.names)

    def save(self, folder: Path | str) -> None:
        """Write `<name>.png` per view (RGBA where alpha is known) and `transforms.json` in the NeRF (Blender) layout.

        `transforms.json` is removed first and written last: a folder that has it is whole.

        Raises:
            InputError: a name is not a plain file name or occurs twice, or the disk is full.
        """
        folder = Path(folder)
        for name in self.names:
            if not name or Path(name).name != name or name.startswith("."):
                raise InputError(f"view name {name!r} cannot be a file name; expected letters, digits, '_' and '-'")
        if len(set(self.names)) != len(self.names):
            raise InputError("two views have the same name; expected unique names, they become file names")
        (folder / "transforms.json").unlink(missing_ok=True)
        for index, name in enumerate(self.names):
            image = self.images[index]
            if self.alpha is not None:
                # Divide by the alpha that is stored (8 bits), so that compositing on white gives the image back.
                alpha = (self.alpha[index].clamp(0, 1) * 255).round() / 255
                image = torch.cat([off_white(image, alpha), alpha[..., None]], dim=-1)
            write_image(folder / f"{name}.png", image)
        write_json(folder / "transforms.json", self._transforms())

    def _transforms(self) -> dict:
        intrinsics = [_intrinsics_entry(matrix) for matrix in self.cameras.intrinsics.tolist()]
        shared = all(entry == intrinsics[0] for entry in intrinsics)
        frames = [
            {"file_path": f"./{name}.png", "transform_matrix": matrix} | ({} if shared else entry)
            for name, matrix, entry in zip(self.names, self.cameras.c2w.tolist(), intrinsics, strict=True)
        ]
        size = {"w": self.cameras.width, "h": self.cameras.height}
        if shared:
            # Readers of the first NeRF data sets know this key only.
            size["camera_angle_x"] = 2 * math.atan(0.5 * self.cameras.width / intrinsics[0]["fl_x"])
            size |= intrinsics[0]
        return size | {"frames": frames}

    @staticmethod
    def load(folder: Path | str) -> "PosedViews":
        """Read any folder in the NeRF layout, ours or a public one (nerf-synthetic, instant-ngp, nerfstudio).

        Read are `transforms.json`, else `transforms_train.json`; `file_path` with or without an extension; RGBA images
        (composited on white) or RGB images; `camera_angle_x`, or `fl_x`, `fl_y`, `cx`, `cy`, for all frames or per
        frame. The cameras are taken as they are: the object has to be in [-1, 1]^3, z up, its front toward +x.

        Raises:
            InputError: the folder, the json, an image or a matrix is missing or malformed, a matrix is not rigid or
                not finite, images differ in size, the lens is distorted, or there are fewer than two views.
        """
        folder = Path(folder)
        path = _transforms_path(folder)
        transforms = read_json(path)
        frames = transforms.get("frames")
        if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
            raise InputError(f"{path} has no list of frames; expected the NeRF layout with a 'frames' list of objects")
        if len(frames) < 2:
            raise InputError(f"{path} has {len(frames)} frames; expected at least 2 views of the object")
        files = [_image_file(folder, frame, path) for frame in frames]
        names = tuple(_view_name(frame["file_path"]) for frame in frames)
        c2w = torch.tensor([_matrix(frame, path) for frame in frames], dtype=torch.float32)
        check_rigid(c2w, list(names))
        images = [read_image(file) for file in files]
        height, width = images[0].shape[:2]
        for file, image in zip(files, images, strict=True):
            if image.shape[:2] != (height, width):
                raise InputError(
                    f"{file} is {image.shape[1]}x{image.shape[0]} but {files[0]} is {width}x{height}; "
                    "expected images of one size, resize them"
                )
        intrinsics = torch.tensor([_intrinsics(transforms | frame, width, height, path) for frame in frames])
        alpha = None
        if all(image.shape[2] == 4 for image in images):
            alpha = torch.stack([image[..., 3] for image in images])
        color = [on_white(image[..., :3], image[..., 3]) if image.shape[2] == 4 else image for image in images]
        return PosedViews(torch.stack(color), alpha, Cameras(c2w, intrinsics, height, width), names)


def _transforms_path(folder: Path) -> Path:
    if not folder.is_dir():
        raise InputError(f"no folder {folder}; expected one with transforms.json and the images it names")
    for name in ("transforms.json", "transforms_train.json"):
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"{folder} has neither transforms.json nor transforms_train.json; expected posed views in the NeRF layout "
        "(a save that was interrupted leaves no transforms.json: make the views again)"
    )


def _image_file(folder: Path, frame: dict, path: Path) -> Path:
    name = frame.get("file_path")
    if not isinstance(name, str) or not name:
        raise InputError(f"a frame of {path} has no file_path; expected the path of its image")
    for suffix in ("", *SUFFIXES):
        if (folder / (name + suffix)).is_file():
            return folder / (name + suffix)
    raise InputError(f"the image {name} named in {path} is missing; expected it below {folder} (.png may be left out)")


def _view_name(file_path: str) -> str:
    """`./train/r_0.png` becomes `train_r_0`: unique in its folder and fit for a file name."""
    path = Path(file_path)
    stem = path.stem if path.suffix.lower() in SUFFIXES else path.name
    return "_".join([part for part in path.parts[:-1] if part not in (".", "..", path.anchor)] + [stem])


def _matrix(frame: dict, path: Path) -> list[list[float]]:
    matrix = frame.get("transform_matrix")
    try:
        rows = [[float(value) for value in row] for row in matrix]
    except (TypeError, ValueError):
        rows = []
    if len(rows) != 4 or any(len(row) != 4 for row in rows):
        raise InputError(
            f"frame {frame['file_path']} of {path} has no 4x4 transform_matrix; expected the camera-to-world matrix "
            "(OpenGL axes) as four rows of four numbers"
        )
    return rows


def _intrinsics_entry(matrix: list[list[float]]) -> dict[str, float]:
    return {"fl_x": matrix[0][0], "fl_y": matrix[1][1], "cx": matrix[0][2], "cy": matrix[1][2]}


def _intrinsics(entry: dict, width: int, height: int, path: Path) -> list[list[float]]:
    """The pinhole matrix of one frame from its own keys or those that all frames share."""
    try:
        given = {key: float(entry[key]) for key in (*DISTORTION, "camera_angle_x", "w", "h") if key in entry}
        if "fl_x" in entry:
            focal_x = float(entry["fl_x"])
        else:
            focal_x = 0.5 * width / math.tan(0.5 * given["camera_angle_x"])
        focal_y = float(entry.get("fl_y", focal_x))
        centre = [float(entry.get("cx", width / 2)), float(entry.get("cy", height / 2))]
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(
            f"{path} has no usable focal length ({error}); expected camera_angle_x or fl_x in it"
        ) from error
    if not (all(math.isfinite(value) for value in (focal_x, focal_y, *centre)) and focal_x > 0 and focal_y > 0):
        raise InputError(f"{path} has a focal length or centre that is not a positive number; mend its intrinsics")
    if (given.get("w", width), given.get("h", height)) != (width, height):
        raise InputError(
            f"{path} says {given['w']:g}x{given['h']:g} but the images are {width}x{height}; "
            "scale fl_x, fl_y, cx, cy, w and h to the images"
        )
    if any(given.get(key, 0.0) != 0 for key in DISTORTION):
        raise InputError(f"{path} describes a distorted lens; expected a pinhole camera, undistort the images first")
    return [[focal_x, 0.0, centre[0]], [0.0, focal_y, centre[1]], [0.0, 0.0, 1.0]]
