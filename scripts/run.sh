#!/usr/bin/env bash
# Builds what is missing, then starts the server: scripts/run.sh [options of `parallel-infer serve`].
# Any other command of parallel-infer works too: scripts/run.sh demo, scripts/run.sh infer detector street.jpg ...
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
"$root/scripts/build.sh"

# exec: signals reach the server itself, and its exit code is ours. The working folder stays the caller's.
unset PARALLEL_INFER_PYTHON # it was for the build; the server would report it as an unknown setting
case ${1:-} in
  '' | -*) exec "$root/.venv/bin/parallel-infer" serve "$@" ;;
  *) exec "$root/.venv/bin/parallel-infer" "$@" ;;
esac
