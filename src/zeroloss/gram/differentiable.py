"""torch's own operations in place of fused ones, whose higher, forward and vectorised derivatives it does not have."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextlib.contextmanager
def unfused(module: nn.Module) -> Iterator[None]:
    """Run attention and recurrent layers by plain operations for the length of a block.

    Args:
        module: decides what has to be switched; convolutions stay as they are.

    Example:
        >>> with unfused(nn.Linear(1, 1)):
        ...     torch.backends.mha.get_fastpath_enabled()
        False
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    recurrent = any(isinstance(layer, nn.RNNBase) for layer in module.modules())
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", "There is a performance drop")  # slow is what this way is
            warnings.filterwarnings("ignore", "TF32 acceleration")  # of hardware that is not there
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            if recurrent:
                stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
                stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
