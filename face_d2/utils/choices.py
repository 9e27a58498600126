"""Validation of settings that have a fixed set of values."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["check_choice"]


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Checks that a setting, such as "MODEL.LFFD.BOX_LOSS", has one of its values.

    Raises:
        ValueError: the value is not allowed; the message names the setting and the choices.
    """
    allowed = list(choices)
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; expected one of {allowed}")
