"""Public networks are fetched from where they are, whole, and nothing else is."""

import json
import os
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub.file_download import http_get

from geodream_lib.errors import InputError
from geodream_lib.guidance.load import load_denoiser, load_diffusion
from geodream_lib.weights import NETWORKS, network_path
from geodream_lib.weights.fetch import fetch

pytestmark = pytest.mark.needs_golden("vsd")
MAIN, MIRROR = (repository.id for repository in NETWORKS["sd21-base"].repositories)


def left(weights: Path) -> list[str]:
    return sorted(path.name for path in weights.iterdir())


@pytest.fixture
def mirrored(hub, sd_folder, monkeypatch):
    """A small Stable Diffusion on the hub in the place of the real one, beside files nobody asks for."""
    (sd_folder / "pipeline.py").write_text("raise SystemExit")
    (sd_folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    hub.repositories[MAIN] = sd_folder
    entry = NETWORKS["sd21-base"]
    unpublished = tuple(replace(file, bytes=None, sha256=None) for file in entry.files)
    monkeypatch.setitem(NETWORKS, "sd21-base", replace(entry, files=unpublished))
    return hub


def test_a_download_becomes_a_folder_that_loads(mirrored, weights, command):
    code, out, err = command("fetch", "sd21-base", "--yes")
    assert code == 0, err
    assert out.startswith("sd21-base is under CreativeML Open RAIL++-M") and "whole and readable" in out
    assert left(weights) == ["downloads", "sd21-base"] and not any((weights / "downloads").iterdir())
    load_diffusion(network_path("sd21-base"))
    record = json.loads((weights / "sd21-base" / "weights.json").read_text())
    assert record["origin"] == f"{MAIN}@{mirrored.commit(MAIN)}"
    asked = [request.removeprefix(f"{MAIN}/") for request in mirrored.requests]
    assert set(asked) <= {name for file in NETWORKS["sd21-base"].files for name in file.spellings}
    mirrored.requests.clear()
    assert "is ready" in command("fetch", "sd21-base")[1] and not mirrored.requests


LARGE = "unet/diffusion_pytorch_model.safetensors"


def test_a_broken_connection_is_taken_up_again(mirrored, weights, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    mirrored.cut[LARGE] = size = (mirrored.repositories[MAIN] / LARGE).stat().st_size // 2
    fetch("sd21-base")
    asked = [request for request in mirrored.requests if LARGE in request]
    assert len(asked) == 2
    assert size - 1000 <= int(asked[1].split("bytes=")[1].removesuffix("-")) <= size


def test_an_interrupted_command_goes_on_where_it_stopped(mirrored, weights, monkeypatch):
    received = 1234

    def interrupted(url, file, **options):
        if not url.endswith(LARGE):
            return http_get(url, file, **options)
        file.write((mirrored.repositories[MAIN] / LARGE).read_bytes()[:received])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("geodream_lib.weights.hub.http_get", interrupted)
        fetch("sd21-base")
    assert left(weights) == ["downloads"]
    mirrored.requests.clear()
    fetch("sd21-base")
    assert f"{MAIN}/{LARGE} bytes={received}-" in mirrored.requests
    load_diffusion(network_path("sd21-base"))


def test_a_second_run_asks_for_the_missing_files_alone(mirrored, weights, sd_folder):
    whole = (sd_folder / "vae" / "config.json").read_text()
    (sd_folder / "vae" / "config.json").write_text("{")
    with pytest.raises(InputError, match="vae/config.json"):
        fetch("sd21-base")
    assert left(weights) == ["downloads"]
    downloads = weights / "downloads" / "sd21-base"
    (downloads / "vae" / "config.json").unlink()
    (sd_folder / "vae" / "config.json").write_text(whole)
    mirrored.requests.clear()
    fetch("sd21-base")
    assert mirrored.requests == [f"{MAIN}/vae/config.json"]


def test_a_gone_repository_is_replaced_by_the_next(mirrored, weights, command):
    mirrored.repositories[MIRROR] = mirrored.repositories.pop(MAIN)
    code, out, err = command("fetch", "sd21-base", "--yes")
    assert code == 0 and f"{MAIN} is gone" in err
    assert json.loads((weights / "sd21-base" / "weights.json").read_text())["origin"].startswith(MIRROR)
    mirrored.repositories["me/mine"] = mirrored.repositories.pop(MIRROR)
    shutil.rmtree(weights)
    code, out, err = command("fetch", "sd21-base", "--yes")
    assert code == 2 and "no source of sd21-base is left" in err and "--repo OWNER/NAME" in err
    assert command("fetch", "sd21-base", "--yes", "--repo", "me/mine")[0] == 0
    load_diffusion(network_path("sd21-base"))


def test_terms_that_were_not_accepted_are_said_and_no_mirror_is_tried(mirrored, weights, command):
    mirrored.gated.add(MAIN)
    code, _, err = command("fetch", "sd21-base", "--yes")
    assert code == 2 and len(err.splitlines()) == 1
    assert f"{NETWORKS['sd21-base'].repositories[0].url} wants its terms accepted" in err and "hf auth login" in err


@pytest.mark.parametrize("repo", ["mine", "a/b/c", "../x", ""])
def test_a_name_that_is_no_repository(mirrored, weights, command, repo):
    code, _, err = command("fetch", "sd21-base", "--yes", "--repo", repo)
    assert code == 2 and len(err.splitlines()) == 1 and "OWNER/NAME" in err


def test_the_licence_comes_first(mirrored, weights, command):
    code, out, err = command("fetch", "sd21-base")
    assert code == 2 and "add --yes" in err and "allows:" in out
    assert not weights.exists() and not mirrored.requests


def test_a_file_that_is_not_what_the_hub_says_is_removed(mirrored, weights, sd_folder):
    name = "unet/diffusion_pytorch_model.safetensors"
    whole = (sd_folder / name).read_bytes()
    mirrored.lies[name] = whole[:-1] + bytes([whole[-1] ^ 1])
    with pytest.raises(InputError, match="sha256 .*damaged on the way or replaced"):
        fetch("sd21-base")
    assert left(weights) == ["downloads"] and not (weights / "downloads" / "sd21-base" / name).exists()


def test_a_file_other_than_published_is_refused_from_the_pinned_repository(hub, sd_folder, weights):
    """The table's sizes and sums bind the repositories of the table."""
    hub.repositories[MAIN] = sd_folder
    with pytest.raises(InputError, match="model_index.json has bytes .*published are"):
        fetch("sd21-base")
    assert left(weights) == ["downloads"]


def test_too_little_space_is_said_before_the_download(mirrored, weights, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(InputError, match="sd21-base needs 0.0 GB .* free some space"):
        fetch("sd21-base")
    assert not mirrored.requests


# --- without the network


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize("way", ["--offline", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize("name", NETWORKS)
def test_offline_names_the_files_and_the_way_by_hand(no_network, weights, command, monkeypatch, name, way):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    if way == "HF_HUB_OFFLINE":
        monkeypatch.setenv(way, "1")
    if NETWORKS[name].tokenizer:
        (weights / NETWORKS[name].tokenizer / "tokenizer").mkdir(parents=True)
        (weights / NETWORKS[name].tokenizer / "tokenizer" / "vocab.json").touch()
    code, _, err = command("fetch", name, *([way] if way.startswith("--") else []))
    assert code == 2 and len(err.splitlines()) == 1
    assert all(file.path in err for file in NETWORKS[name].files)
    assert NETWORKS[name].repositories[0].url in err and f"geodream weights fetch {name} --from FOLDER" in err
    assert not (weights / name).exists()


@pytest.mark.parametrize("half", [False, True])
def test_files_had_by_hand(no_network, weights, command, sd_folder, half):
    """In the repository's layout, in either precision's spelling; the user's files stay as they are."""
    if half:
        for path in list(sd_folder.rglob("*.safetensors")):
            path.rename(path.with_suffix(".fp16.safetensors"))
    before = {path: path.read_bytes() for path in sd_folder.rglob("*") if path.is_file()}
    code, out, err = command("fetch", "sd21-base", "--from", sd_folder)
    assert code == 0, err
    assert "is not the published file" in out
    load_diffusion(network_path("sd21-base"))
    assert {path: path.read_bytes() for path in sd_folder.rglob("*") if path.is_file()} == before
    assert not any(os.path.samefile(path, weights / "sd21-base" / "vae" / "config.json") for path in before)


def test_files_side_by_side(no_network, weights, command, golden, tmp_path):
    """Where no two files have one name, folders are not needed."""
    (tmp_path / "flat").mkdir()
    for path in (golden / "vsd" / "sd_lora").rglob("*.*"):
        shutil.copy(path, tmp_path / "flat")
    assert command("fetch", "sd21", "--from", tmp_path / "flat")[0] == 0
    load_denoiser(network_path("sd21"))
    code, _, err = command("fetch", "sd21-base", "--from", tmp_path / "flat")
    assert code == 2 and "files of sd21-base: model_index.json, tokenizer/merges.txt" in err
    assert "no folder" in command("fetch", "sd21", "--from", tmp_path / "nowhere")[2]
