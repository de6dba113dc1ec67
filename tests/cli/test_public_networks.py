"""From files a user downloaded by hand to a run of the paper's preset, with the commands of the README.

The files are the golden networks in the layouts of the public ones; nothing but their sizes is different.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from geodream_lib import cli
from geodream_lib.mesh import TexturedMesh
from geodream_lib.storage import read_json
from geodream_lib.views import PosedViews

pytestmark = pytest.mark.needs_golden("vsd", "mvdream", "zero123", "zero123plus", "one2345")

PROMPT = "a squirrel playing guitar"
SMALL = {
    "device": "cpu",
    "precision": "float32",
    "views.size": 32,
    "views.tile": 16,
    "views.mvdream_steps": 3,
    "views.steps": 3,
    "volume.resolution": 24,
    "volume.refined_resolution": 30,
    "volume.mesh_resolution": 24,
    "field.levels": 2,
    "field.log2_table": 8,
    "field.samples_per_ray": 24,
    "field.occupancy_resolution": 12,
    "refine.steps": 2,
    "refine.size": 16,
    "mesh.grid_resolution": 12,
    "mesh.atlas_size": 128,
    "mesh.geometry.steps": 1,
    "mesh.geometry.size": 24,
    "mesh.texture.steps": 1,
    "mesh.texture.size": 24,
}


def geodream(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def write_json(path: Path, value: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def mvdream_file(golden: Path, folder: Path) -> tuple[Path, Path]:
    """The released layout, `state_dict` with three prefixes, and the sizes in the release's own words."""
    unet, rest = load_file(golden / "mvdream" / "unet.safetensors"), load_file(golden / "zero123" / "model.safetensors")
    encoder = golden / "vsd" / "sd_base" / "text_encoder"
    tensors = {f"model.diffusion_model.{name}": tensor.float() for name, tensor in unet.items()}
    tensors |= {name: tensor.float() for name, tensor in rest.items() if name.startswith("first_stage_model.")}
    for name, tensor in load_file(encoder / "model.safetensors").items():
        tensors[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = tensor.float()
    torch.save({"state_dict": tensors}, folder / "sd-v2.1-base-4view.pt")
    sizes = {
        "unet": read_json(golden / "mvdream" / "unet_config.json"),
        "vae": read_json(golden / "zero123" / "config.json")["vae"],
        "text": {"heads": read_json(encoder / "config.json")["num_attention_heads"]},
    }
    write_json(folder / "mvdream.json", sizes)
    return folder / "sd-v2.1-base-4view.pt", folder / "mvdream.json"


def zero123plus_folder(golden: Path, folder: Path) -> Path:
    """The public repository's files: weights and configurations of every part."""
    source, out = golden / "zero123plus", folder / "zero123plus"
    sizes = read_json(source / "configs.json")
    unet_weights, weights = "diffusion_pytorch_model.safetensors", "model.safetensors"
    parts = {
        "unet": ("UNet2DConditionModel", unet_weights),
        "vae": ("AutoencoderKL", unet_weights),
        "text_encoder": ("CLIPTextModel", weights),
        "vision_encoder": ("CLIPVisionModelWithProjection", weights),
    }
    for part, (kind, file) in parts.items():
        write_json(out / part / "config.json", {"_class_name": kind, "architectures": [kind]} | sizes[part])
        shutil.copy(source / f"{part}.safetensors", out / part / file)
    scheduler = {"_class_name": "EulerAncestralDiscreteScheduler"} | sizes["scheduler"]
    write_json(out / "scheduler" / "scheduler_config.json", scheduler)
    for branch in ("feature_extractor_vae", "feature_extractor_clip"):
        how = sizes[branch]
        write_json(
            out / branch / "preprocessor_config.json",
            {
                "size": how["size"],
                "crop_size": how["size"],
                "image_mean": how["mean"],
                "image_std": how["std"],
                "resample": {"bilinear": 2, "bicubic": 3}[how["resample"]],
            },
        )
    shutil.copytree(source / "tokenizer", out / "tokenizer")
    write_json(out / "tokenizer" / "tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer", "pad_token": "!"})
    write_json(out / "tokenizer" / "special_tokens_map.json", {"pad_token": "!"})
    index = {"_class_name": "Zero123PlusPipeline", "ramping_coefficients": sizes["ramping_coefficients"]}
    write_json(out / "model_index.json", index)
    return out


