"""Networks that show several views at once, from text-to-image to their folders and into a run."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from geodream_lib.cameras import azimuth_elevation
from geodream_lib.data import data_folder
from geodream_lib.lab import imagined, multiview_data, train_mvdream, train_zero123plus
from geodream_lib.lab.bench import Bench
from geodream_lib.lab.imagined import redraw_once
from geodream_lib.lab.multiview_data import render_orbits, render_tiles
from geodream_lib.lab.networks import (
    IMAGE_SIZE,
    SHARED,
    publish,
)
from geodream_lib.lab.train_mvdream import make_mvdream, start_mvdream
from geodream_lib.lab.train_zero123plus import (
    make_zero123plus,
    start_zero123plus,
)
from geodream_lib.lab.training import Budget
from geodream_lib.pipeline import predict_views
from geodream_lib.plan.views import view_steps
from geodream_lib.run import create_run
from geodream_lib.views import MVDream, Zero123Plus

CPU = torch.device("cpu")


def state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.half() for name, tensor in network.state_dict().items()}


def test_networks_are_published_beside_text_to_image_and_their_card_stays(diffusion, lab):
    for name, start in (("mvdream", start_mvdream), ("zero123plus", start_zero123plus)):
        folder = lab / name
        folder.mkdir()
        (folder / "README.md").write_text("card")
        (folder / "unet").mkdir()
        (folder / "unet" / "weights.bin").write_text("of an earlier one")
        model = start(diffusion)
        publish(model, folder)
        loaded, wanted = type(model).load(folder), state(model)
        assert all(torch.equal(tensor, wanted[key]) for key, tensor in state(loaded).items())
        assert not (folder / "unet" / "weights.bin").exists()
        assert (folder / "README.md").read_text() == "card"
        assert not any((folder / part).exists() for part in SHARED)
    assert sorted(path.name for path in lab.iterdir()) == ["mvdream", "text_to_image", "zero123plus"]


@pytest.mark.parametrize("recipe", [make_mvdream, make_zero123plus])
def test_recipes_go_from_text_to_image_to_a_folder_and_on_from_there(lab, tmp_path, monkeypatch, recipe, random_images):
    photographs = {"images": random_images(130, IMAGE_SIZE, IMAGE_SIZE).numpy(), "captions": np.array(["a log"] * 130)}
    monkeypatch.setattr(multiview_data, "OBJECTS_PER_SHARD", 34)
    monkeypatch.setattr(train_zero123plus, "REDRAWN", 2)
    for module, render in ((train_mvdream, render_orbits), (train_zero123plus, render_tiles)):
        shard = render(0, "train") if module.__name__.endswith(recipe.__name__.removeprefix("make_")) else {}
        monkeypatch.setattr(module, "multiview_shards", lambda *_, shard=shard: shard)
    monkeypatch.setattr(train_mvdream, "make_shards", lambda render, folder, count: [])
    monkeypatch.setattr(train_mvdream, "load_shards", lambda paths, keys: photographs)
    bench = Bench(tmp_path / "work", lab, CPU, Budget(5e-4, 2, 1e-3, warmup_steps=1), False, 4, 1)
    name = recipe.__name__.removeprefix("make_")
    model = {"mvdream": MVDream, "zero123plus": Zero123Plus}[name]
    recipe(bench)
    assert (lab / name / "training.jsonl").read_text()
    before = state(model.load(lab / name))
    recipe(replace(bench, work=tmp_path / "more", warm_start=True, budget=Budget(1e-6, 2, 1e-9)))
    after = state(model.load(lab / name))
    assert all(torch.equal(tensor, before[key]) for key, tensor in after.items())


def test_references_are_redrawn_once_for_a_network_and_its_pictures(lab, tmp_path, monkeypatch, random_images):
    images, text_to_image = random_images(1, 1, IMAGE_SIZE, IMAGE_SIZE), lab / "text_to_image"
    first = redraw_once(text_to_image, images, ["a log"], tmp_path / "work", CPU)
    other = redraw_once(text_to_image, images, ["a red mushroom"], tmp_path / "work", CPU)
    assert first.shape == images.shape and not torch.equal(first, images) and not torch.equal(first, other)
    monkeypatch.setattr(imagined, "load_diffusion", lambda *_: pytest.fail("it was redrawn before"))
    assert torch.equal(redraw_once(text_to_image, images, ["a log"], tmp_path / "work", CPU), first)


def test_the_lab_preset_reaches_source_views_with_them(diffusion, lab, tmp_path, monkeypatch):
    """Four sides by MVDream, looked around by Zero123++: words in, posed views out."""
    publish(start_mvdream(diffusion), lab / "mvdream")
    publish(start_zero123plus(diffusion), lab / "zero123plus")
    shutil.copytree(data_folder() / "prompts", lab.parent / "prompts")
    monkeypatch.setenv("GEODREAM_DATA", str(lab.parent))
    settings = {"views.reference": "mvdream", "views.predictor": "zero123plus"}
    settings |= {"views.mvdream_steps": 2, "views.steps": 2}
    run = create_run("a red mushroom on a log", tmp_path / "run", overrides=settings)
    views = predict_views(run)
    # MVDream's four, and of Zero123++'s six the two that are within 45 degrees of front, left and right.
    assert len(views.images) == 4 + 3 * 2 and views.images.shape[1:] == (IMAGE_SIZE, IMAGE_SIZE, 3)
    azimuth, _ = azimuth_elevation(views.cameras.c2w[:, :3, 3])
    expected = [0, 90, 180, 270, 30, 330, 120, 60, 300, 240]
    torch.testing.assert_close(azimuth % 360, torch.tensor(expected).float(), atol=1e-2, rtol=0)
    assert [step.what for step in view_steps(run.preset, image=False)] == ["MVDream", "Zero123++"], "and can be planned"
