"""Validation of the values of settings."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral, Real

__all__ = ["check_choice", "check_number"]


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Checks that a setting, such as "MODEL.LFFD.BOX_LOSS", has one of its values.

    Raises:
        ValueError: the value is not allowed; the message names the setting and the choices.
    """
    allowed = list(choices)
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; expected one of {allowed}")


def check_number(name: str, value: object, lowest: float, *, whole: bool = False) -> None:
    """Checks that a setting is a number of at least ``lowest``.

    Args:
        whole: only whole numbers are allowed.

    Raises:
        TypeError: the value is not a number, or not a whole one.
        ValueError: the value is below ``lowest`` or NaN.
    """
    if not isinstance(value, Integral if whole else Real) or isinstance(value, bool):
        kind = "whole number" if whole else "number"
        raise TypeError(f"{name} is {value!r}; expected a {kind} of at least {lowest}")
    if not float(value) >= lowest:  # also refuses NaN
        raise ValueError(f"{name} is {value}; expected at least {lowest}")
