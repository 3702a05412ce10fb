#!/usr/bin/env bash
# Builds what is missing, with the tools, then runs the tests: scripts/test.sh [arguments of pytest].
# As many run at a time as there are cores, a file each, because most of them wait for processes; -n 0 runs them in turn.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
./scripts/build.sh --dev
exec .venv/bin/python -m pytest -n "$(nproc)" --dist loadfile "$@"
