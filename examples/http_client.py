"""Pictures over HTTP with nothing but Python's standard library: print what is found in each.

    python http_client.py street.jpg yard.png --model detector --url http://127.0.0.1:8000 --confidence 0.5

Works for every model that takes pictures. A server with keys wants `--key TOKEN`.
"""

from __future__ import annotations

import argparse
import json
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

TIMEOUT = 30  # seconds


def infer(url: str, model: str, picture: bytes, options: dict[str, Any], key: str = "") -> Any:
    """The answer about a picture. Raises OSError, whose text says why, where the server refuses it or is not there."""
    address = f"{url}/infer/{urllib.parse.quote(model)}?{urllib.parse.urlencode(options)}"
    headers = {"Content-Type": "application/octet-stream"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(address, picture, headers)  # noqa: S310 - the URL is the user's own
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as reply:  # noqa: S310
            return json.load(reply)
    except urllib.error.HTTPError as error:
        refused = json.loads(error.read())
        raise OSError(f"{refused['code']}: {refused['error']}") from None


def described(found: dict[str, Any]) -> str:
    """One line about one object, or one class."""
    place = " at {x:.0f}, {y:.0f}, {width:.0f} x {height:.0f} pixels".format(**found) if "x" in found else ""
    return f"{found['confidence']:.2f} {found['class']}{place}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Print what is found in pictures.")
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--model", default="detector")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--confidence", type=float, default=0.4)
    parser.add_argument("--key", default="")
    given = parser.parse_args()
    failed = 0
    for path in given.pictures:
        try:
            answer = infer(given.url, given.model, path.read_bytes(), {"confidence": given.confidence}, given.key)
            lines = [described(found) for found in answer["predictions"]]
        except OSError as error:
            failed, lines = failed + 1, [str(error)]
        print(f"{path}: {', '.join(lines) or 'nothing found'}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
