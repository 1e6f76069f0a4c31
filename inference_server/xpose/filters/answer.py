"""What a language model is asked of a clip, and its answer as a verdict.

Models are asked for JSON and mostly give it: between fences or sentences, with Python's words or quotes, or
cut off where the answer had to end. All that is read. What can't be read, and what is refused, is a reason
not to keep the clip, never an error.
"""

from __future__ import annotations

import ast
import itertools
import json
import re
from typing import Any

from ..stages import Verdict

PROMPT = """You select videos for a data set of moving subjects that are not human: animals, birds, fish,
insects, robots, vehicles, toys, cartoon creatures, plants or tools. Look at the whole video and answer with
one JSON object and nothing else:

{
  "subjects": how many main subjects there are, as a number,
  "human": true if the main subject is a human or a part of one, else false,
  "moves": true if the main subject moves its body or its parts, else false,
  "keep": true only if there is exactly one main subject, it is not human, it moves, and nearly all of it can
    be seen nearly all the time,
  "reason": one short sentence that says why it is kept or not,
  "category": what the main subject is, in one or two words, such as "horse",
  "motion_type": how it moves, in one or two words, such as "running",
  "body_part": the part that moves most, in one or two words, such as "legs",
  "caption": two or three sentences that describe the subject, its motion, the background and the camera
}"""

HUMANS = {"human", "person", "people", "man", "woman", "boy", "girl", "child", "baby", "dancer", "hands"}
REFUSAL = re.compile(
    r"\b(i(['’]m| am) (sorry|unable|not able)|i can(['’]t|not)|as an ai|unable to (help|assist|process|view)"
    r"|cannot (assist|help|comply))\b",
    re.IGNORECASE,
)
TRIES = 8
"""Braces from which an object is tried to be read."""
WORDS = {"true": "True", "false": "False", "null": "None"}
LONGEST = {"category": 64, "motion_type": 64, "body_part": 64, "caption": 2000, "reason": 300}


def read_answer(text: str) -> Verdict:
    """The verdict in a model's answer."""
    fields = find_object(text)
    if not isinstance(fields, dict) or not fields:
        if REFUSAL.search(text):
            return Verdict(False, "The language model refused to judge it.")
        return Verdict(False, "The language model's answer can't be read.")
    fields = {str(name).strip().lower().replace(" ", "_"): value for name, value in fields.items()}
    words = {name: _text(fields.get(name), longest) for name, longest in LONGEST.items()}
    for name in ("category", "motion_type", "body_part"):
        words[name] = words[name].lower().rstrip(".")
    keep, reason = _flag(fields.get("keep", fields.get("kept"))), words.pop("reason")
    if keep is None:
        return Verdict(False, reason or "The language model does not say whether to keep it.", **words)
    against = _against(fields, words) if keep else ""
    if keep and not against:
        return Verdict(True, "", **words)
    return Verdict(False, against or reason or "The language model gave no reason.", **words)


def _against(fields: dict[str, Any], words: dict[str, str]) -> str:
    """What in an answer speaks against keeping a clip that it would keep."""
    count = fields.get("subjects")
    if isinstance(count, (int, float)) and not isinstance(count, bool) and count != 1:
        return f"There are {count:g} main subjects." if count else "There is no main subject."
    if _flag(fields.get("human")) or HUMANS & set(words["category"].split()):
        return "The subject is human."
    if _flag(fields.get("moves")) is False:
        return "The subject does not move."
    missing = [name for name in ("category", "caption") if not words[name]]
    return f"The language model gave no {missing[0]}." if missing else ""


def find_object(text: str) -> Any:
    """The first object in an answer that can be read, as JSON or as Python writes it; one that was cut off is
    closed where it ends. None where there is none."""
    for match in itertools.islice(re.finditer(r"\{", text), TRIES):
        rest = text[match.start() :]
        try:
            return json.JSONDecoder().raw_decode(rest)[0]
        except ValueError:
            found = _read_leniently(rest)
            if isinstance(found, dict):
                return found
    return None


def _read_leniently(text: str) -> Any:
    """An object with comments, single quotes, Python's words, a comma too much, or without its end."""
    tokens, depth, last_whole = [], [], 0
    pattern = re.compile(
        r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|//[^\n]*|[{}\[\],:]|[^\s{}\[\],:\"']+|\s+|.", re.DOTALL
    )
    for token in pattern.findall(text):
        if token.isspace() or token.startswith("//"):
            continue
        if token in "{[":
            depth.append("}" if token == "{" else "]")
        elif token in "}]":
            if not depth or depth.pop() != token:
                return None
        if token == "," and len(depth) == 1:
            last_whole = len(tokens)
        tokens.append(_quoted(token))
        if not depth:
            return _evaluate(tokens)
    # Cut off: what follows the last whole entry is kept if it can be closed, else left out.
    unfinished = tokens + ([] if not tokens or tokens[-1] not in (",", ":") else ["None"])
    return _evaluate([*unfinished, *reversed(depth)]) or _evaluate([*tokens[:last_whole], "}"])


def _quoted(token: str) -> str:
    if token[0] in "\"'" and len(token) > 1:
        return token.replace("\n", "\\n")
    return WORDS.get(token.lower(), token)


def _evaluate(tokens: list[str]) -> Any:
    try:
        return ast.literal_eval(" ".join(tokens))
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


def _flag(value: Any) -> bool | None:
    if isinstance(value, (bool, int)):
        return bool(value)
    word = value.strip().lower().rstrip(".") if isinstance(value, str) else ""
    return {"yes": True, "true": True, "keep": True, "no": False, "false": False, "discard": False}.get(word)


def _text(value: Any, longest: int) -> str:
    if isinstance(value, (list, tuple)):
        value = ", ".join(str(item) for item in value)
    if not isinstance(value, str):
        return ""
    text = " ".join(value.split())
    return "" if text.lower() in ("none", "n/a", "unknown", "null") else text[:longest]
