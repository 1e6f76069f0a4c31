"""The guiders by name: every module of this package is looked through for them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from shared.engines import Guidance, GuiderDescription, check_values

from .base import Guider


@cache
def guiders() -> dict[str, type[Guider]]:
    """All guiders by name, the cheapest first."""
    package = __name__.rpartition(".")[0]
    modules = [
        import_module(f"{package}.{module.name}") for module in iter_modules(import_module(package).__path__)
    ]
    found = [
        item
        for module in modules
        for item in vars(module).values()
        if inspect.isclass(item) and issubclass(item, Guider) and item.__module__ == module.__name__
    ]
    found = [cls for cls in found if not inspect.isabstract(cls)]
    return {cls.name: cls for cls in sorted(found, key=lambda cls: (len(cls.predictions), cls.name))}


def describe_guiders(config: Mapping[str, Any] = {}) -> tuple[GuiderDescription, ...]:
    """What each says of itself, with a checkpoint of this configuration."""
    return tuple(cls.describe(config) for cls in guiders().values())


def find_guider(name: str) -> type[Guider]:
    """The guider of a name. Raises `ValueError`."""
    if name not in guiders():
        raise ValueError(f"There is no guider {name!r}; choose one of {', '.join(guiders())}.")
    return guiders()[name]


def make_guider(guidance: Guidance, config: Mapping[str, Any] = {}) -> Guider:
    """The guider for a request's `Guidance`. Parameters that it leaves out have the defaults of a checkpoint
    of this configuration.

    Raises:
        ValueError: there is none of this name or with these parameters, the interval is empty, or
            classifier-free guidance negates nothing.
    """
    cls = find_guider(guidance.guider)
    parameters = check_values(guidance.parameters, cls.parameters(config), cls.label)
    return cls(**parameters, start=guidance.start, stop=guidance.stop)
