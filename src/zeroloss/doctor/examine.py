"""The examination: a module, its data and perhaps a step in, a diagnosis out; the module is left as it was, to the bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import nn

from zeroloss.data import Dataset
from zeroloss.doctor.diagnosis import Diagnosis
from zeroloss.doctor.finding import Finding, Severity, ordered
from zeroloss.doctor.geometry import PAIRS, data_findings
from zeroloss.doctor.layers import layer_findings, layer_health
from zeroloss.doctor.modes import Forecast, decompose, forecast_of
from zeroloss.doctor.outlook import Curve, Decade, at_step, curve, decades
from zeroloss.doctor.slow import HORIZON, LATEST, slow_directions, slow_samples
from zeroloss.doctor.stepping import recommend, step_findings
from zeroloss.doctor.subject import Subject, admit
from zeroloss.doctor.tangent import full_gram, largest_over_rows
from zeroloss.doctor.trial import STEPS, Movement, Trial, try_steps
from zeroloss.doctor.verdicts import forecast_findings, regime_findings, slow_findings, spectrum_findings
from zeroloss.doctor.width import advise_width, rebuild, width_findings
from zeroloss.errors import ArgumentError
from zeroloss.training import Loss, StepVerdict, find_loss, step_verdict

BUDGET = 1500  # n·k of the Gram: seconds for its eigenvectors
WORK = 5e10  # rows times parameters times steps of the trial
FEWEST = 4  # steps of the trial whatever the work
NOTHING = Movement(0, 0.0, 0, (), math.nan, 0.0, 0.0, 0.0, math.nan)


def diagnose(
    module: nn.Module,
    data: Dataset,
    step: float | int | None = None,
    *,
    loss: str | Loss = "squared",
    build: Callable[[int], nn.Module] | None = None,
    width: int | None = None,
    budget: int = BUDGET,
    trial_steps: int = STEPS,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Diagnosis:
    r"""Say what stands between a network and zero training loss, before it is trained.

    Everything is for full-batch gradient descent on the summed loss, $\tfrac12\sum_i\|f(x_i)-y_i\|^2$ by default, at the weights as they
    are. A float64 copy in eval mode is examined, and a few real steps are taken on another copy: the module itself, its mode, its
    gradients and the random state are left untouched.

    Args:
        module: any module that gives one row of outputs a sample.
        data: inputs and targets, n×k like the outputs.
        step: $\eta$ to be judged, in the units of the summed loss (with a mean loss, multiply the learning rate accordingly; the
            diagnosis says how); None for no verdict.
        loss: a name in :data:`zeroloss.training.LOSSES`. The theory's forecasts are for the squared loss; for the others the run is
            forecast in the space of outputs, and a stable step is $2/(s\lambda_{\max})$ with s the loss's smoothness.
        build: from a width to a new network, for width advice; networks of this library's builders need none.
        width: the module's own width in ``build``'s terms.
        budget: the largest n·k whose Gram is formed; of more rows a random choice is measured, and the diagnosis says so.
        trial_steps: how many real steps show the regime; fewer are taken where they would take minutes.
        seed: of the choice of rows.
        progress: called with the name of every stage.

    Returns:
        The diagnosis; ``print`` it, or see its ``findings``.

    Raises:
        ArgumentError: for a module without trainable parameters or with weights that are not finite, one that fails on the data, and
            outputs that do not match the targets.

    Example:
        >>> from zeroloss.networks import fully_connected
        >>> rows = Dataset([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], [1.0, -1.0, -1.0])
        >>> result = diagnose(fully_connected(2, 64, 1), rows)
        >>> result.headline, [c.rows for c in result.conflicts], result.predicted_steps[1e-8]
        ('1 thing to mend: Conflicting labels', [(0, 2)], None)
    """
    _check(step, budget, trial_steps, build, width)
    tell = progress or (lambda _: None)
    devices = sorted({p.device.index for p in module.parameters() if p.is_cuda}) if isinstance(module, nn.Module) else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        tell("running the network")
        subject = admit(module, data, find_loss(loss), budget, seed)
        return _examine(subject, None if step is None else float(step), _builder(module, build, width), trial_steps, tell)


def _examine(
    subject: Subject,
    step: float | None,
    builder: tuple[Callable[[int, int], nn.Module] | None, int],
    trial_steps: int,
    tell: Callable[[str], None],
) -> Diagnosis:
    data, loss = subject.data, subject.loss
    scale = data.n / subject.sample.n
    tell(f"forming the Gram of {subject.sample.n} rows")
    gram = full_gram(subject.module, subject.sample.x)
    if not bool(torch.isfinite(gram).all()):
        raise ArgumentError("module", "has gradients that are NaN or infinite", "check the scale of its weights and of the data")
    tell("taking it apart")
    modes = decompose(gram, scale)
    largest, exact = modes.largest, True
    if not subject.whole and largest > 0:
        tell(f"finding the largest eigenvalue over {data.n} rows")
        largest, exact = largest_over_rows(subject.module, data.x, largest / scale, subject.sample.n)
    values = loss.value(subject.outputs, subject.targets)
    first = float(values.sum())
    stable = 2 / (loss.smoothness * largest) if largest > 0 else math.inf

    def forecast(eta: float) -> Forecast:
        return forecast_of(gram, modes, subject.outputs, subject.targets, loss, eta, scale)

    trial: Trial | None = None
    if math.isfinite(stable) and first > 0:
        tell("taking a few real steps on a copy")
        steps = max(min(FEWEST, trial_steps), min(trial_steps, int(WORK / (subject.sample.n * subject.parameters))))
        trial = try_steps(subject, gram, stable / 2, lambda eta, k: forecast(eta).losses([k])[0], steps, scale)
    movement = trial.movement if trial else NOTHING
    recommended = recommend(stable, movement, loss.smoothness) if math.isfinite(stable) else None
    verdict = None if step is None or recommended is None else step_verdict(step, 2 / stable)
    chosen = step if verdict is StepVerdict.STABLE else recommended
    tell("forecasting")
    eta = chosen or 1.0
    start = forecast(eta)
    after = (
        forecast_of(trial.gram, trial.modes, trial.outputs, subject.targets, loss, eta, scale)
        if trial and movement.steps
        else start
    )
    retimed = _retimed(movement, eta)
    told = _told(subject, trial, forecast, (start, after), eta, scale, first)
    horizon = next((d.start for d in told if d.ratio == HORIZON and d.start is not None), None)
    if horizon is None:
        reached = [d.start for d in told if d.start is not None]
        horizon = max(reached) if reached else 1000
    horizon = min(horizon, LATEST)
    movement = replace(movement, ahead=_ahead(movement, forecast(movement.step), start.way(horizon)))
    directions = slow_directions(modes, subject, start, eta, horizon)
    samples = slow_samples(subject, start, horizon)
    tell("listening to the layers")
    before, saturations = layer_health(subject.module, subject.sample.x)
    later = layer_health(trial.module, subject.sample.x, probes=1)[0] if trial else before
    advice, why_not = None, "The width cannot be varied: pass build=, a function from width to network (in a file, build(width))."
    if builder[0] is not None:
        tell("trying other widths")
        try:
            advice = advise_width(subject, builder[0], builder[1])
        except ArgumentError as error:  # of one sentence among many; the others stand
            why_not = f"The width was not varied: {error}."
    floor = data.loss_floor / (first * scale) if loss.name == "squared" and first > 0 else 0.0
    share = modes.shares(start.signal(0))
    # of another loss the derivative turns as the outputs move, so that none of it is stuck: separable rows need no full rank
    stuck = float(share[modes.values == 0].sum()) - floor if loss.name == "squared" else 0.0

    def findings() -> Iterator[Finding]:
        yield from data_findings(subject, first * scale)
        yield from layer_findings(before, later, saturations, subject.sample.n, movement.steps)
        if recommended is not None:
            yield from step_findings(subject, step, stable, largest, recommended, movement)
        yield from spectrum_findings(subject, modes, stuck, scale)
        yield from subject.notes
        if not exact:
            yield Finding(
                Severity.NOTICE,
                "Largest eigenvalue scaled",
                f"λ_max = {largest:.3g} is that of {subject.sample.n:,} rows times {scale:.3g}, for the work over all rows "
                "would take "
                "minutes; on average this is too large rather than too small, so the stable step is on the safe side.",
                {"largest": largest, "scale": scale},
            )
        if first == 0:
            yield Finding(Severity.INFO, "Fitted", "The loss is 0 already.", {"loss": 0.0})
        elif recommended is not None:
            yield from regime_findings(movement, horizon)
            yield from forecast_findings(subject, told, eta, movement)
            yield from slow_findings(directions, samples, horizon)
        yield from _loss_findings(subject)
        yield from width_findings(advice, why_not)

    return Diagnosis(
        name=data.name,
        module=type(subject.module).__name__,
        loss=loss.name,
        rows=data.n,
        outputs=data.outputs,
        measured=subject.sample.n,
        parameters=subject.parameters,
        first_loss=first * scale,
        stable_step=stable,
        recommended_step=recommended,
        step=step,
        verdict=verdict,
        largest=largest,
        smallest=modes.smallest,
        condition=modes.condition,
        forecast_step=chosen,
        decades=told,
        horizon=horizon,
        directions=directions,
        samples=samples,
        conflicts=data.conflicts,
        loss_floor=data.loss_floor,
        duplicates=data.duplicates,
        separation=data.separation if data.n <= PAIRS else subject.sample.separation,
        regime=movement.regime,
        movement=movement,
        layers=before,
        saturations=saturations,
        width=advice,
        eigenvalues=tuple(modes.values.tolist()),
        energy=tuple(share.tolist()),
        curve=_curve(start, after, retimed, first, told, horizon),
        findings=ordered(findings()),
    )


def _told(
    subject: Subject,
    trial: Trial | None,
    forecast: Callable[[float], Forecast],
    asked: tuple[Forecast, Forecast],
    eta: float,
    scale: float,
    first: float,
) -> tuple[Decade, ...]:
    """The decades at the size of the real steps, and then at the one that is asked about."""
    if trial is None or not trial.movement.steps:
        return decades(*asked, trial.movement if trial else NOTHING, first)
    own = trial.movement.step
    if own == eta:
        return decades(*asked, trial.movement, first)
    after = forecast_of(trial.gram, trial.modes, trial.outputs, subject.targets, subject.loss, own, scale)
    return at_step(decades(forecast(own), after, trial.movement, first), *asked, trial.movement, eta, first)


def _curve(start: Forecast, after: Forecast, movement: Movement, first: float, told: tuple[Decade, ...], horizon: int) -> Curve:
    if first == 0:
        return Curve((0,), (0.0,), (0.0,), ())
    ends = [k for d in told for k in (d.start, d.steps) if k is not None]
    return curve(start, after, movement, first, max([*ends, horizon, movement.steps, 10]))


def _retimed(movement: Movement, eta: float) -> Movement:
    """The real steps as the same stretch of gradient flow in steps of another size, where theirs was not that."""
    if not movement.steps or movement.step == eta:
        return movement
    length = max(1, round(movement.steps * movement.step / eta))
    return replace(movement, steps=length, step=eta, losses=_stretched(movement.losses, length))


def _ahead(movement: Movement, start: Forecast, way: float) -> float:
    """The Gram's drift when the weights of the linearised network will have come that way, in proportion to that of the real steps."""
    come = start.way(movement.steps)
    return movement.gram_drift * way / come if come > 0 else 0.0


