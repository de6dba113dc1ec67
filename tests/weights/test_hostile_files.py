"""Files that are wrong or meant to harm: each is refused in one line, nothing of it runs, nothing is left behind."""

import json
import pickle
import shutil
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from geodream_lib.checkpoints import INERT, read_weights
from geodream_lib.errors import InputError
from geodream_lib.storage import load_tensors, read_json
from geodream_lib.views.zero123.model import Zero123
from geodream_lib.volume import CostVolumeNetworks, load_cost_volume_networks, save_cost_volume_networks
from geodream_lib.weights import NETWORKS, network_path

pytestmark = pytest.mark.needs_golden("vsd", "zero123", "one2345")


@pytest.fixture
def refused(command, weights, tmp_path):
    """Run `geodream weights ...` that must fail: its one line, after a check that no file was made or changed."""

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def check(*arguments: object) -> str:
        before, folders = files(), {path for path in tmp_path.rglob("*") if path.is_dir()}
        code, _, err = command(*arguments)
        lines = err.splitlines()
        assert code == 2 and len(lines) == 1 and lines[0].startswith("geodream: error: "), err
        assert files() == before
        assert {path for path in tmp_path.rglob("*") if path.is_dir()} - folders <= {weights}
        return lines[0]

    return check


@pytest.fixture
def zero123(golden, tmp_path) -> dict[str, Tensor]:
    """The tensors of a small Zero123; `convert` is what makes a network of a file of them."""
    width = read_json(golden / "zero123" / "config.json")["unet"]["context_dim"]
    tower = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
        projection_dim=width,
    )
    CLIPVisionModelWithProjection(tower).save_pretrained(tmp_path / "clip")
    return load_tensors(golden / "zero123" / "model.safetensors")[0]


@pytest.fixture
def convert(golden, tmp_path):
    """The arguments that convert a small Zero123."""

    def arguments(file: Path) -> tuple:
        config = golden / "zero123" / "config.json"
        return ("convert", "zero123", file, "--config", config, "--image-encoder", tmp_path / "clip")

    return arguments


