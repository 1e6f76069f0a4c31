"""Texts in the language that the user has chosen in Blender's preferences.

A language is a module beside this one, named by its code: a table `TEXTS` from the English text to its own. A
text that means two things has a second entry with the context of one of them, ("Operator", text).
"""

from __future__ import annotations

import inspect
import sys

import bpy

from . import Headline, Sentence, de, say

LANGUAGES = {"de_DE": de.TEXTS}
CONTEXT = "PoseAnything"
"""Of all names and sentences: Blender has some of the same words, and means other things by them."""
CONTEXTS = (CONTEXT, "*", "Operator")
"""Where Blender looks texts up: tooltips and labels have no context of ours."""
_KINDS = (
    bpy.types.Operator,
    bpy.types.Panel,
    bpy.types.Menu,
    bpy.types.PropertyGroup,
    bpy.types.AddonPreferences,
)
_PACKAGE = __package__.rpartition(".")[0]


def shown(text: object) -> str:
    """A text, or an error's, in the user's language; English where that has none."""
    text = str(text)
    if isinstance(text, Headline):
        return shown(text.sentence).rstrip(".")
    if isinstance(text, Sentence):
        values = {
            name: shown(v) if isinstance(v, Sentence | Headline) else v for name, v in text.values.items()
        }
        return _translate(text.template).format(**values)
    return _translate(text)


def tell(template: str, /, **values: object) -> str:
    """`say`, in the user's language."""
    return shown(say(template, **values))


def _translate(text: str) -> str:
    return bpy.app.translations.pgettext_iface(text, CONTEXT)


def in_context(cls: type) -> None:
    """Have the names of a class and of its properties looked up in our context; before it is registered."""
    cls.bl_translation_context = CONTEXT
    for base in cls.__mro__:
        if base.__module__.startswith(_PACKAGE) and "__annotations__" in vars(base):
            base.__annotations__ = inspect.get_annotations(base, eval_str=True)
            for deferred in base.__annotations__.values():
                if hasattr(deferred, "keywords"):
                    deferred.keywords.setdefault("translation_context", CONTEXT)


def _table(texts: dict[str | tuple[str, str], str]) -> dict[tuple[str, str], str]:
    """A language's texts by context and English text, as Blender has them."""
    everywhere = {
        (context, english): own
        for english, own in texts.items()
        if isinstance(english, str)
        for context in CONTEXTS
    }
    return everywhere | {key: own for key, own in texts.items() if isinstance(key, tuple)}


def register() -> None:
    for kind in _KINDS:
        for cls in kind.__subclasses__():
            # An extension that was installed over an older one finds that one's classes too.
            home = sys.modules.get(cls.__module__) if cls.__module__.startswith(_PACKAGE) else None
            if getattr(home, cls.__name__, None) is cls:
                in_context(cls)
    bpy.app.translations.register(_PACKAGE, {code: _table(texts) for code, texts in LANGUAGES.items()})


def unregister() -> None:
    bpy.app.translations.unregister(_PACKAGE)
