"""What `ps` shows of a command: every user of a machine can read it."""

from __future__ import annotations

import os
import sys

from setproctitle import setproctitle

from parallel_infer.redaction import redacted_address


def hide_secrets() -> None:
    """Take user, password and secret parameters of addresses out of this process's command line, as others see it."""
    words = [redacted_address(word) for word in sys.argv[1:]]
    if words != sys.argv[1:]:
        setproctitle(os.fsencode(" ".join(["parallel-infer", *words])).decode(errors="replace"))
