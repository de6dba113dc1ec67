import json

import pytest
import torch

from geodream_lib.cameras import Cameras, orbit
from geodream_lib.errors import InputError
from geodream_lib.views.images import off_white, on_white, read_image, write_image
from geodream_lib.views.posed_views import PosedViews


def make_views(alpha: bool = True, size: int = 12) -> PosedViews:
    generator = torch.Generator().manual_seed(0)
    color = torch.rand(3, size, size, 3, generator=generator)
    opacity = torch.rand(3, size, size, generator=generator)
    opacity[:, :3], opacity[:, 3:6] = 0, 1
    cameras = orbit([0.0, 100.0, 215.0], [0.0, 10.0, -20.0], 2.0, 40.0, size)
    images = on_white(color, opacity) if alpha else color
    return PosedViews(images, opacity if alpha else None, cameras, ("front", "view_1", "view_2"))


def edit(folder, change) -> None:
    path = folder / "transforms.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("alpha", [True, False])
def test_save_and_load_keep_everything_to_eight_bits(tmp_path, alpha):
    views = make_views(alpha)
    views.save(tmp_path)
    again = PosedViews.load(tmp_path)
    assert again.names == views.names
    assert torch.equal(again.cameras.c2w, views.cameras.c2w)
    assert torch.equal(again.cameras.intrinsics, views.cameras.intrinsics)
    assert (again.images - views.images).abs().max() < 1.5 / 255
    assert (again.alpha is None) == (not alpha)
    if alpha:
        assert (again.alpha - views.alpha).abs().max() < 0.51 / 255


def test_a_second_round_trip_changes_nothing(tmp_path):
    make_views().save(tmp_path / "a")
    once = PosedViews.load(tmp_path / "a")
    once.save(tmp_path / "b")
    twice = PosedViews.load(tmp_path / "b")
    assert (once.images - twice.images).abs().max() < 1e-6
    assert torch.equal(once.alpha, twice.alpha)


def test_off_white_undoes_compositing_on_white():
    color, alpha = torch.rand(2, 4, 4, 3), torch.rand(2, 4, 4).clamp(min=0.1)
    torch.testing.assert_close(off_white(on_white(color, alpha), alpha), color, atol=1e-5, rtol=0)


def test_cameras_may_differ_in_focal_length(tmp_path):
    views = make_views()
    intrinsics = views.cameras.intrinsics * torch.tensor([1.0, 1.1, 1.3])[:, None, None]
    intrinsics[:, 2, 2] = 1
    cameras = Cameras(views.cameras.c2w, intrinsics, 12, 12)
    PosedViews(views.images, None, cameras, views.names).save(tmp_path)
    assert torch.equal(PosedViews.load(tmp_path).cameras.intrinsics, intrinsics)


def test_reads_the_nerf_synthetic_layout(tmp_path):
    """transforms_train.json, file_path without extension in a sub-folder, camera_angle_x, RGBA."""
    views = make_views(size=16)
    frames = []
    for index in range(3):
        rgba = torch.cat([torch.zeros(16, 16, 3), torch.full((16, 16, 1), index / 2)], dim=-1)
        write_image(tmp_path / "train" / f"r_{index}.png", rgba)
        frames.append(
            {"file_path": f"./train/r_{index}", "rotation": 0.1, "transform_matrix": views.cameras.c2w[index].tolist()}
        )
    (tmp_path / "transforms_train.json").write_text(json.dumps({"camera_angle_x": 0.6911112, "frames": frames}))
    loaded = PosedViews.load(tmp_path)
    assert loaded.names == ("train_r_0", "train_r_1", "train_r_2")
    assert loaded.cameras.intrinsics[0, 0, 0].item() == pytest.approx(1111.1111 * 16 / 800, rel=1e-5)
    assert loaded.cameras.intrinsics[0, :2, 2].tolist() == [8, 8]
    # Black at opacity 0, 1/2, 1 on white.
    expected = torch.tensor([1.0, 1 - 128 / 255, 0.0])
    torch.testing.assert_close(loaded.images.mean((1, 2, 3)), expected, atol=1e-6, rtol=0)


def test_an_interrupted_save_leaves_no_whole_folder(tmp_path, monkeypatch):
    views = make_views()
    views.save(tmp_path)
    calls = []

    def full_disk(path, image):
        calls.append(path)
        if len(calls) == 2:
            raise InputError("disk full")
        write_image(path, image)

    monkeypatch.setattr("geodream_lib.views.posed_views.write_image", full_disk)
    with pytest.raises(InputError, match="disk full"):
        views.save(tmp_path)
    with pytest.raises(InputError, match="interrupted"):
        PosedViews.load(tmp_path)


