#!/usr/bin/env bash
# Builds what is missing, with the tools, then runs the tests: scripts/test.sh [arguments of pytest].
# Most tests wait for processes to start and end, so one more runs at a time than there are cores; -n 0 runs them in turn.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
./scripts/build.sh --dev
exec .venv/bin/python -m pytest -n "$(($(nproc) + 1))" --dist loadfile "$@"
