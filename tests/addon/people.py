"""One body as the conventions of several programs rig it: names, what hangs on what, helpers and ends."""

from __future__ import annotations

# Where the joints of a person of 1.8 m are, in metres: the left half, facing -y.
HIP, KNEE, ANKLE, BALL, TOE = (
    (0.1, 0, 0.95),
    (0.1, -0.02, 0.5),
    (0.1, 0.02, 0.09),
    (0.1, -0.12, 0.03),
    (0.1, -0.2, 0.03),
)
COLLAR, SHOULDER, ELBOW, WRIST = (0.03, 0, 1.45), (0.18, 0, 1.45), (0.46, 0.01, 1.45), (0.72, 0, 1.45)
PELVIS, WAIST, CHEST, NECK, HEAD, TOP = (
    (0, 0, 1.0),
    (0, 0, 1.12),
    (0, 0, 1.3),
    (0, 0.01, 1.5),
    (0, 0, 1.6),
    (0, 0, 1.8),
)
FINGERS = {
    finger: tuple((0.72 + out + k * step, y - k * aside, 1.45 - k * fall) for k in range(4))
    for finger, out, y, step, aside, fall in (
        ("thumb", 0.02, -0.03, 0.02, 0.025, 0.01),
        ("index", 0.09, -0.03, 0.03, 0.0, 0.0),
        ("middle", 0.095, -0.01, 0.032, 0.0, 0.0),
        ("ring", 0.09, 0.01, 0.03, 0.0, 0.0),
        ("little", 0.085, 0.03, 0.024, 0.0, 0.0),
    )
}

Bones = dict[str, tuple[tuple[float, ...], tuple[float, ...], str]]


def mirrored(half: Bones, left: str, right: str) -> Bones:
    """Both halves; in each name `*` stands for the side."""
    both = {}
    for side, x in ((left, 1), (right, -1)):
        for name, (head, tail, parent) in half.items():
            flipped = ((x * p[0], *p[1:]) for p in (head, tail))
            both[name.replace("*", side)] = (*flipped, parent.replace("*", side))
    return both


def fingers(names: dict[str, tuple[str, ...]], hand: str, ends: bool = False) -> Bones:
    bones = {}
    for finger, (*joints,) in names.items():
        places = FINGERS[finger]
        for k, name in enumerate(joints):
            after = places[min(k + 1, 3)]
            if k == 3:  # a joint that only marks the end
                after = tuple(p + 0.01 * (i == 0) for i, p in enumerate(places[3]))
            bones[name] = (places[k], after, joints[k - 1] if k else hand)
    return bones


def mixamo() -> Bones:
    m = "mixamorig:"
    spine = {
        f"{m}Hips": (PELVIS, WAIST, ""),
        f"{m}Spine": (WAIST, (0, 0, 1.2), f"{m}Hips"),
        f"{m}Spine1": ((0, 0, 1.2), CHEST, f"{m}Spine"),
        f"{m}Spine2": (CHEST, NECK, f"{m}Spine1"),
        f"{m}Neck": (NECK, HEAD, f"{m}Spine2"),
        f"{m}Head": (HEAD, TOP, f"{m}Neck"),
        f"{m}HeadTop_End": (TOP, (0, 0, 1.9), f"{m}Head"),
    }
    half = {
        f"{m}*UpLeg": (HIP, KNEE, f"{m}Hips"),
        f"{m}*Leg": (KNEE, ANKLE, f"{m}*UpLeg"),
        f"{m}*Foot": (ANKLE, BALL, f"{m}*Leg"),
        f"{m}*ToeBase": (BALL, TOE, f"{m}*Foot"),
        f"{m}*Toe_End": (TOE, (0.1, -0.25, 0.03), f"{m}*ToeBase"),
        f"{m}*Shoulder": (COLLAR, SHOULDER, f"{m}Spine2"),
        f"{m}*Arm": (SHOULDER, ELBOW, f"{m}*Shoulder"),
        f"{m}*ForeArm": (ELBOW, WRIST, f"{m}*Arm"),
        f"{m}*Hand": (WRIST, (0.8, 0, 1.45), f"{m}*ForeArm"),
        **fingers(
            {
                finger: tuple(f"{m}*Hand{word}{k}" for k in range(1, 5))
                for finger, word in zip(FINGERS, ("Thumb", "Index", "Middle", "Ring", "Pinky"), strict=True)
            },
            f"{m}*Hand",
        ),
    }
    return spine | mirrored(half, "Left", "Right")


