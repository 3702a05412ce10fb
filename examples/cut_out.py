"""What a chain says about each object in pictures: where it is, and what the next models make of it.

    parallel-infer serve --model detector=zoo:detector --model classifier=zoo:classifier \
        --chain kinds="detector(confidence=0.4) > classifier(top=1)"
    python cut_out.py kinds street.jpg yard.jpg --address tcp://127.0.0.1:5555

What failed is told in its place: a picture, or what one of the models says about one object.
"""

from __future__ import annotations

import argparse
import sys

from parallel_infer import Answer, Client
from parallel_infer.errors import InferError


def told(answer: Answer | InferError) -> str:
    """What a model says about an object, in a few words."""
    if isinstance(answer, InferError):
        return f"{answer.code}: {answer}"
    return answer.text or answer.top or ", ".join(answer.names) or repr(answer)


def main() -> int:
    """Ask about all pictures together, and print what comes back; 1 where a picture failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chain", help="as the server calls it")
    parser.add_argument("pictures", nargs="+")
    parser.add_argument("--address", default="tcp://127.0.0.1:5555")
    arguments = parser.parse_args()
    with Client(arguments.address, timeout=30.0) as client:
        answers = client.infer_many(arguments.chain, arguments.pictures, errors="return")
    for picture, answer in zip(arguments.pictures, answers, strict=True):
        if isinstance(answer, InferError):
            print(f"{picture}: {answer.code}: {answer}", file=sys.stderr)
            continue
        print(f"{picture}: {len(answer)} found")
        for name, box, children in zip(answer.names, answer.boxes.round().tolist(), answer.children, strict=True):
            print(f"  {name} at {box}: " + "; ".join(f"{model}: {told(child)}" for model, child in children.items()))
        for model, count in answer.left_out.items():
            print(f"  {model} was not asked about {count} more")
    return int(any(isinstance(answer, InferError) for answer in answers))


if __name__ == "__main__":
    sys.exit(main())
