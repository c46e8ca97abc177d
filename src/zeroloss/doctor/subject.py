"""The patient: a float64 copy of the user's module in eval mode, the rows it is measured on, and the reasons to refuse it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zeroloss.data import Dataset
from zeroloss.doctor.finding import Finding, Severity, count, listed
from zeroloss.errors import ArgumentError
from zeroloss.gram import match, own_copy, rows_of
from zeroloss.training import Loss
from zeroloss.training.targets import check_targets


@dataclass(frozen=True, eq=False)
class Subject:
    """What is examined.

    Args:
        module: the copy; the user's own module is never touched.
        data: all rows, in the shape that the module takes.
        sample: the rows that are measured; all of them where n·k is within the budget.
        rows: the numbers of the sample's rows in the data.
        outputs: of the copy on the sample, n×k, float64, on the CPU.
        loss: what is trained for.
        notes: what had to be done to the copy or the data.
    """

    module: nn.Module
    data: Dataset
    sample: Dataset
    rows: tuple[int, ...]
    outputs: Float[Tensor, "n k"]
    loss: Loss
    notes: tuple[Finding, ...]

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(p.numel() for p in self.module.parameters() if p.requires_grad)

    @property
    def tokens(self) -> bool:
        """Whether the module takes its inputs as whole numbers."""
        return as_tokens in self.module._forward_pre_hooks.values()

    @property
    def targets(self) -> Float[Tensor, "n k"]:
        """Of the sample, on the CPU."""
        return self.sample.y.detach().cpu()

    @property
    def whole(self) -> bool:
        """Whether all rows are measured."""
        return len(self.rows) == self.data.n


def admit(module: nn.Module, data: Dataset, loss: Loss, budget: int, seed: int) -> Subject:
    """Copy the module and check that it can be examined on the data.

    Args:
        module: any module with something to train.
        data: inputs and targets; rows are shown as images, or images as rows, where the module takes only those.
        loss: asks for targets of its kind.
        budget: the largest n·k that is measured; beyond it a random choice of rows is.
        seed: of that choice.

    Returns:
        The subject.

    Raises:
        ArgumentError: where nothing is trainable, weights or outputs are not finite, the module fails on the data or is random, or its
            outputs do not match the targets.

    Example:
        >>> from zeroloss.training import find_loss
        >>> subject = admit(nn.Linear(2, 1), Dataset([[1.0, 0.0], [0.0, 1.0]], [1.0, -1.0]), find_loss("squared"), 100, 0)
        >>> subject.parameters, subject.rows
        (3, (0, 1))
    """
    if not isinstance(module, nn.Module):
        raise ArgumentError("module", f"is {type(module).__name__}", "pass a torch.nn.Module")
    if not isinstance(data, Dataset):
        raise ArgumentError("data", f"is {type(data).__name__}", "pass zeroloss.Dataset(x, y) or zeroloss.load(...)")
    _check_weights(module)
    check_targets(loss.name, loss.targets, data.y)
    try:
        own = copy.deepcopy(module)
    except Exception as error:  # a user's class may raise anything
        raise ArgumentError(
            "module", f"cannot be copied ({_first_line(error)})", "keep only parameters and buffers in it"
        ) from error
    for parameter in own.parameters():
        parameter.grad = None
    notes = list(_put_to_rest(own))
    k = data.outputs
    rows = tuple(range(data.n))
    if data.n * k > budget:
        kept = max(1, budget // k)
        chosen = torch.randperm(data.n, generator=torch.Generator().manual_seed(seed))[:kept]
        rows = tuple(sorted(chosen.tolist()))
        notes.append(
            Finding(
                Severity.NOTICE,
                "Some rows only",
                f"{count(kept, 'row')} of {data.n:,} were measured, drawn with seed {seed}: {data.n:,} rows with "
                f"{count(k, 'output')} are "
                f"more than the budget of {budget:,}. Eigenvalues are scaled to all rows; the slowest directions of all rows "
                "are slower "
                "than those of a part, so predicted steps are too few rather than too many.",
                {"rows": kept, "of": data.n, "budget": budget},
            )
        )
    fitted = _fitting(own, data, rows, notes)
    sample = take(fitted, rows)
    outputs = _run(own, sample.x)
    _check_outputs(outputs, sample, _run(own, sample.x))
    return Subject(own, fitted, sample, rows, outputs.to(device="cpu", dtype=torch.float64), loss, tuple(notes))


def take(data: Dataset, rows: tuple[int, ...]) -> Dataset:
    """Some rows of a data set, in the order given.

    Example:
        >>> take(Dataset([[1.0], [2.0], [3.0]], [0.0, 1.0, 2.0]), (2, 0)).y.flatten()
        tensor([2., 0.], dtype=torch.float64)
    """
    if rows == tuple(range(data.n)):
        return data
    index = list(rows)
    labels = None if data.labels is None else data.labels[index]
    shape = data.image_shape if data.x.ndim == 2 else None
    return Dataset(data.x[index], data.y[index], labels, data.name, data.classes, shape)


def as_tokens(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A hook before a module's forward that gives it whole numbers for its inputs.

    Args:
        arguments: of the forward; the first are the inputs.

    Returns:
        The same, the inputs as integers.
    """
    return (arguments[0].long(), *arguments[1:])