def unreal() -> Bones:
    spine = {
        "root": ((0, 0, 0), (0, 0, 0.1), ""),
        "pelvis": (PELVIS, WAIST, "root"),
        "spine_01": (WAIST, CHEST, "pelvis"),
        "spine_02": (CHEST, NECK, "spine_01"),
        "neck_01": (NECK, HEAD, "spine_02"),
        "head": (HEAD, TOP, "neck_01"),
        "ik_foot_root": ((0, 0, 0), (0, 0.1, 0), "root"),
    }
    half = {
        "thigh_*": (HIP, KNEE, "pelvis"),
        "thigh_twist_01_*": (HIP, (0.1, -0.01, 0.7), "thigh_*"),
        "calf_*": (KNEE, ANKLE, "thigh_*"),
        "calf_twist_01_*": ((0.1, 0, 0.3), ANKLE, "calf_*"),
        "foot_*": (ANKLE, BALL, "calf_*"),
        "ball_*": (BALL, TOE, "foot_*"),
        "clavicle_*": (COLLAR, SHOULDER, "spine_02"),
        "upperarm_*": (SHOULDER, ELBOW, "clavicle_*"),
        "upperarm_twist_01_*": ((0.3, 0, 1.45), ELBOW, "upperarm_*"),
        "lowerarm_*": (ELBOW, WRIST, "upperarm_*"),
        "lowerarm_twist_01_*": ((0.6, 0, 1.45), WRIST, "lowerarm_*"),
        "hand_*": (WRIST, (0.8, 0, 1.45), "lowerarm_*"),
        "ik_foot_*": (ANKLE, BALL, "ik_foot_root"),
        **fingers(
            {
                finger: tuple(f"{word}_0{k}_*" for k in range(1, 4))
                for finger, word in zip(FINGERS, ("thumb", "index", "middle", "ring", "pinky"), strict=True)
            },
            "hand_*",
        ),
    }
    return spine | mirrored(half, "l", "r")


def vrm() -> Bones:
    spine = {
        "Root": ((0, 0, 0), (0, 0, 0.1), ""),
        "J_Bip_C_Hips": (PELVIS, WAIST, "Root"),
        "J_Bip_C_Spine": (WAIST, CHEST, "J_Bip_C_Hips"),
        "J_Bip_C_Chest": (CHEST, NECK, "J_Bip_C_Spine"),
        "J_Bip_C_Neck": (NECK, HEAD, "J_Bip_C_Chest"),
        "J_Bip_C_Head": (HEAD, TOP, "J_Bip_C_Neck"),
        "J_Sec_Hair1_01": ((0, 0.08, 1.75), (0, 0.12, 1.5), "J_Bip_C_Head"),
        "J_Sec_Hair2_01": ((0, 0.12, 1.5), (0, 0.14, 1.2), "J_Sec_Hair1_01"),
    }
    half = {
        "J_Bip_*_UpperLeg": (HIP, KNEE, "J_Bip_C_Hips"),
        "J_Bip_*_LowerLeg": (KNEE, ANKLE, "J_Bip_*_UpperLeg"),
        "J_Bip_*_Foot": (ANKLE, BALL, "J_Bip_*_LowerLeg"),
        "J_Bip_*_ToeBase": (BALL, TOE, "J_Bip_*_Foot"),
        "J_Sec_*_CoatSkirtBack1": ((0.1, 0.1, 0.95), (0.12, 0.14, 0.6), "J_Bip_C_Hips"),
        "J_Sec_*_CoatSkirtBack2": ((0.12, 0.14, 0.6), (0.14, 0.18, 0.3), "J_Sec_*_CoatSkirtBack1"),
        "J_Sec_*_Bust1": ((0.06, -0.1, 1.3), (0.06, -0.15, 1.3), "J_Bip_C_Chest"),
        "J_Adj_*_FaceEye": ((0.03, -0.07, 1.68), (0.03, -0.1, 1.68), "J_Bip_C_Head"),
        "J_Bip_*_Shoulder": (COLLAR, SHOULDER, "J_Bip_C_Chest"),
        "J_Bip_*_UpperArm": (SHOULDER, ELBOW, "J_Bip_*_Shoulder"),
        "J_Bip_*_LowerArm": (ELBOW, WRIST, "J_Bip_*_UpperArm"),
        "J_Bip_*_Hand": (WRIST, (0.8, 0, 1.45), "J_Bip_*_LowerArm"),
        **fingers(
            {
                finger: tuple(f"J_Bip_*_{word}{k}" for k in range(1, 4))
                for finger, word in zip(FINGERS, ("Thumb", "Index", "Middle", "Ring", "Little"), strict=True)
            },
            "J_Bip_*_Hand",
        ),
    }
    return spine | mirrored(half, "L", "R")


