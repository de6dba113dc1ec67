"""Parts that several networks have in common lie in one folder, which the others name; no name leads elsewhere."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.embeddings import TimestepEmbedding

from geodream_lib.components import check_shared, part_home
from geodream_lib.errors import InputError
from geodream_lib.guidance import load_diffusion
from geodream_lib.storage import read_json
from geodream_lib.views import MVDream

pytestmark = pytest.mark.needs_golden("vsd")

COMMON = ("vae", "text_encoder", "tokenizer")


@pytest.fixture
def sd(golden: Path, tmp_path: Path) -> Path:
    """A Stable Diffusion in a folder among others."""
    return shutil.copytree(golden / "vsd" / "sd_base", tmp_path / "networks" / "sd")


@pytest.fixture
def sharing(sd: Path) -> Path:
    """The same network, whose autoencoder and text encoder are the other's."""
    folder = shutil.copytree(sd, sd.with_name("sharing"))
    for part in COMMON:
        shutil.rmtree(folder / part)
    name_shared(folder, dict.fromkeys(COMMON, "../sd"))
    return folder


def name_shared(folder: Path, shared: object) -> None:
    index = read_json(folder / "model_index.json") if (folder / "model_index.json").is_file() else {}
    (folder / "model_index.json").write_text(json.dumps(index | {"_shared": shared}))


def state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return network.state_dict()


def test_a_network_is_whole_with_the_parts_of_its_neighbour(sd, sharing) -> None:
    whole, shared = load_diffusion(sd), load_diffusion(sharing)
    assert all(torch.equal(tensor, state(whole)[name]) for name, tensor in state(shared).items())
    assert shared.tokenizer("a fox").input_ids == whole.tokenizer("a fox").input_ids


def test_only_the_parts_that_are_named_lie_elsewhere(sd, sharing) -> None:
    assert part_home(sharing, "unet") == sharing
    assert {Path(part_home(sharing, part)) for part in COMMON} == {sd.resolve()}
    assert part_home("owner/name", "vae") == "owner/name"


def test_a_network_moves_with_its_neighbour(sharing, tmp_path) -> None:
    shutil.move(sharing.parent, tmp_path / "moved")
    load_diffusion(tmp_path / "moved" / "sharing")


@pytest.mark.parametrize(
    "target", ["{sd}", "..", "../../outside", "../link", ".", "../sd/../../outside", "a\0b", 7, None]
)
def test_no_name_leads_out_of_the_networks_folder(sd, sharing, tmp_path, target) -> None:
    shutil.copytree(sd, tmp_path / "outside")
    (sharing.parent / "link").symlink_to(tmp_path / "outside")
    (sharing.parent / "vae").symlink_to(sd / "vae")
    name_shared(sharing, {"vae": str(sd) if target == "{sd}" else target})
    with pytest.raises(InputError, match=r"shares vae with .*; (expected|get|fetch)"):
        part_home(sharing, "vae")


def test_a_missing_neighbour_is_named_with_the_network(sd, sharing) -> None:
    shutil.rmtree(sd / "vae")
    with pytest.raises(InputError) as error:
        load_diffusion(sharing)
    assert str(sharing) in str(error.value) and str(sd) in str(error.value) and "\n" not in str(error.value)
    name_shared(sharing, ["vae"])
    with pytest.raises(InputError, match="_shared is a list"):
        load_diffusion(sharing)


def test_saving_leaves_the_shared_parts_out(sd, tmp_path) -> None:
    diffusion = load_diffusion(sd)
    width = diffusion.denoiser.unet.time_embedding.linear_2.out_features
    model = MVDream(diffusion, TimestepEmbedding(16, width))
    folder = sd.with_name("mvdream")
    with pytest.raises(InputError, match="camera_embedding of .* cannot be shared"):
        model.save(folder, {"camera_embedding": "../sd"})
    with pytest.raises(InputError, match="shares vae with .*elsewhere, which has no vae/"):
        model.save(folder, {"vae": "../elsewhere"})
    assert not folder.exists()
    model.save(folder, dict.fromkeys(COMMON, "../sd"))
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["camera_embedding", "scheduler", "unet"]
    loaded = MVDream.load(folder)
    assert all(torch.equal(tensor, state(model)[name]) for name, tensor in state(loaded).items())
    assert str(sd) not in (folder / "unet" / "config.json").read_text(), "nor does it say where its parts came from"
    check_shared(folder, {"vae": "../sd"}, COMMON)


def test_pipelines_of_the_library_pass_over_the_key(sd, sharing) -> None:
    whole = StableDiffusionPipeline.from_pretrained(sd, local_files_only=True)
    parts = {part: getattr(whole, part) for part in COMMON}
    again = StableDiffusionPipeline.from_pretrained(sharing, local_files_only=True, **parts)
    assert all(torch.equal(tensor, state(whole.unet)[name]) for name, tensor in state(again.unet).items())
