"""The table of public networks: complete, pinned where a pin is known, and nothing in it that could run."""

import re

import pytest

from geodream_lib.errors import InputError
from geodream_lib.weights import NETWORKS
from geodream_lib.weights.entries import File
from geodream_lib.weights.folder import named_network
from geodream_lib.weights.verify import unpublished

FILES = [(network, file) for network in NETWORKS.values() for file in network.files]


def test_every_entry_can_be_fetched_by_what_it_says():
    for name, network in NETWORKS.items():
        assert network.name == name and network.repositories and network.ready > 0
        assert network.licence.name and network.licence.allows and network.licence.url.startswith("https://")
        assert network.tokenizer is None or network.tokenizer in NETWORKS
        for repository in network.repositories:
            assert re.fullmatch(r"[\w.-]+/[\w.-]+", repository.id)
            assert repository.revision is None or re.fullmatch(r"[0-9a-f]{40}", repository.revision)
            assert repository.id != network.left_hub


@pytest.mark.parametrize(("network", "file"), FILES, ids=lambda value: getattr(value, "path", None))
def test_files_are_data(network, file):
    """Folders hold configurations, vocabularies and safetensors; pickles are read only to be converted."""
    allowed = (".json", ".txt", ".safetensors")
    allowed = allowed if network.kind == "diffusers" else (*allowed, ".ckpt", ".pt", ".pth")
    assert file.path.endswith(allowed) and not file.path.startswith("/") and ".." not in file.path
    assert file.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", file.sha256)
    assert file.bytes is None or file.bytes > 0


def test_a_download_is_as_large_as_its_files():
    for network in NETWORKS.values():
        sizes = [file.bytes for file in network.files]
        if None not in sizes:
            assert network.download == round(sum(sizes) / 1e9, 1) == network.ready


def test_either_precision_is_installed_under_the_name_the_libraries_look_for():
    half, full = File("unet/model.fp16.safetensors"), File("unet/model.safetensors")
    assert half.installed == full.installed == "unet/model.safetensors"
    assert half.spellings == ("unet/model.fp16.safetensors", "unet/model.safetensors")
    assert full.spellings == ("unet/model.safetensors", "unet/model.fp16.safetensors")
    assert File("unet/config.json").spellings == ("unet/config.json",)


def test_remarks_on_files_that_are_not_the_published_ones():
    network = NETWORKS["sd21-base"]
    known = {file.installed: {"bytes": file.bytes, "sha256": file.sha256} for file in network.files}
    assert unpublished(network, known) == []
    file = next(file for file in network.files if file.sha256 and file.path != file.installed)
    other = known | {file.installed: {"bytes": file.bytes, "sha256": "0" * 64}}
    assert unpublished(network, other) == [f"{file.installed} is not the published file: its sha256 differs"]
    other = known | {file.installed: {"bytes": 1, "sha256": "0" * 64}}
    assert unpublished(network, other) == [f"{file.installed} is not the published file: 1 bytes, not {file.bytes}"]
    nothing_known = {file.installed: {"bytes": 1, "sha256": "0" * 64} for file in NETWORKS["one2345"].files}
    assert unpublished(NETWORKS["one2345"], nothing_known) == []


def test_the_list_fits_a_page(command, weights):
    (weights / "sd15").mkdir(parents=True)
    code, out, _ = command("list")
    lines = out.splitlines()
    assert code == 0 and all(len(line) <= 100 for line in lines if str(weights) not in line)
    for name, network in NETWORKS.items():
        line = next(line for line in lines if line.split()[:1] == [name])
        assert network.licence.name in line and (" yes " in line) == (name == "sd15")
    assert str(weights) in out


def test_an_unknown_name(command, weights):
    with pytest.raises(InputError, match="no public network 'sd14'; choose one of sd21-base"):
        named_network("sd14")
    for action in (["fetch", "sd14"], ["convert", "sd14", "x.ckpt"], ["verify", "sd14"]):
        code, _, err = command(*action)
        assert code == 2 and "no public network 'sd14'" in err and len(err.splitlines()) == 1
