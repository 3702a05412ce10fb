"""A server whose decode stage is `aborting`: python tests/security/aborting_server.py ADDRESS."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> int:
    sys.path.insert(0, str(Path(__file__).parents[2]))
    import stages.pipeline
    from parallel_infer.config.sources import load_config
    from parallel_infer.supervisor.serve import Announce, serve

    stages.pipeline.STAGES["decode"] = "tests.security.aborting:Decode"
    settings = {"models": ["classifier=zoo:classifier"], "bind": [sys.argv[1]], "decode_workers": 2, "threads": 1}
    return serve(load_config(settings, None, {}), Announce.JSON)


if __name__ == "__main__":
    sys.exit(main())
