"""The reference view: the one image that multi-view diffusion starts from."""

from pathlib import Path

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from geodream_lib.errors import InputError
from geodream_lib.views.background import center_object, remove_background
from geodream_lib.views.images import read_image

FILL = 0.75  # share of the frame that the object fills in Zero123's inputs
LARGEST = 1024  # pixels a side that are enough to find the object's edge


def prepare_reference(
    image: Float[Tensor, "h w c"], size: int, fill: float = FILL
) -> tuple[Float[Tensor, "{size} {size} 3"], Float[Tensor, "{size} {size}"]]:
    """Cut out, centre and resize: the reference view on white and its alpha, `size` pixels a side, 0..1.

    Args:
        image: 3 or 4 channels, 0..1; a picture by text-to-image or a photograph.
        fill: share of the frame that the object's longer side takes.

    Raises:
        InputError: the object cannot be told from the background (see `remove_background`).
    """
    longest = max(image.shape[:2])
    if longest > LARGEST:
        shape = [max(1, round(side * LARGEST / longest)) for side in image.shape[:2]]
        image = functional.interpolate(image.permute(2, 0, 1)[None], size=shape, mode="bilinear", antialias=True)[0]
        image = image.permute(1, 2, 0)
    return center_object(image[..., :3], remove_background(image), size, fill)


def load_reference(
    path: Path | str, size: int, fill: float = FILL
) -> tuple[Float[Tensor, "{size} {size} 3"], Float[Tensor, "{size} {size}"]]:
    """Read an image file and prepare it as the reference view (see `prepare_reference`).

    Raises:
        InputError: the file cannot be read, or holds no object on a plain background; the message names the file.
    """
    image = read_image(path)
    try:
        return prepare_reference(image, size, fill)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
