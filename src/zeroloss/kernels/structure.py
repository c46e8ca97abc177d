"""What a module is made of, and modules that are not what their class says: tied layers, forwards of their own."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils.parametrize import is_parametrized

from zeroloss.errors import ArgumentError
from zeroloss.kernels.pixels import AVERAGES
from zeroloss.networks import Residual, Scale

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d)
NORMS = (nn.LayerNorm, nn.RMSNorm, nn.BatchNorm1d, nn.BatchNorm2d)
Weighted = nn.Linear | nn.Conv1d | nn.Conv2d
Norm = nn.LayerNorm | nn.RMSNorm | nn.BatchNorm1d | nn.BatchNorm2d
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_KNOWN = (Residual, nn.Sequential, *WEIGHTED, *NORMS, *AVERAGES, Scale, nn.Flatten, nn.Identity, *DROPOUTS)


def children_of(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """A module's children by name, one that stands in two places twice (``named_children`` gives it once)."""
    return [(name, child) for name, child in module._modules.items() if child is not None]


def check_module(module: object) -> None:
    """Refuse what is no module, or one whose layers are tied.

    Raises:
        ArgumentError: saying what it is, or naming the layer.
    """
    if not isinstance(module, nn.Module):
        raise ArgumentError("module", f"is {module!r}", "pass a torch.nn.Module, such as nn.Sequential(...)")
    refuse_tied(module)


def refuse_tied(module: nn.Module) -> None:
    """Refuse a module that passes through one layer of weights twice: its uses are not independent.

    Raises:
        ArgumentError: naming the layer.
    """
    seen: set[nn.Module] = set()
    held: set[nn.Parameter] = set()
    for name, layer in module.named_modules(remove_duplicate=False):
        if not isinstance(layer, WEIGHTED + NORMS) or not any(True for _ in layer.parameters()):
            continue
        shared = [parameter for parameter in layer.parameters(recurse=False) if parameter in held]
        held.update(layer.parameters(recurse=False))
        if layer in seen or shared:
            own = "" if layer in seen else "'s weights"
            raise ArgumentError(
                "module",
                f"uses one layer{own} twice, again at {name!r}",
                "give every use a layer of its own, or ask for gram(module, x)",
            )
        seen.add(layer)


def layers_of(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The layers that hold parameters of a kind that the limit knows, with their dotted names, in the order of the module.

    Example:
        >>> [name for name, _ in layers_of(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.ReLU(), nn.Linear(3, 1)))]
        ['0', '1', '3']
    """
    return [(name, layer) for name, layer in module.named_modules() if isinstance(layer, WEIGHTED + NORMS)]


def refuse_own_forward(module: nn.Module, name: str) -> None:
    """Refuse a layer whose sizes are open, and a subclass that computes something of its own: it is not what it derives from.

    Args:
        module: a layer.
        name: its dotted name.

    Raises:
        ArgumentError: naming the layer.
    """
    if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
        raise ArgumentError(
            "module",
            f"has a lazy layer at {name!r} ({type(module).__name__}) whose sizes are not known yet",
            "pass some inputs through the module first",
        )
    kind = next((kind for kind in _KNOWN if isinstance(module, kind)), None)
    hooked = bool(module._forward_hooks or module._forward_pre_hooks)
    own = "forward" in vars(module) or (kind is not None and type(module).forward is not kind.forward)
    for how, found in (("a hook", hooked), ("parametrised weights", is_parametrized(module)), ("a forward of its own", own)):
        if found:
            raise ArgumentError(
                "module",
                f"has {how} at {name!r} ({type(module).__name__}), and no infinite-width limit is known for it",
                "build it from Linear, Conv2d, activations, Scale, Residual and Sequential, or ask for gram(module, x)",
            )
