"""Ways to spoil bytes and JSON. Pure: all chance comes from outside."""

from __future__ import annotations

import base64
import json
import pickle
from random import Random
from typing import Any

import numpy as np

# Texts that stand for a JSON value: numbers that are none, numbers that fit nowhere, things nested too deep.
RAW_VALUES = (
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e-999", "0x10", "01", "+1", ".5", "1.", "--1", "tru", "nul"),
    *(str(2**31), str(2**63), str(-(2**63) - 1), str(2**64), str(2**70), "-1", "0", "-0", "1.5", "1" * 400),
    *("[" * 500 + "]" * 500, '{"a":' * 500 + "1" + "}" * 500, "[" * 100_000, "[[]]", "[]", "{}", "null", "true"),
    *('""', '"\\u0000"', '"\\ud800"', '"' + "a" * 70_000 + '"', '"../../etc/passwd"', '"file:///etc/passwd"'),
    *('"http://169.254.169.254/latest/meta-data"', '"data:image/png;base64,"', '"====="', "[1e308,1e308]", '"1e999"'),
)
PICKLED = base64.b64encode(pickle.dumps(np.zeros(3))).decode()
NAMES = (
    *("", "nobody", "detector", "detector.picture", "detector@file", "..", "%2e%2e", "%2e%2e%2fetc%2fpasswd", "%00"),
    *(
        "detector%00",
        "a" * 5000,
        "%ff%fe",
        "%c0%af",
        "%zz",
        "detector%2f..",
        "\\..\\",
        "detector;x=1",
        "*",
        "%20",
        "%0d%0a",
    ),
)


def spoilt_bytes(data: bytes, chance: Random) -> bytes:
    """Bytes after one to four changes; or nothing, only a beginning, or something behind."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(6):
            case 0 if at < len(changed):
                changed[at] = chance.randrange(256)
            case 1:
                changed[at:at] = chance.randbytes(chance.randint(1, 8))
            case 2:
                del changed[at : at + chance.randint(1, 8)]
            case 3:
                changed[at : at + 4] = b"\xff\xff\xff\x7f"
            case 4:
                del changed[at:]
            case _:
                changed += chance.randbytes(chance.randint(1, 64))
    return bytes(changed)


def spoilt_json(value: Any, chance: Random) -> bytes:
    """JSON in which one value is another one, or is there twice, or is missing; sometimes it is no JSON after that."""
    places = list(_places(value))
    holder, key = chance.choice(places)
    mark = "\u2603mark"
    kept = holder[key]
    match chance.randrange(4):
        case 0 if isinstance(holder, dict):
            whole = dict(holder)
            del holder[key]
            text = json.dumps(value)
            holder.clear()
            holder.update(whole)
            return text.encode()
        case 1 if isinstance(holder, dict):
            holder[key] = mark
            again = f"{json.dumps(kept)}, {json.dumps(key)}: {chance.choice(RAW_VALUES)}"
            text = json.dumps(value).replace(json.dumps(mark), again, 1)
        case 2:
            holder[key] = PICKLED if chance.randrange(2) else {"type": "numpy", "value": PICKLED}
            text = json.dumps(value)
        case _:
            holder[key] = mark
            text = json.dumps(value).replace(json.dumps(mark), chance.choice(RAW_VALUES), 1)
    holder[key] = kept
    return text.encode() if chance.randrange(8) else text.encode().replace(b'"', b"\xff", chance.randint(1, 3))


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Where in nested lists and maps a value stands: its holder, and the key or index in it."""
    found: list[tuple[Any, Any]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        found.append((value, key))
        if isinstance(item, dict | list) and item:
            found += _places(item)[:40]
    return found
