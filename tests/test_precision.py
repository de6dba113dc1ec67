"""Half precision only where the hardware has it."""

import pytest
import torch

from geodream_lib import precision


@pytest.mark.parametrize(("has_it", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_product_is_bfloat16_only_where_that_is_fast(monkeypatch, has_it, dtype):
    capabilities = {"avx2": True, "avx512_bf16": has_it}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    with precision.fast_autocast(torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