def _check_weights(module: nn.Module) -> None:
    if not any(p.requires_grad for p in module.parameters()):
        raise ArgumentError("module", "has no trainable parameter", "set requires_grad=True on the layers to be trained")
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if isinstance(tensor, nn.UninitializedParameter | nn.UninitializedBuffer):
            raise ArgumentError("module", f"has {name!r}, which is not initialised yet", "run the module once on some rows")
        if tensor.is_complex():
            raise ArgumentError("module", f"has {name!r} of dtype {tensor.dtype}", "pass real weights")
        if (
            tensor.is_floating_point()
            and not bool((finite := torch.isfinite(tensor)).all())
            and name.rpartition(".")[2] != "mask"
        ):
            bad = int((~finite).sum())
            if isinstance(tensor, nn.Parameter):
                raise ArgumentError(
                    "module", f"has NaN or infinity in {name!r} ({bad} of {tensor.numel()} entries)", "start from finite weights"
                )


def _put_to_rest(module: nn.Module) -> Iterator[Finding]:
    """Eval mode, with a word on the layers that behave otherwise in training."""
    normed, dropped = [], []
    for name, layer in module.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training and layer.running_mean is not None:
            normed.append(name)
        dropping = isinstance(layer, nn.modules.dropout._DropoutNd) or type(layer).__name__ == "MultiheadAttention"
        if dropping and layer.training and float(getattr(layer, "p", getattr(layer, "dropout", 0.0))) > 0:
            dropped.append(name)
    module.eval()
    if normed:
        yield Finding(
            Severity.NOTICE,
            "BatchNorm at rest",
            f"{listed([repr(n) for n in normed])} mix{'es' if len(normed) == 1 else ''} samples in training mode; measured "
            "in eval mode, "
            "with the running statistics as they are, so the numbers hold for training with these statistics frozen.",
            {"layers": len(normed)},
        )
    if dropped:
        yield Finding(
            Severity.NOTICE,
            "Dropout off",
            f"{listed([repr(n) for n in dropped])} {'is' if len(dropped) == 1 else 'are'} random in training mode; measured "
            "in eval mode, "
            "without dropping anything.",
            {"layers": len(dropped)},
        )


def _fitting(module: nn.Module, data: Dataset, rows: tuple[int, ...], notes: list[Finding]) -> Dataset:
    """The data in a shape that the module takes, the module put into float64 where it runs in that."""
    shapes = [data]
    if data.x.ndim == 4:
        shapes.append(data.as_rows())
    elif data.image_shape is not None:
        shapes.append(data.as_images())
    narrow = [(tensor, tensor.dtype) for tensor in (*module.parameters(), *module.buffers()) if tensor.is_floating_point()]
    dtypes = {dtype for _, dtype in narrow}
    errors = []
    for wide in (True, False):
        if wide:
            module.double()
        else:  # some forward passes insist on their own dtype
            for tensor, dtype in narrow:
                tensor.data = tensor.data.to(dtype)
        for shaped in shapes:
            try:
                _run(module, take(shaped, rows[:2]).x)
            except Exception as error:  # a user's forward may raise anything
                errors.append(error)
                continue
            if not wide:
                notes.append(
                    Finding(
                        Severity.NOTICE,
                        "Not in float64",
                        f"The module runs only in {listed(sorted(map(str, dtypes)))}, so was measured in it.",
                    )
                )
            return shaped
        if dtypes == {torch.float64}:
            break
    if bool((data.x == data.x.round()).all()):  # whole numbers may be tokens, which an embedding takes as integers only
        module.register_forward_pre_hook(as_tokens)
        try:
            _run(module, take(data, rows[:2]).x)
            return data
        except Exception as error:
            errors.append(error)
    seen = f"fails on {tuple(data.x[:2].shape)} rows of the data ({_first_line(errors[0])})"
    raise ArgumentError("module", seen, "pass data of the shape that it takes") from errors[0]


def _run(module: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return rows_of(module(own_copy(match(module, x))), len(x))


def _check_outputs(outputs: Tensor, sample: Dataset, again: Tensor) -> None:
    k = outputs.shape[1]
    if k != sample.outputs:
        raise ArgumentError(
            "data",
            f"has {count(sample.outputs, 'target')} a row, but the module gives {count(k, 'output')}",
            "make them agree in number",
        )
    if not bool((finite := torch.isfinite(outputs)).all()):
        row = int((~finite).any(dim=1).nonzero()[0])
        raise ArgumentError("module", f"gives NaN or infinity (first: row {row})", "check its weights and the scale of the data")
    if not torch.equal(outputs, again):
        raise ArgumentError(
            "module", "gives other outputs when it runs again in eval mode", "take the randomness out of its forward"
        )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