@pytest.fixture(scope="module")
def installed(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights folder after the README's commands."""
    downloads, weights = tmp_path_factory.mktemp("downloads"), tmp_path_factory.mktemp("home") / "weights"
    file, sizes = mvdream_file(golden, downloads)
    vision = read_json(golden / "zero123plus" / "configs.json")["vision_encoder"]
    tower = CLIPVisionModelWithProjection(CLIPVisionConfig(**vision))
    tower.save_pretrained(downloads / "clip")
    zero123 = golden / "zero123"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEODREAM_WEIGHTS", str(weights))
        patch.setenv("HF_HUB_OFFLINE", "1")
        for name, folder in {
            "sd21-base": golden / "vsd" / "sd_base",
            "sd21": golden / "vsd" / "sd_lora",
            "zero123plus-v1.1": zero123plus_folder(golden, downloads),
        }.items():
            assert geodream("weights", "fetch", name, "--from", folder) == 0
        assert geodream("weights", "convert", "mvdream-sd21", file, "--config", sizes) == 0
        clip = ("--image-encoder", downloads / "clip")
        model, config = zero123 / "model.safetensors", zero123 / "config.json"
        assert geodream("weights", "convert", "zero123-xl", model, "--config", config, *clip) == 0
        checkpoint = golden / "one2345" / "ckpt_215000_fixture.pth"
        assert geodream("weights", "convert", "one2345", checkpoint) == 0
        assert geodream("weights", "verify") == 0
    return weights


@pytest.fixture
def weights(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GEODREAM_WEIGHTS", str(installed))
    return installed


def generate(out: Path, *arguments: object, settings: dict[str, object] | None = None) -> int:
    chosen = [text for key, value in (settings or {}).items() for text in ("--set", f"{key}={value}")]
    return geodream("generate", PROMPT, "--preset", "paper", "--out", out, *chosen, *arguments)


def test_without_networks_the_command_names_all_that_are_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GEODREAM_WEIGHTS", str(tmp_path / "weights"))
    assert generate(tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert "mvdream-sd21, zero123-xl, one2345, sd21-base, sd21" in error and "geodream weights fetch NAME" in error
    assert not (tmp_path / "run").exists()


def test_with_networks_and_no_gpu_nothing_is_begun(weights, tmp_path, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert generate(tmp_path / "run") == 2
    assert "computes on a CUDA device and torch sees none" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("fidelity", ["paper", "released"])
def test_the_paper_s_preset_from_words_to_mesh(fidelity, weights, tmp_path):
    """Every stage with the public kinds of networks, in both readings; the only difference to a GPU is the sizes."""
    run = tmp_path / "run"
    assert generate(run, "--fidelity", fidelity, "--until", "refine", settings=SMALL) == 0
    assert geodream("mesh", run) == 0
    names = PosedViews.load(run / "views").names
    assert names[0] == "00_MVDream_front"
    assert any("Zero123plus" in name for name in names) == (fidelity == "released")
    mesh = TexturedMesh.load_glb(run / "mesh.glb")
    assert len(mesh.faces) > 0 and torch.isfinite(mesh.vertices).all()
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    geometry = [record for record in log if record["stage"] == "geometry"]
    assert all(("lora" in record) == (fidelity == "paper") for record in geometry), "VSD or SDS"


def test_a_picture_of_one_s_own_goes_by_the_released_two_rounds(weights, tmp_path):
    """`--image`: eight views of the picture, then neighbours of each; 30 of them enter the volume."""
    picture = tmp_path / "ball.png"
    image = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(image).ellipse((12, 12, 52, 52), fill="red")
    image.save(picture)
    run = tmp_path / "run"
    settings = SMALL | {"views.neighbour_steps": 2}
    assert generate(run, "--image", picture, "--fidelity", "released", "--until", "volume", settings=settings) == 0
    assert len(PosedViews.load(run / "views")) == 30
