"""Measuring in the middle of somebody's training without leaving a trace: their random numbers, modes and hooks stay theirs."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from zeroloss.errors import ArgumentError

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_OWNERS = ("_trainer", "_fabric")  # where Lightning keeps what runs a module; a copy of it would be one of the whole training


@contextlib.contextmanager
def untouched() -> Iterator[None]:
    """A block that may draw random numbers and differentiate, whatever surrounds it, and of which nothing outside can tell.

    Python's, numpy's and torch's generators (CUDA's where it is in use) are put back as they were; gradients are on, inference mode and
    autocast are off inside.

    Example:
        >>> before = torch.get_rng_state()
        >>> with torch.no_grad(), untouched():
        ...     drawn, on = torch.rand(3), torch.is_grad_enabled()
        >>> on, torch.equal(before, torch.get_rng_state())
        (True, True)
    """
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # users' loops draw from it
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    kinds = ["cpu", *(["cuda"] if devices else [])]
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices))
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            for kind in kinds:
                stack.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002


def unwrap(module: nn.Module) -> nn.Module:
    """The module inside ``torch.compile``'s, DataParallel's and DistributedDataParallel's wrappers.

    Args:
        module: any module.

    Returns:
        The same parameters under the module's own names.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> unwrap(nn.DataParallel(layer)) is layer
        True
    """
    while True:
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
            module = inner
        else:
            return module


def twin_of(module: nn.Module) -> nn.Module:
    """A float64 copy in evaluation mode that shares nothing with the module and sets off nothing of its surroundings.

    Hooks that the user registered are left off, for they may count, print or collect; those of ``torch.nn.utils`` (weight norm and
    the like) make the weights and stay. Dropout is off and BatchNorm uses the running statistics of the moment.

    Args:
        module: any module that can be copied.

    Returns:
        The copy; on the CPU where the module's device has no float64.

    Raises:
        ArgumentError: for modules without weights yet, with their weights on several machines, or that refuse to be copied.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train()
        >>> twin = twin_of(net)
        >>> net.training, twin.training, twin[0].weight is net[0].weight
        (True, False, False)
    """
    for name, parameter in module.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ArgumentError("module", f"has no values in {name!r} yet", "run one forward pass first")
        if hasattr(parameter, "placements"):
            raise ArgumentError("module", f"has {name!r} spread over several processes", "record where the weights are whole")
    memo: dict[int, object] = {}
    for part in module.modules():
        memo |= {id(owner): None for key in _OWNERS if (owner := part.__dict__.get(key)) is not None}
        memo |= {
            id(kept): kept.detach().clone() for kept in _kept(part) if kept.grad_fn is not None
        }  # torch copies no part of a graph
    try:
        twin = copy.deepcopy(module, memo)
    except (RuntimeError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ArgumentError("module", f"cannot be copied ({reason})", "pass the part of it that computes the outputs") from error
    for part in twin.modules():
        for kind in _HOOKS:
            hooks = part.__dict__[kind]
            for key in [key for key, hook in hooks.items() if not type(hook).__module__.startswith("torch.nn.utils")]:
                del hooks[key]
    if any(parameter.device.type == "mps" for parameter in twin.parameters()):
        twin = twin.cpu()
    return twin.to(torch.float64).eval()


def _kept(part: nn.Module) -> list[Tensor]:
    """Tensors that a module's forward pass left in its attributes, such as attention weights for a plot."""
    values = [value for key, value in part.__dict__.items() if key not in ("_parameters", "_buffers", "_modules")]
    lists = [
        list(value.values()) if isinstance(value, dict) else value for value in values if isinstance(value, dict | list | tuple)
    ]
    return [kept for several in (values, *lists) for kept in several if isinstance(kept, Tensor)]
