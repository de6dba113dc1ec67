"""Where half precision pays: without the instructions for it a CPU computes bfloat16 many times slower than float32."""

import torch


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is computed by the hardware of `device`, a CPU or a CUDA device."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("sve_bf16"))


def fast_autocast(device: torch.device) -> torch.autocast:
    """A context that computes in bfloat16 where that is fast, and changes nothing elsewhere."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bfloat16(device))
