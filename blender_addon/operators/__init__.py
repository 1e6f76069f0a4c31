"""Everything the buttons do."""

from . import colour, generate, server, takes

_MODULES = (generate, server, takes, colour)


def register() -> None:
    for module in _MODULES:
        module.register()


def unregister() -> None:
    for module in reversed(_MODULES):
        module.unregister()