class Runs:
    """A pickle of it makes a file where it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.marker,))


def truncate(path: Path, share: float = 0.5) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def test_the_unharmed_file_is_converted(zero123, convert, command, weights, tmp_path):
    torch.save({"state_dict": zero123, "epoch": 1}, tmp_path / "model.ckpt")
    code, out, err = command(*convert(tmp_path / "model.ckpt"))
    assert code == 0 and "whole and readable" in out, err
    Zero123.load(network_path("zero123"))


# --- pickles


@pytest.mark.parametrize("form", ["zip", "legacy", "plain pickle"])
def test_a_pickle_that_runs_code(refused, convert, zero123, tmp_path, form):
    marker, path = tmp_path / "ran", tmp_path / "model.ckpt"
    content = {"state_dict": zero123, "callbacks": Runs(marker)}
    if form == "plain pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    line = refused(*convert(path))
    assert "which is code and no number; nothing of it was run" in line or form == "plain pickle", line
    assert not marker.exists()
    with pytest.raises(InputError):
        load_cost_volume_networks(path)
    assert not marker.exists()


def forged(path: Path, instructions: bytes) -> Path:
    """A checkpoint whose pickle is written by hand: protocol 2, the instructions, stop."""
    torch.save({}, path)
    with zipfile.ZipFile(path) as clean:
        entries = {entry.filename: clean.read(entry) for entry in clean.infolist()}
    with zipfile.ZipFile(path, "w") as made:
        for name, content in entries.items():
            made.writestr(name, b"\x80\x02" + instructions + b"." if name.endswith("data.pkl") else content)
    return path


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "builtins.getattr", "torch.hub.load", "runpy.run_path"])
def test_the_function_a_pickle_asks_for_is_named(refused, convert, tmp_path, name):
    """`name("hello")`."""
    module, function = name.rsplit(".", 1)
    call = f"c{module}\n{function}\n".encode() + b"U\x05hello\x85R"
    line = refused(*convert(forged(tmp_path / "model.ckpt", call)))
    assert f"asks to load {name.removeprefix('builtins.')}, which is code" in line


@pytest.mark.parametrize("name", INERT)
def test_what_stands_for_a_trainers_object_calls_nothing(convert, refused, tmp_path, name):
    """`name(os.system)` with a name that is let pass: the function is refused. `name("x")` with a state: nothing."""
    module, kind = name.rsplit(".", 1)
    inert = f"c{module}\n{kind}\n".encode()
    line = refused(*convert(forged(tmp_path / "model.ckpt", inert + b"cos\nsystem\n\x85R")))
    assert "asks to load os.system" in line
    line = refused(*convert(forged(tmp_path / "model.ckpt", inert + b"U\x01x\x85R}U\x01aU\x01bsb")))
    assert "holds a _Inert; expected tensors by name" in line


# --- archives


def repacked(path: Path, change) -> Path:
    """The checkpoint written again entry by entry; `change(archive, entry, content)` may write something else."""
    with zipfile.ZipFile(path) as clean:
        entries = [(entry.filename, clean.read(entry)) for entry in clean.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries:
            change(archive, name, content)
    return path


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "archive/../../evil", "..\\evil", "C:\\evil"])
def test_an_archive_whose_entries_lead_out_of_it(refused, convert, zero123, tmp_path, name):
    torch.save(zero123, tmp_path / "model.ckpt")
    with zipfile.ZipFile(tmp_path / "model.ckpt", "a") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"evil")
    assert "has an entry that leads out of it" in refused(*convert(tmp_path / "model.ckpt"))


def test_an_archive_that_unpacks_to_more_than_it_is(refused, convert, tmp_path):
    torch.save({"w": torch.zeros(1_000_000)}, tmp_path / "model.ckpt")
    repacked(tmp_path / "model.ckpt", lambda a, name, content: a.writestr(name, content, zipfile.ZIP_DEFLATED))
    assert "has a compressed entry" in refused(*convert(tmp_path / "model.ckpt"))


def test_an_archive_with_two_entries_of_one_name(refused, convert, zero123, tmp_path):
    torch.save(zero123, tmp_path / "model.ckpt")
    with pytest.warns(UserWarning, match="Duplicate"):
        with zipfile.ZipFile(tmp_path / "model.ckpt", "a") as archive:
            archive.writestr(archive.namelist()[0], b"other")
    assert "two entries of one name" in refused(*convert(tmp_path / "model.ckpt"))


def test_a_tensor_that_claims_more_numbers_than_it_stores(refused, convert, tmp_path):
    """A single number, repeated by its strides, would fill the memory once it is copied."""
    torch.save({"w": torch.zeros(1).expand(1_000_000, 1_000_000)}, tmp_path / "model.ckpt")
    assert "claims the shape (1000000, 1000000) and stores fewer" in refused(*convert(tmp_path / "model.ckpt"))


# --- safetensors


def header(path: Path, change) -> None:
    """Rewrite the header of a safetensors file; the numbers behind it stay."""
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    entries = json.loads(content[8 : 8 + size])
    change(entries)
    new = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(new)) + new + content[8 + size :])


def longer(entries: dict) -> None:
    last = max((entry for name, entry in entries.items() if name != "__metadata__"), key=lambda e: e["data_offsets"][1])
    last["shape"] = [last["data_offsets"][1]] + last["shape"]
    last["data_offsets"][1] += 1 << 40


def overlapping(entries: dict) -> None:
    for name, entry in entries.items():
        if name != "__metadata__":
            entry["data_offsets"] = [0, entry["data_offsets"][1] - entry["data_offsets"][0]]


def larger_shape(entries: dict) -> None:
    first = next(entry for name, entry in entries.items() if name != "__metadata__")
    first["shape"] = [1 << 20, 1 << 20]


@pytest.mark.parametrize("lie", [longer, overlapping, larger_shape])
def test_a_header_that_lies_about_sizes(refused, convert, zero123, tmp_path, lie):
    save_file(zero123, tmp_path / "model.safetensors")
    header(tmp_path / "model.safetensors", lie)
    assert "cannot read weights from" in refused(*convert(tmp_path / "model.safetensors"))


@pytest.mark.parametrize("size", [0, 7, (1 << 63) - 1, 100_000_001])
def test_a_header_of_an_impossible_size(refused, convert, tmp_path, size):
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", size) + b"{}" * 100)
    assert "not a safetensors file" in refused(*convert(tmp_path / "model.safetensors"))


@pytest.mark.parametrize("name", ["model.safetensors", "model.ckpt"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file(refused, convert, zero123, tmp_path, name, share):
    (save_file if name.endswith("safetensors") else torch.save)(zero123, tmp_path / name)
    truncate(tmp_path / name, share)
    assert "truncated" in refused(*convert(tmp_path / name))


# --- weights that are none, or of another network


@pytest.mark.parametrize("name", ["model.safetensors", "model.ckpt"])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite(refused, convert, zero123, tmp_path, name, number):
    victim = sorted(zero123)[len(zero123) // 2]
    zero123[victim].view(-1)[-1] = number
    (save_file if name.endswith("safetensors") else torch.save)(zero123, tmp_path / name)
    assert f"{victim} has values that are not finite" in refused(*convert(tmp_path / name))


def test_keys_that_are_missing_unknown_or_of_another_shape(refused, convert, zero123, tmp_path):
    victim = next(name for name in zero123 if name.startswith("model.diffusion_model.") and name.endswith("weight"))
    kept = zero123.pop(victim)
    torch.save(zero123, tmp_path / "model.ckpt")
    assert "missing" in refused(*convert(tmp_path / "model.ckpt"))
    torch.save(zero123 | {victim: kept[..., :-1].contiguous()}, tmp_path / "model.ckpt")
    assert "expected" in refused(*convert(tmp_path / "model.ckpt"))
    torch.save(zero123 | {victim: kept, f"{victim}.more": kept}, tmp_path / "model.ckpt")
    assert "unknown" in refused(*convert(tmp_path / "model.ckpt"))


def test_a_cost_volume_checkpoint_with_wrong_shapes(refused, golden, tmp_path):
    source = golden / "one2345" / "ckpt_215000_fixture.pth"
    content = torch.load(source, weights_only=True)
    network = content["pyramid_feature_network"]
    name = next(name for name, tensor in network.items() if tensor.ndim == 4)
    network[name] = network[name][:, :-1]
    torch.save(content, tmp_path / "ckpt.pth")
    assert "does not fit CostVolumeNetworks" in refused("convert", "one2345", tmp_path / "ckpt.pth")
    del network[name]
    torch.save(content, tmp_path / "ckpt.pth")
    assert "missing" in refused("convert", "one2345", tmp_path / "ckpt.pth")


def test_a_failed_conversion_leaves_the_network_that_was_there(refused, command, convert, zero123, weights, tmp_path):
    torch.save(zero123, tmp_path / "model.ckpt")
    assert command(*convert(tmp_path / "model.ckpt"))[0] == 0
    truncate(tmp_path / "model.ckpt")
    refused(*convert(tmp_path / "model.ckpt"))
    Zero123.load(network_path("zero123"))
    assert [path.name for path in weights.iterdir()] == ["zero123"]


# --- folders


def test_a_link_out_of_the_folder(refused, sd_folder, tmp_path):
    outside = tmp_path / "secret"
    shutil.copy(sd_folder / "vae" / "config.json", outside)
    (sd_folder / "vae" / "config.json").unlink()
    (sd_folder / "vae" / "config.json").symlink_to(outside)
    line = refused("fetch", "sd21-base", "--from", sd_folder)
    assert "is a link to" in line and "out of the folder" in line
    (sd_folder / "vae" / "config.json").unlink()
    (sd_folder / "vae").rename(tmp_path / "vae")
    shutil.copy(outside, tmp_path / "vae" / "config.json")
    (sd_folder / "vae").symlink_to(tmp_path / "vae")
    assert "out of the folder" in refused("fetch", "sd21-base", "--from", sd_folder)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_of_a_folder_that_do_not_fit_its_configuration(refused, sd_folder, part):
    file = next((sd_folder / part).glob("*.safetensors"))
    tensors = load_tensors(file)[0]
    victim = next(name for name in tensors if name.endswith("weight"))
    for damaged, message in [
        ({name: tensor for name, tensor in tensors.items() if name != victim}, "missing"),
        (tensors | {"more.weight": tensors[victim].clone()}, "unknown more.weight"),
        (tensors | {victim: tensors[victim][:-1].contiguous()}, "expected"),
        (tensors | {victim: torch.full_like(tensors[victim], float("nan"))}, "not finite"),
    ]:
        save_file(damaged, file)
        line = refused("fetch", "sd21-base", "--from", sd_folder)
        assert f"{part}/{file.name}" in line and message in line
    truncate(file)
    assert f"{part}/{file.name}" in refused("fetch", "sd21-base", "--from", sd_folder)


@pytest.mark.parametrize(
    "change", [{"block_out_channels": "many"}, {"down_block_types": ["Evil"]}, {"attention_head_dim": 0}]
)
def test_a_configuration_that_describes_no_network(refused, sd_folder, change):
    path = sd_folder / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert "unet" in refused("fetch", "sd21-base", "--from", sd_folder)
    path.write_text("[]")
    assert "expected a JSON object" in refused("fetch", "sd21-base", "--from", sd_folder)


# --- code of a repository


def test_a_folder_that_asks_for_code_of_its_repository(refused, command, sd_folder, weights, tmp_path):
    """An index may name a class of ours beside it, a configuration may map itself to one; neither is looked for."""
    marker = tmp_path / "ran"
    (sd_folder / "unet" / "evil.py").write_text(f"open({str(marker)!r}, 'w')")
    (sd_folder / "pipeline.py").write_text(f"open({str(marker)!r}, 'w')")
    index, config = sd_folder / "model_index.json", sd_folder / "text_encoder" / "config.json"
    clean_index, clean_config = index.read_text(), config.read_text()
    index.write_text(json.dumps(json.loads(clean_index) | {"unet": ["evil", "EvilUNet"]}))
    assert "model_index.json asks for code" in refused("fetch", "sd21-base", "--from", sd_folder)
    index.write_text(clean_index)
    config.write_text(json.dumps(json.loads(clean_config) | {"auto_map": {"AutoModel": "evil.Evil"}}))
    assert "text_encoder/config.json asks for code" in refused("fetch", "sd21-base", "--from", sd_folder)
    config.write_text(clean_config)
    index.write_text(
        json.dumps(json.loads(clean_index) | {"_class_name": ["pipeline", "Evil"], "extra": ["evil", "E"]})
    )
    assert command("fetch", "sd21-base", "--from", sd_folder)[0] == 0
    assert not list((weights / "sd21-base").rglob("*.py")) and not marker.exists()


def test_a_repository_with_code(hub, command, sd_folder, weights, tmp_path):
    """Nothing is asked of the hub but the files of the table, whatever else the repository holds."""
    for name in ("pipeline.py", "unet/evil.py", "unet/diffusion_pytorch_model.bin", "custom_generate/generate.py"):
        (sd_folder / name).parent.mkdir(exist_ok=True)
        (sd_folder / name).write_text("raise SystemExit")
    index = sd_folder / "model_index.json"
    clean = index.read_text()
    index.write_text(json.dumps(json.loads(clean) | {"vae": ["evil", "EvilVAE"]}))
    hub.repositories["them/evil"] = sd_folder
    code, _, err = command("fetch", "sd21-base", "--repo", "them/evil", "--yes")
    assert code == 2 and "asks for code of its repository" in err and len(err.splitlines()) == 1
    assert [path.name for path in weights.iterdir()] == ["downloads"]
    known = {name for file in NETWORKS["sd21-base"].files for name in file.spellings}
    assert {request.removeprefix("them/evil/") for request in hub.requests} <= known
    assert not list(weights.rglob("*.py")) and not list(weights.rglob("*.bin"))


# --- networks that are ready


def test_a_ready_network_that_changed_since(refused, command, weights, sd_folder):
    assert command("fetch", "sd21-base", "--from", sd_folder)[0] == 0
    file = weights / "sd21-base" / "unet" / "diffusion_pytorch_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "changed since it was installed" in refused("verify", "sd21-base")
    code, out, _ = command("verify")
    assert code == 1 and "sd21-base: " in out and "changed since" in out
    file.unlink()
    assert "is gone since" in refused("verify", "sd21-base")
    file.write_bytes(whole)
    assert command("verify", "sd21-base")[0] == 0
    (weights / "sd21-base" / "weights.json").write_text('{"files": []}')
    assert "is damaged" in refused("verify", "sd21-base")
    (weights / "sd21-base" / "weights.json").unlink()
    assert "not recorded" in command("verify", "sd21-base")[1]
    truncate(file)
    assert "unet/" in refused("verify", "sd21-base")
    assert "is not there" in refused("verify", "sd15")


def test_a_released_checkpoint_and_its_conversion_are_one_network(golden, command, weights, tmp_path):
    """One-2-3-45's dict of state dicts, by the same commands."""
    code, out, err = command("convert", "one2345", golden / "one2345" / "ckpt_215000_fixture.pth")
    assert code == 0, err
    ready = load_cost_volume_networks(network_path("one2345")).state_dict()
    released = load_cost_volume_networks(golden / "one2345" / "ckpt_215000_fixture.pth").state_dict()
    assert all(torch.equal(ready[name], released[name]) for name in released)
    assert command("verify", "one2345")[0] == 0
    save_cost_volume_networks(tmp_path / "own.safetensors", CostVolumeNetworks(hidden=16))
    assert read_weights(tmp_path / "own.safetensors")