def _stretched(losses: tuple[float, ...], length: int) -> tuple[float, ...]:
    """The losses at so many points of the same stretch, in between by interpolation of their logarithms."""
    last = len(losses) - 1
    found = []
    for k in range(length + 1):
        at = k * last / length
        low = min(int(at), last - 1) if last else 0
        a, b, part = losses[low], losses[min(low + 1, last)], at - low
        found.append(math.exp((1 - part) * math.log(a) + part * math.log(b)) if a > 0 and b > 0 else b)
    return tuple(found)


def _loss_findings(subject: Subject) -> Iterator[Finding]:
    if subject.loss.name == "squared":
        return
    yield Finding(
        Severity.INFO,
        "Loss",
        f"The theory's rates are for the squared loss; for {subject.loss.name} the stable step uses its smoothness "
        f"{subject.loss.smoothness:g}, "
        "an upper bound that is loose once rows are fitted, and steps are forecast by running the linearised network.",
        {"smoothness": subject.loss.smoothness},
    )


def _builder(
    module: nn.Module, build: Callable[[int], nn.Module] | None, width: int | None
) -> tuple[Callable[[int, int], nn.Module] | None, int]:
    if build is None:
        made = rebuild(module)
        return made, int(getattr(module, "architecture").width) if made else 0  # noqa: B009
    assert width is not None

    def seeded(m: int, seed: int) -> nn.Module:
        torch.manual_seed(seed)  # inside fork_rng
        network = build(m)
        if not isinstance(network, nn.Module):
            raise ArgumentError("build", f"gives {type(network).__name__} at width {m}", "return a torch.nn.Module")
        return network

    return seeded, width


def _check(step: float | int | None, budget: int, trial_steps: int, build: object, width: int | None) -> None:
    if step is not None and (
        isinstance(step, bool) or not isinstance(step, int | float) or not (math.isfinite(step) and step > 0)
    ):
        raise ArgumentError("step", f"is {step!r}", "pass a positive number, or None")
    for name, value in (("budget", budget), ("trial_steps", trial_steps)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ArgumentError(name, f"is {value!r}", "pass a whole number of at least 1")
    if build is not None and (isinstance(width, bool) or not isinstance(width, int) or width < 1):
        raise ArgumentError("width", f"is {width!r}", "pass the module's own width beside build")