def drop_matrix(content):
    del content["frames"][1]["transform_matrix"]


def not_a_number(content):
    content["frames"][1]["transform_matrix"][0][3] = float("nan")


def scaled(content):
    content["frames"][1]["transform_matrix"][0][0] *= 1.5


def three_rows(content):
    del content["frames"][1]["transform_matrix"][3]


def words(content):
    content["frames"][1]["transform_matrix"] = "identity"


def one_frame(content):
    del content["frames"][1:]


def frames_are_text(content):
    content["frames"] = "many"


def no_focal(content):
    for key in ("fl_x", "fl_y", "camera_angle_x"):
        del content[key]


def zero_focal(content):
    content["fl_x"] = 0


def other_size(content):
    content["w"] = 800


def distorted(content):
    content["k1"] = 0.1


def no_path(content):
    del content["frames"][1]["file_path"]


def other_image(content):
    content["frames"][1]["file_path"] = "./nowhere"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_matrix, "view_1.* has no 4x4 transform_matrix"),
        (not_a_number, "view_1 has a value that is not finite"),
        (scaled, "view_1 is not rigid"),
        (three_rows, "no 4x4 transform_matrix"),
        (words, "no 4x4 transform_matrix"),
        (one_frame, "at least 2 views"),
        (frames_are_text, "no list of frames"),
        (no_focal, "no usable focal length"),
        (zero_focal, "not a positive number"),
        (other_size, "800x12 but the images are 12x12"),
        (distorted, "distorted lens"),
        (no_path, "no file_path"),
        (other_image, "nowhere .*is missing"),
    ],
)
def test_bad_transforms_are_named(tmp_path, change, message):
    make_views().save(tmp_path)
    edit(tmp_path, change)
    with pytest.raises(InputError, match=message) as caught:
        PosedViews.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_bad_folders_and_images_are_named(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        PosedViews.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="neither transforms.json"):
        PosedViews.load(tmp_path)
    make_views().save(tmp_path)
    write_image(tmp_path / "view_1.png", torch.rand(12, 13, 3))
    with pytest.raises(InputError, match=r"view_1.png is 13x12 but .*front.png is 12x12"):
        PosedViews.load(tmp_path)
    (tmp_path / "view_1.png").write_bytes((tmp_path / "front.png").read_bytes()[:80])
    with pytest.raises(InputError, match="cannot read the image .*view_1.png"):
        PosedViews.load(tmp_path)
    (tmp_path / "view_1.png").unlink()
    with pytest.raises(InputError, match=r"view_1.png named in .* is missing"):
        PosedViews.load(tmp_path)
    (tmp_path / "transforms.json").write_text("{'frames': ")
    with pytest.raises(InputError, match="cannot read .*transforms.json"):
        PosedViews.load(tmp_path)


def test_parts_that_do_not_belong_together_are_refused(tmp_path):
    views = make_views()
    with pytest.raises(InputError, match="3 images, 3 cameras and 2 names"):
        PosedViews(views.images, views.alpha, views.cameras, views.names[:2])
    with pytest.raises(InputError, match="12x12 but the cameras are 24x24"):
        PosedViews(views.images, views.alpha, views.cameras.resized(24, 24), views.names)
    for names in (("a", "b", "../c"), ("a", "b", "b"), ("a", "b", "")):
        with pytest.raises(InputError, match="name"):
            PosedViews(views.images, views.alpha, views.cameras, names).save(tmp_path)


def test_a_subset_keeps_images_and_cameras_together():
    views = make_views()
    part = views[[2, 0]]
    assert part.names == ("view_2", "front")
    assert torch.equal(part.images[0], views.images[2])
    assert torch.equal(part.cameras.c2w[0], views.cameras.c2w[2])


def test_sixteen_bit_images_are_refused(tmp_path):
    from PIL import Image

    Image.new("I;16", (20, 20)).save(tmp_path / "deep.png")
    with pytest.raises(InputError, match="8-bit"):
        read_image(tmp_path / "deep.png")
    Image.new("LA", (20, 20), (200, 100)).save(tmp_path / "grey.png")
    torch.testing.assert_close(read_image(tmp_path / "grey.png")[0, 0] * 255, torch.tensor([200.0, 200, 200, 100]))
