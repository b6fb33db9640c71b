"""Values out of JSON, or a ``PromptError`` that names the field, its value and what is expected."""

import math
import numbers
import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from lib.errors import PromptError

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlevel = 3


def shown(value: Any) -> str:
    """The value as text for an error message, shortened: a request may be 50 MB."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python refuses to print integers of more than 4300 digits
        return f"a {type(value).__name__} too long to show"


def number(value: Any, name: str) -> float:
    """A finite number; booleans and numeric text are refused, for they are a client's mistake.

    Raises:
        PromptError: It is none.
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_):
        try:
            result = float(value)
        except OverflowError:
            result = math.inf
        if math.isfinite(result):
            return result
    raise PromptError(f"{name} is {shown(value)}; expected a finite number.")


def flag(value: Any, name: str) -> bool:
    """A yes or no; text is refused, for "false" would be a yes.

    Raises:
        PromptError: It is neither.
    """
    if isinstance(value, bool | np.bool_ | int) and value in (0, 1):
        return bool(value)
    raise PromptError(f"{name} is {shown(value)}; expected true or false.")


def sequence(value: Any, name: str, expected: str) -> Sequence[Any]:
    """The list itself, empty for None.

    Raises:
        PromptError: It is no list; the message says ``expected``.
    """
    if value is None:
        return []
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return value
    raise PromptError(f"{name} is {shown(value)}; expected {expected}.")


def vector(value: Any, name: str, lengths: tuple[int, ...], expected: str) -> tuple[float, ...]:
    """A list of finite numbers whose length is one of ``lengths``.

    Raises:
        PromptError: It is none; the message says ``expected``.
    """
    entries = sequence(value, name, expected)
    if len(entries) not in lengths or any(isinstance(entry, list | tuple | dict) for entry in entries):
        raise PromptError(f"{name} is {shown(value)}; expected {expected}.")
    return tuple(number(entry, f"{name}[{index}]") for index, entry in enumerate(entries))


def whole(value: Any, name: str) -> int:
    """A finite number, rounded to the nearest integer (halves go up).

    Raises:
        PromptError: It is no number.
    """
    return math.floor(number(value, name) + 0.5)
