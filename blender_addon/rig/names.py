"""What the names of bones tell, in the conventions of Rigify, Mixamo, Unreal, VRM, glTF and FBX rigs."""

from __future__ import annotations

import re
from functools import lru_cache

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

_FACE = frozenset(
    "face facial eye eyes lid lids brow brows jaw lip lips mouth teeth tooth tongue cheek cheeks chin nose "
    "nostril nostrils temple forehead ear ears muzzle snout whisker whiskers beak hair bangs beard "
    "mane".split()
)
_FACE_STEMS = re.compile(
    r"eye|(?<!l)brow|jaw|teeth|tooth|tongue|cheek|nostril|mouth|nose|forehead|^(upper|lower)lip"
)
_DIGIT = frozenset(
    "finger fingers thumb pinky pinkie palm metacarpal metacarpals digit claw claws feather feathers".split()
)
_DIGIT_STEMS = re.compile(r"finger|thumb|pinky|pinkie|metacarp")
_DIGIT_AMONG_OTHERS = frozenset("index middle mid ring little toe toes".split())
_HELPER = frozenset(
    "twist roll helper corrective jiggle muscle breast bust boob belly volume socket attach skirt cloth cape "
    "ribbon".split()
)
_HELPER_STEMS = re.compile(r"twist|breast")
_TRUNK = frozenset("pelvis chest rib ribs ribcage".split())
_CONTROL = frozenset("ik pole target targets ctrl ctl control mch org wgt widget tweak handle master".split())
_ROOT = frozenset("root armature world global origin reference motion master".split())
_FILLER = frozenset("b bone joint jnt def node rig skeleton bip".split())
_END = frozenset("end nub tip site effector".split())
_SIDE = frozenset("l r left right".split())
_SIDE_STEMS = re.compile(r"^(left|right)")


@lru_cache(maxsize=4096)
def words(name: str) -> frozenset[str]:
    """The lower-case words and numbers in a name: "b_LeftForeArm_010" has b, left, fore, arm and 010."""
    return frozenset(word.lower() for word in _WORD.findall(name))


def _matches(name: str, exact: frozenset[str], stems: re.Pattern | None = None) -> bool:
    found = words(name)
    return bool(found & exact) or (stems is not None and any(stems.search(word) for word in found))


def is_face(name: str) -> bool:
    """Part of a face, or hair."""
    return _matches(name, _FACE, _FACE_STEMS)


def is_digit(name: str) -> bool:
    """A finger, a thumb, the palm of one, a claw or a feather."""
    return _matches(name, _DIGIT, _DIGIT_STEMS)


def may_be_digit(name: str) -> bool:
    """A finger or toe if it has others of its kind beside it."""
    return is_digit(name) or _matches(name, _DIGIT_AMONG_OTHERS)


def is_helper(name: str) -> bool:
    """Corrects or follows the flesh of another bone, or carries cloth: no limb of its own."""
    return _matches(name, _HELPER, _HELPER_STEMS)


def is_control(name: str) -> bool:
    return _matches(name, _CONTROL)


def is_root(name: str) -> bool:
    """Stands for the whole rig and for nothing of the body, as "_rootJoint" does."""
    found = {word for word in words(name) if not word.isdigit()}
    return bool(found & _ROOT) and found <= _ROOT | _FILLER


def is_end(name: str) -> bool:
    """A joint that only marks where its parent ends."""
    return _matches(name, _END)


def is_bulk(name: str) -> bool:
    """Fills out the trunk or the skull when it leads nowhere."""
    return _matches(name, _TRUNK) or ("skull" in words(name) and is_sided(name))


def is_sided(name: str) -> bool:
    """Of the left or the right half of the body."""
    return _matches(name, _SIDE, _SIDE_STEMS)
