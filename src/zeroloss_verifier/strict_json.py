"""JSON as certificates are written: no duplicate keys, no floating-point literals, no special numbers, little nesting."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import NoReturn

from zeroloss_verifier.outcome import RejectedError

DEEPEST = 64
LONGEST_INTEGER = 18
_HEX = re.compile(r"-?0x[01]\.[0-9a-f]{1,13}p[+-][0-9]{1,4}")


def read_json(raw: bytes, where: str) -> object:
    """The value that the bytes hold.

    Args:
        raw: UTF-8 text.
        where: the file's name, for the reason.

    Returns:
        Dictionaries, lists, strings, integers, booleans and None.

    Raises:
        RejectedError: for anything that a certificate's writer does not write.

    Example:
        >>> read_json(b'{"a": [1, null]}', "x.json")
        {'a': [1, None]}
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise RejectedError(f"{where} is not UTF-8 text") from None
    _refuse_depth(text, where)

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        made = dict(items)
        if len(made) != len(items):
            raise RejectedError(f"{where} has the same key twice in one object")
        return made

    def special(word: str) -> NoReturn:
        raise RejectedError(f"{where} holds {word}, which is not a number")

    def floating(word: str) -> NoReturn:
        raise RejectedError(f"{where} holds the decimal number {word[:40]}; real numbers are written as hexadecimal strings")

    def integer(word: str) -> int:
        if len(word) > LONGEST_INTEGER:
            raise RejectedError(f"{where} holds an integer of {len(word)} digits")
        return int(word)

    try:
        value: object = json.loads(text, object_pairs_hook=pairs, parse_constant=special, parse_float=floating, parse_int=integer)
    except (json.JSONDecodeError, RecursionError) as error:
        raise RejectedError(f"{where} is not JSON: {error}") from None
    return value


def _refuse_depth(text: str, where: str) -> None:
    # brackets inside strings count too: no string of a certificate needs that many
    depth = 0
    for character in re.findall(r"[\[\]{}]", text):
        depth += 1 if character in "[{" else -1
        if depth > DEEPEST:
            raise RejectedError(f"{where} is nested more than {DEEPEST} deep")


def an_object(value: object, where: str, required: Iterable[str], optional: Iterable[str] = ()) -> dict[str, object]:
    """The dictionary, with all the required keys and no unknown one.

    Raises:
        RejectedError: where it is not.

    Example:
        >>> an_object({"a": 1}, "it", ["a"])
        {'a': 1}
    """
    if not isinstance(value, dict):
        raise RejectedError(f"{where} is not an object")
    required = tuple(required)
    for key in required:
        if key not in value:
            raise RejectedError(f"{where} has no {key!r}")
    known = {*required, *optional}
    for key in value:
        if key not in known:
            raise RejectedError(f"{where} has the unknown key {str(key)[:60]!r}")
    return value


def a_string(value: object, where: str) -> str:
    """The string; rejected where it is none."""
    if not isinstance(value, str):
        raise RejectedError(f"{where} is not a string")
    return value


def a_list(value: object, where: str) -> list[object]:
    """The list; rejected where it is none."""
    if not isinstance(value, list):
        raise RejectedError(f"{where} is not a list")
    return value


def a_count(value: object, where: str, least: int = 0) -> int:
    """The whole number; rejected where it is none (a boolean is none) or below the least."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise RejectedError(f"{where} is not a whole number")
    if value < least:
        raise RejectedError(f"{where} is {value}, below {least}")
    return value


def a_real(value: object, where: str, *, least: float = -math.inf) -> float:
    """The binary64 number behind its one hexadecimal spelling, that of ``float.hex``.

    Raises:
        RejectedError: for another spelling, infinities, NaN, or a number below the least.

    Example:
        >>> a_real("0x1.8000000000000p+0", "it")
        1.5
    """
    text = a_string(value, where)
    if not _HEX.fullmatch(text):
        raise RejectedError(f"{where} is {text[:40]!r}, not a hexadecimal number")
    try:
        number = float.fromhex(text)
    except (ValueError, OverflowError):
        raise RejectedError(f"{where} is {text!r}, which no binary64 number is") from None
    if number.hex() != text or not math.isfinite(number):
        raise RejectedError(f"{where} is {text!r}, which is not how that number is spelled")
    if number < least:
        raise RejectedError(f"{where} is {number!r}, below {least!r}")
    return number
