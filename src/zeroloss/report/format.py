"""Numbers to text, the same everywhere in a report: three significant digits, thousands separated, powers of ten written out."""

from __future__ import annotations

import math

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
NOTHING = "—"


def power(exponent: int) -> str:
    """A power of ten.

    Args:
        exponent: any integer.

    Returns:
        ``10`` with a raised exponent.

    Example:
        >>> power(-9)
        '10⁻⁹'
    """
    return "10" + str(exponent).translate(_RAISED)


def number(value: float | None) -> str:
    """A measured quantity with three significant digits.

    Args:
        value: any float; None where there is none.

    Returns:
        The text: plain from a thousandth to a million, a power of ten outside; words for what is not a number.

    Example:
        >>> [number(v) for v in (49812.0, 0.5, 1e-9, 2.5e-8, 0.0, float("inf"), float("nan"), None)]
        ['49,800', '0.500', '10⁻⁹', '2.50×10⁻⁸', '0', '∞', 'not a number', '—']
    """
    if value is None:
        return NOTHING
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    digits, _, exponent = f"{abs(value):.2e}".partition("e")
    sign, e = "−" if value < 0 else "", int(exponent)
    if -3 <= e < 6:
        return sign + f"{float(f'{digits}e{e}'):,.{max(0, 2 - e)}f}"
    return sign + (power(e) if digits == "1.00" else f"{digits}×{power(e)}")


def integer(value: int | None) -> str:
    """A count, all its digits.

    Args:
        value: the count; None where there is none.

    Returns:
        The text.

    Example:
        >>> integer(1050624)
        '1,050,624'
    """
    return NOTHING if value is None else f"{value:,}".replace("-", "−")


def forecast_steps(value: int | None) -> str:
    """A predicted number of steps.

    Args:
        value: the number; None where the target is never reached.

    Returns:
        The text.

    Example:
        >>> forecast_steps(987), forecast_steps(None)
        ('987', 'never')
    """
    return "never" if value is None else integer(value)


def interval(ends: tuple[float, float] | None) -> str:
    """A 95 % interval.

    Args:
        ends: lower and upper end; None where there is none.

    Returns:
        The text.

    Example:
        >>> interval((0.9, 1.25))
        '[0.900, 1.25]'
    """
    return NOTHING if ends is None else f"[{number(ends[0])}, {number(ends[1])}]"


def percent(fraction: float) -> str:
    """A fraction as a percentage.

    Args:
        fraction: 0 to 1.

    Returns:
        The text.

    Example:
        >>> percent(0.0321)
        '3.21 %'
    """
    return f"{number(100 * fraction)} %" if math.isfinite(fraction) else number(fraction)


def plural(count: int, one: str, many: str = "") -> str:
    """A count with its noun.

    Args:
        count: how many.
        one: the noun for 1.
        many: the noun for any other count; ``one`` with an s where left out.

    Returns:
        The text.

    Example:
        >>> plural(1, "network"), plural(3, "network")
        ('1 network', '3 networks')
    """
    return f"{integer(count)} {one if count == 1 else many or one + 's'}"
