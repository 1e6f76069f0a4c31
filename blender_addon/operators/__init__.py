"""Everything the buttons do."""

from . import colour, files, generate, limbs, server, takes

_MODULES = (generate, server, takes, colour, files, limbs)


def register() -> None:
    for module in _MODULES:
        module.register()


def unregister() -> None:
    for module in reversed(_MODULES):
        module.unregister()
