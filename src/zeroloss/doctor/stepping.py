r"""The step: what is stable, what the user's own would do, and what to take instead."""

from __future__ import annotations

import math
from collections.abc import Iterator

from zeroloss.doctor.finding import Finding, Severity, count
from zeroloss.doctor.subject import Subject
from zeroloss.doctor.trial import Movement
from zeroloss.training import StepVerdict, step_verdict

TIMID = 0.02  # of the stable step: below it steps are wasted
SHARPER = 1.1  # growth of the largest eigenvalue that is worth a word


def step_findings(
    subject: Subject, step: float | None, stable: float, largest: float, recommended: float, trial: Movement
) -> Iterator[Finding]:
    r"""What is to be said of the step.

    Args:
        subject: for its loss and size.
        step: the user's, or None.
        stable: the stable limit at the weights as they are.
        largest: $\lambda_{\max}$ over all rows.
        recommended: the step to take.
        trial: the real steps.

    Yields:
        Findings.
    """
    smoothness = subject.loss.smoothness
    limit = "2/λ_max" if smoothness == 1 else f"2/({smoothness:g} λ_max)"
    if step is not None:
        verdict, times = step_verdict(step, 2 / stable), step / stable
        numbers = {"step": step, "stable_step": stable, "times": times, "largest": largest}
        # of other losses the curvature falls where they are steep, and the loss may swing or stall instead
        fate = (
            "expect it to diverge"
            if subject.loss.name == "squared"
            else "expect the loss to rise, and to swing, stall or diverge"
        )
        if verdict is StepVerdict.UNSTABLE:
            yield Finding(
                Severity.CRITICAL,
                "Step too large",
                f"Step {step:.3g} is {times:.3g} times the stable step {limit} = {stable:.3g} (λ_max = {largest:.3g}), past "
                "the catapult range too: "
                f"{fate}. Take {recommended:.3g}.",
                numbers,
            )
        elif verdict is StepVerdict.CATAPULT:
            yield Finding(
                Severity.CRITICAL,
                "Step too large",
                f"Step {step:.3g} is {times:.3g} times the stable step {limit} = {stable:.3g} (λ_max = {largest:.3g}): the "
                "loss grows at first. Up to "
                f"twice the stable step a wide network often flattens and converges from a fresh start (catapult range), a "
                "trained one leaves "
                f"its minimum. Take {recommended:.3g}.",
                numbers,
            )
        elif trial.steps and step * smoothness * trial.largest >= 2:
            yield Finding(
                Severity.SERIOUS,
                "Step too large",
                f"Step {step:.3g} is {times:.3g} times the stable step {limit} = {stable:.3g} at the start, but λ_max rose "
                f"from {largest:.3g} to "
                f"{trial.largest:.3g} within {count(trial.steps, 'step')}, and it is "
                f"{step * smoothness * trial.largest / 2:.3g} times the stable "
                f"step there. Take {recommended:.3g}.",
                numbers | {"later": trial.largest},
            )
        elif times < TIMID:
            yield Finding(
                Severity.NOTICE,
                "Small step",
                f"Step {step:.3g} is {1 / times:.3g} times smaller than the stable step {stable:.3g}: {recommended:.3g} takes "
                f"{recommended / step:.3g} times fewer steps.",
                numbers,
            )
        else:
            yield Finding(
                Severity.INFO, "Step", f"Step {step:.3g} is stable: {times:.3g} times the limit {limit} = {stable:.3g}.", numbers
            )
    if trial.steps and trial.halvings:
        yield Finding(
            Severity.NOTICE,
            "Sharp start",
            f"At half the stable step the loss still grew within {count(trial.steps, 'step')}; it fell throughout only at "
            f"{trial.step:.3g}, "
            f"{2 ** (trial.halvings + 1):,} times below the stable step.",
            {"step": trial.step, "halvings": trial.halvings},
        )
    if trial.steps and trial.largest > SHARPER * largest:
        yield Finding(
            Severity.NOTICE,
            "Sharpening",
            f"λ_max rose from {largest:.3g} to {trial.largest:.3g} within {count(trial.steps, 'step')}, so the stable step "
            "fell to "
            f"{2 / (smoothness * trial.largest):.3g}.",
            {"before": largest, "after": trial.largest},
        )
    n, k = subject.data.n, subject.data.outputs
    mean = (
        f"with nn.MSELoss() (the mean over {count(n * k, 'number')}) that is lr = {recommended * n * k / 2:.3g}"
        if subject.loss.name == "squared"
        else f"with a loss that is the mean over {count(n, 'row')} that is lr = {recommended * n:.3g}"
    )
    yield Finding(
        Severity.INFO,
        "Recommended step",
        f"λ_max = {largest:.3g}, so full-batch steps on the summed loss are stable below {limit} = {stable:.3g}; take "
        f"{recommended:.3g}. {mean[0].upper()}{mean[1:]}.",
        {"largest": largest, "stable_step": stable, "recommended_step": recommended},
    )


def recommend(stable: float, trial: Movement, smoothness: float) -> float:
    """Half the stable step, at the start and after the real steps, whichever is smaller; what the loss fell at where that is less.

    Args:
        stable: the limit at the start.
        trial: the real steps.
        smoothness: of the loss.

    Returns:
        The step.

    Example:
        >>> recommend(2.0, Movement(1, 1.0, 0, (1.0, 0.5), 0.5, 0.3, 0.0, 0.0, 4.0), 1.0)
        0.25
    """
    candidates = [stable / 2]
    if trial.steps:
        candidates += [trial.step, 1 / (smoothness * trial.largest) if trial.largest > 0 else math.inf]
    return min(candidates)
