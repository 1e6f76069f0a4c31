"""What the names of bones hint at, in the conventions of Rigify, Mixamo, Unreal, VRM, MMD, glTF and FBX rigs.

A hint only: flesh, motion and structure go before it (see `choice`). Words are matched whole where a script
sets them apart, and as parts of a name where it does not (Japanese, Chinese, Korean) or where they inflect.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+")


def _plain(text: str) -> str:
    """Without accents and full-width letters; the marks of kana stay."""
    apart = unicodedata.normalize("NFKD", text)
    return unicodedata.normalize("NFC", re.sub("[\u0300-\u036f]", "", apart))


def _words(text: str) -> frozenset[str]:
    return frozenset(_plain(text).split())


def _stems(*texts: str) -> re.Pattern:
    return re.compile("|".join(word for text in texts for word in _plain(text).split()))


_FACE = _words(
    "face facial eye eyes lid lids brow brows jaw lip lips mouth teeth tooth tongue cheek cheeks chin nose "
    "nostril nostrils temple forehead ear ears muzzle snout whisker whiskers beak "
    "ojo ojos boca lengua nariz oreja cara oeil yeux bouche langue nez oreille visage auge augen mund zunge "
    "nase ohr ohren gesicht olho olhos lingua orelha occhio occhi bocca naso orecchio"
)
_FACE_STEMS = _stems(
    "eye (?<!l)brow jaw teeth tooth tongue cheek nostril mouth nose forehead ^(upper|lower)lip mandib kiefer",
    "目 眼 瞳 眉 口 舌 歯 顎 鼻 頬 耳 唇 牙 脸 脸 颌 눈 눈썹 입 턱 코 귀 глаз бров челюст язык рот "
    "губ нос ухо уши",
)
_HAIR = _words(
    "hair bangs bang fringe beard mane ponytail pigtail pigtails twintail braid braids bun buns ahoge "
    "moustache mustache cabello pelo cheveux cheveu haar haare zopf cabelo capelli"
)
_HAIR_STEMS = _stems(
    "hair ponytail pigtail twintail", "髪 髮 发 毛 おさげ ツインテ ポニテ 머리카락 волос коса"
)
_CLOTH = _words(
    "skirt cloth clothes cape cloak ribbon ribbons scarf shawl bow tie necktie dress coat jacket sleeve "
    "sleeves hem hood belt strap straps tassel flap frill sash veil hat cap collar robe apron earring "
    "earrings necklace accessory accessories falda capa bufanda lazo jupe manteau echarpe noeud rock mantel "
    "schal schleife umhang saia cachecol gonna mantello sciarpa fiocco"
)
_CLOTH_STEMS = _stems(
    "skirt scarf necktie ribbon", "スカート 裙 リボン 袖 マント 裾 ネクタイ マフラー 帯 치마 юбк плащ шарф"
)
_DIGIT = _words(
    "finger fingers thumb thumbs pinky pinkie palm metacarpal metacarpals phalanx digit claw claws feather "
    "feathers dedo dedos pulgar doigt doigts pouce daumen polegar dito dita pollice"
)
_DIGIT_STEMS = _stems("finger thumb pinky pinkie metacarp phalan", "指 손가락 палец пальц")
_DIGIT_AMONG_OTHERS = frozenset("index middle mid ring little toe toes big".split())
_HELPER = _words(
    "twist roll helper corrective correction fix adjust jiggle muscle bicep biceps tricep triceps deltoid "
    "breast boob boobs bust belly volume socket attach attachment holder physics spring dynamic pectoral "
    "glute buttock"
)
_HELPER_STEMS = _stems("twist breast corrective", "捩 補助 乳 おっぱい 가슴 груд")
_TRUNK = _words("pelvis chest rib ribs ribcage")
_CONTROL = _words(
    "ik fk pole target targets goal ctrl ctl control controller mch org wgt widget tweak handle master props "
    "roll_control"
)
_CONTROL_STEMS = _stems("操作", "контрол")
_ROOT = _words("root armature world global origin reference motion master raiz racine wurzel radice")
_ROOT_STEMS = _stems("全ての親 センター グルーブ 操作中心 루트 корень")
_FILLER = frozenset("b bone joint jnt def node rig skeleton bip".split())
_END = frozenset("end nub site effector".split())
_END_STEMS = _stems("先$")
_TIP = frozenset({"tip"})
_SIDE = frozenset("l r left right lf rt lt izq der izquierda derecha gauche droite links rechts".split())
_SIDE_STEMS = _stems("^(left|right)", "左 右 왼 오른 ^лев ^прав izquierd derech esquerd direit sinistr destr")
_LEFT = frozenset("l left lf lt izq izquierda gauche links".split())
_LEFT_STEMS = _stems("^left", "左 왼 ^лев izquierd esquerd sinistr")
_RIGHT = frozenset("r right rt der derecha droite rechts".split())
_RIGHT_STEMS = _stems("^right", "右 오른 ^прав direit destr")
_WING = _words("wing wings ala alas aile ailes flugel asa asas pinion")
_WING_STEMS = _stems("翼 羽 翅 날개 крыл")
_EYE = _words("eye eyes eyeball ojo ojos oeil yeux auge augen olho olhos occhio occhi")
_EYE_STEMS = _stems("目 眼 瞳 눈 глаз")
_NEAR_EYE = _words("lid lids brow brows lash target aim master lookat")
_NEAR_EYE_STEMS = _stems("lid brow lash", "両 光")
_FINGERS = tuple(
    _stems(each)
    for each in (
        "thumb pollex 親指 拇 엄지 pulgar pouce daumen polegar pollice",
        "index 人指 人差 食指 검지 zeigefinger",
        "middle mid 中指 중지 mittelfinger",
        "ring 薬指 无名 無名 약지",
        "pinky pinkie little 小指 새끼",
    )
)
_LEFT_RIGHT = (("left", "right"), ("l", "r"), ("左", "右"), ("lf", "rt"), ("왼", "오른"))


@lru_cache(maxsize=4096)
def words(name: str) -> frozenset[str]:
    """The lower-case words and numbers in a name: "b_LeftForeArm_010" has b, left, fore, arm and 010."""
    return frozenset(word.lower() for word in _WORD.findall(_plain(name)))


@lru_cache(maxsize=1 << 14)
def _matches(name: str, exact: frozenset[str], stems: re.Pattern | None = None) -> bool:
    found = words(name)
    return bool(found & exact) or (stems is not None and any(stems.search(word) for word in found))


def is_face(name: str) -> bool:
    """Part of a face."""
    return _matches(name, _FACE, _FACE_STEMS)


def is_ear(name: str) -> bool:
    return _matches(name, frozenset({"ear", "ears"}))


def is_adornment(name: str) -> bool:
    """Hair, cloth or jewellery. A left or right collar is none: motion capture calls a clavicle so."""
    if words(name) & {"collar"} and is_sided(name):
        return False
    return _matches(name, _HAIR, _HAIR_STEMS) or _matches(name, _CLOTH, _CLOTH_STEMS)


def is_digit(name: str) -> bool:
    """A finger, a thumb, the palm of one, a claw or a feather."""
    return _matches(name, _DIGIT, _DIGIT_STEMS)


def is_feather(name: str) -> bool:
    return _matches(name, frozenset({"feather", "feathers"}))


def may_be_digit(name: str) -> bool:
    """A finger or toe if it has others of its kind beside it."""
    return is_digit(name) or _matches(name, _DIGIT_AMONG_OTHERS)


def is_helper(name: str) -> bool:
    """Corrects or follows the flesh of another bone: no limb of its own."""
    return _matches(name, _HELPER, _HELPER_STEMS) or (is_sided(name) and any("胸" in w for w in words(name)))


def is_control(name: str) -> bool:
    return _matches(name, _CONTROL, _CONTROL_STEMS)


def is_root(name: str) -> bool:
    """Stands for the whole rig and for nothing of the body, as "_rootJoint" does."""
    found = {word for word in words(name) if not word.isdigit()}
    if any(_ROOT_STEMS.search(word) for word in found):
        return True
    return bool(found & _ROOT) and found <= _ROOT | _FILLER


def is_end(name: str) -> bool:
    """A joint that only marks where its parent ends."""
    return _matches(name, _END, _END_STEMS)


def may_be_end(name: str) -> bool:
    """One that marks an end unless it is as long as a limb."""
    return is_end(name) or _matches(name, _TIP)


def is_wing(name: str) -> bool:
    return _matches(name, _WING, _WING_STEMS)


def is_eye(name: str) -> bool:
    """An eyeball, and not the lids or brows around it."""
    return _matches(name, _EYE, _EYE_STEMS) and not _matches(name, _NEAR_EYE, _NEAR_EYE_STEMS)


def finger_of(name: str) -> int | None:
    """0 for the thumb to 4 for the little finger, where the name says so."""
    return next((index for index, stems in enumerate(_FINGERS) if stems.search(_plain(name).lower())), None)


def side_of(name: str) -> int:
    """1 for the left, -1 for the right half of the body, 0 where the name does not say."""
    found = words(name)
    for side, exact, stems in ((1, _LEFT, _LEFT_STEMS), (-1, _RIGHT, _RIGHT_STEMS)):
        if found & exact or any(stems.search(word) for word in found):
            return side
    return 0


def is_bulk(name: str) -> bool:
    """Fills out the trunk or the skull when it leads nowhere."""
    return _matches(name, _TRUNK) or ("skull" in words(name) and is_sided(name))


def is_sided(name: str) -> bool:
    """Of the left or the right half of the body."""
    return _matches(name, _SIDE, _SIDE_STEMS)


def unsided(name: str) -> str:
    """A name that a bone and its mirror image share."""
    found = [word.lower() for word in _WORD.findall(_plain(name))]
    for index, word in enumerate(found):
        for left, right in _LEFT_RIGHT:
            if word in (left, right):
                found[index] = "*"
            elif len(left) > 1 or not left.isascii():
                for side in (left, right):
                    if word.startswith(side):
                        found[index] = "*" + word[len(side) :]
    return "_".join(found)
