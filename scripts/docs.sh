#!/usr/bin/env bash
# Builds the documentation as a site, build/site/index.html, with search: scripts/docs.sh [--serve].
# A broken link, a page without a place or any other warning ends it with 1. With the packages of the extra `docs`
# installed it needs no network. It ends with 3 where they are not, and cannot be.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command=(build)
case ${1:-} in
  '') ;;
  --serve) command=(serve) ;;
  -h | --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
  *) echo "docs: unknown option $1" >&2; exit 2 ;;
esac

./scripts/build.sh
python=.venv/bin/python
have() { "$python" -c 'import material, mkdocs, mkdocstrings, mkdocstrings_handlers.python' 2>/dev/null; }
if ! have; then
  echo "docs: installing parallel-infer[docs]" >&2
  "$python" -m pip install --disable-pip-version-check --quiet --editable '.[docs]' >&2 && have ||
    { echo "docs: the packages of the extra docs cannot be installed (see above)" >&2; exit 3; }
fi
export NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true # we stay with 1.x: pyproject.toml says so
exec "$python" -m mkdocs "${command[@]}" --strict
