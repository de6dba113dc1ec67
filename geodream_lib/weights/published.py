"""The needed files of each public network, with sizes and sha256 as the hub lists them for the pinned revision.

None means that no public page we could read states it; nothing here is guessed.
"""

from geodream_lib.weights.entries import File

_VOCABULARY = (
    File("tokenizer/merges.txt", 524_619, "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a"),
    File("tokenizer/vocab.json", 1_059_962, "e089ad92ba36837a0d31433e555c8f45fe601ab5c221d4f607ded32d9f7a4349"),
)
# Half precision: that of the released guidance, and half the download.
SD21_BASE = (
    File("model_index.json", 543),
    File("scheduler/scheduler_config.json", 346),
    *_VOCABULARY,
    File("tokenizer/special_tokens_map.json", 460, "f118ab3a983206e4f32583448de6bd6aae4ee21869135cef1f5848a753cdaab6"),
    File("tokenizer/tokenizer_config.json", 807),
    File("text_encoder/config.json", 613),
    File(
        "text_encoder/model.fp16.safetensors",
        680_821_096,
        "681c555376658c81dc273f2d737a2aeb23ddb6d1d8e5b3a7064636d359a22668",
    ),
    File("unet/config.json", 911),
    File(
        "unet/diffusion_pytorch_model.fp16.safetensors",
        1_731_904_736,
        "28ec9cf3b239c0751c201b1f6fb46b551df5862731b30a37aa1360101cb3fbab",
    ),
    File("vae/config.json", 553),
    File(
        "vae/diffusion_pytorch_model.fp16.safetensors",
        167_335_342,
        "3e4c08995484ee61270175e9e7a072b66a6e4eeb5f0c266667fe1f45b90daf9a",
    ),
)
SD21 = (
    File("scheduler/scheduler_config.json", 345, "4cd9b9597ca64549df35016ca02bd3450ecbac70ccd8b0465b018be4ba54fe4b"),
    File("unet/config.json", 939, "dc987e214928b191cb832df4e19c376e862af1e4c4a5f36aac054a53ee251ccf"),
    File(
        "unet/diffusion_pytorch_model.fp16.safetensors",
        1_731_904_736,
        "8a3a4d7978884c5e4ef00b62641b1b544b257be2f6715d984188610ad6475ad2",
    ),
)
SD15 = (
    File("model_index.json", 541, "e2f6f22e274374010aec30c79eb2d6e53fff4a36ac0225523a92cb2d41a83347"),
    File("scheduler/scheduler_config.json", 308, "699cce92eb7c122e2eb7dfdea78e6187fda76a5ed4a8e42319b85610e620e091"),
    *_VOCABULARY,
    File("tokenizer/special_tokens_map.json", 472, "c4864a9376a8401918425bed71fc14fc0e81f9b59ec45c1cf96cccb2df508eac"),
    File("tokenizer/tokenizer_config.json", 806, "00439066fcba73de57644cf41e4e3b9f2dbb09d7f3fc2005898ba52399045882"),
    File("text_encoder/config.json", 617, "845df614cb9327ae7bbea027316246fae917827407da6df13572e41b5f93b4cc"),
    File(
        "text_encoder/model.fp16.safetensors",
        246_144_864,
        "77795e2023adcf39bc29a884661950380bd093cf0750a966d473d1718dc9ef4e",
    ),
    File("unet/config.json", 743, "78f474de6bab3d893868f37be97b636ae65c0df3073ed3256ca458ff599b5f96"),
    File(
        "unet/diffusion_pytorch_model.fp16.safetensors",
        1_719_125_304,
        "c83908253f9a64d08c25fc90874c9c8aef9a329ce1ca5fb909d73b0c83d1ea21",
    ),
    File("vae/config.json", 547, "786a7d21647ddea6a04b9675c03d3cb45e90a2f3c6da5fbda2c54ade040036de"),
    File(
        "vae/diffusion_pytorch_model.fp16.safetensors",
        167_335_342,
        "4fbcf0ebe55a0984f5a5e00d8c4521d52359af7229bb4d81890039d2aa16dd7c",
    ),
)
ZERO123PLUS = (
    File("model_index.json"),
    File("feature_extractor_clip/preprocessor_config.json"),
    File("feature_extractor_vae/preprocessor_config.json"),
    File("scheduler/scheduler_config.json"),
    File("tokenizer/merges.txt"),
    File("tokenizer/vocab.json"),
    File("tokenizer/special_tokens_map.json"),
    File("tokenizer/tokenizer_config.json"),
    File("text_encoder/config.json"),
    File("text_encoder/model.safetensors"),
    File("unet/config.json"),
    File("unet/diffusion_pytorch_model.safetensors"),
    File("vae/config.json"),
    File("vae/diffusion_pytorch_model.safetensors"),
    File("vision_encoder/config.json"),
    File("vision_encoder/model.safetensors"),
)
# CLIP in the layout of OpenCLIP, with its vocabulary.
OPEN_CLIP = (
    File("open_clip_model.safetensors"),
    File("vocab.json"),
    File("merges.txt"),
)
