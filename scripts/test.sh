#!/usr/bin/env bash
# Builds what is missing, with the tools, then runs the tests: scripts/test.sh [arguments of pytest].
# Two files at a time, which takes half as long on two cores; -n 0 runs one after the other.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
./scripts/build.sh --dev
exec .venv/bin/python -m pytest -n 2 --dist loadfile "$@"