def mmd() -> Bones:
    spine = {
        "全ての親": ((0, 0, 0), (0, 0, 0.1), ""),
        "センター": ((0, 0, 0.7), (0, 0, 0.8), "全ての親"),
        "グルーブ": ((0, 0, 0.75), (0, 0, 0.8), "センター"),
        "上半身": ((0, 0, 1.08), CHEST, "グルーブ"),
        "上半身2": (CHEST, NECK, "上半身"),
        "首": (NECK, HEAD, "上半身2"),
        "頭": (HEAD, TOP, "首"),
        "両目": ((0, -0.1, 1.9), (0, -0.1, 2.0), "頭"),
        "下半身": ((0, 0, 1.08), PELVIS, "グルーブ"),
    }
    half = {
        "*足": (HIP, KNEE, "下半身"),
        "*ひざ": (KNEE, ANKLE, "*足"),
        "*足首": (ANKLE, BALL, "*ひざ"),
        "*つま先": (BALL, TOE, "*足首"),
        "*足IK": (ANKLE, (0.1, 0.1, 0.09), "全ての親"),
        "*肩": (COLLAR, SHOULDER, "上半身2"),
        "*腕": (SHOULDER, (0.32, 0, 1.45), "*肩"),
        "*腕捩": ((0.32, 0, 1.45), ELBOW, "*腕"),
        "*ひじ": (ELBOW, (0.6, 0, 1.45), "*腕捩"),
        "*手捩": ((0.6, 0, 1.45), WRIST, "*ひじ"),
        "*手首": (WRIST, (0.8, 0, 1.45), "*手捩"),
        "*目": ((0.03, -0.07, 1.68), (0.03, -0.1, 1.68), "頭"),
        "*髪1": ((0.09, 0.05, 1.75), (0.2, 0.1, 1.4), "頭"),
        "*髪2": ((0.2, 0.1, 1.4), (0.25, 0.1, 0.8), "*髪1"),
        **fingers(
            {
                finger: tuple(f"*{word}{k}" for k in "１２３")
                for finger, word in zip(FINGERS, ("親指", "人指", "中指", "薬指", "小指"), strict=True)
            },
            "*手首",
        ),
    }
    return spine | mirrored(half, "左", "右")


def bvh() -> Bones:
    """A motion capture's joints: no fingers, no flesh; the toes are ends."""
    spine = {
        "Hips": (PELVIS, WAIST, ""),
        "Chest": (WAIST, CHEST, "Hips"),
        "Chest2": (CHEST, NECK, "Chest"),
        "Neck": (NECK, HEAD, "Chest2"),
        "Head": (HEAD, TOP, "Neck"),
    }
    half = {
        "*Hip": (HIP, KNEE, "Hips"),
        "*Knee": (KNEE, ANKLE, "*Hip"),
        "*Ankle": (ANKLE, BALL, "*Knee"),
        "*Collar": ((0, 0, 1.44), SHOULDER, "Chest2"),
        "*Shoulder": (SHOULDER, ELBOW, "*Collar"),
        "*Elbow": (ELBOW, WRIST, "*Shoulder"),
        "*Wrist": (WRIST, (0.82, 0, 1.45), "*Elbow"),
    }
    return spine | mirrored(half, "Left", "Right")


CONVENTIONS = {each.__name__: each for each in (mixamo, unreal, vrm, mmd, bvh)}
