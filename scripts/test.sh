#!/usr/bin/env bash
# Builds what is missing, with the tools, then runs the tests: scripts/test.sh [arguments of pytest].
# -n 2 --dist loadfile runs two files at a time: quicker on idle cores, and harder on tests that wait.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
./scripts/build.sh --dev
exec .venv/bin/python -m pytest "$@"
