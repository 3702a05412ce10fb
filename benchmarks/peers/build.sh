#!/usr/bin/env bash
# Makes benchmarks/peers/.venvs/NAME for every peer, or for those named. Quick for what is there and up to date.
set -euo pipefail

peers=(litserve mosec triton ray fastapi)

usage() {
  cat <<END
usage: benchmarks/peers/build.sh [${peers[*]}]...

Each peer gets an environment of its own with the versions in benchmarks/peers/requirements/, installed without looking
at what packages ask for beyond that list: nothing pulls torch or CUDA. About 0.5 to 0.9 GB each, 3 GB in all.
A peer that cannot be built is left out, with the reason; the exit code is then 1.

PEER_PYTHON=/path/to/python3.11 chooses the Python; else python3.11 on the path or one that pyenv or uv keeps.
END
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)

say() { printf 'build: %s\n' "$*" >&2; }

is_311() { "$1" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; }

find_python() { # prints a Python 3.11 that can make environments
  local candidate
  for candidate in "${PEER_PYTHON:-}" python3.11 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.11*/bin/python3.11 \
    "$HOME"/.local/share/uv/python/cpython-3.11*/bin/python3.11 /opt/python/cp311-cp311/bin/python3.11; do
    [ -z "$candidate" ] || ! is_311 "$candidate" || { printf '%s' "$candidate"; return; }
  done
  return 1
}

obstacle() { # prints why a peer cannot run here; nothing where it can
  local machine
  machine=$(uname -m)
  if [ "$1" = triton ]; then
    [ "$machine" = x86_64 ] || { printf 'its server is published for x86_64 only, this is %s' "$machine"; return; }
    "$python" -c 'import os, sys
libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
sys.exit(tuple(map(int, libc.split()[-1].split("."))) < (2, 35) if libc.startswith("glibc ") else 1)' ||
      { printf 'its server needs glibc 2.35 or newer'; return; }
    "$python" -c 'import ctypes, os, sysconfig
name = "libpython3.11.so.1.0"
try: ctypes.CDLL(name)
except OSError: ctypes.CDLL(os.path.join(sysconfig.get_config_var("LIBDIR"), name))' 2>/dev/null ||
      printf 'its Python backend needs libpython3.11.so.1.0, which this Python was built without'
  fi
}

works() { # whether what the peer imports loads
  local module=$1
  [ "$1" != triton ] || { "$here/.venvs/triton/bin/python" -c 'import cv2, numpy, onnxruntime, PIL
from importlib.metadata import version
version("nvidia-pytriton")'; return; }
  "$here/.venvs/$1/bin/python" -c "import cv2, numpy, onnxruntime, PIL, $module"
}

build() {
  local name=$1 venv=$here/.venvs/$1 pins=$here/requirements/$1.txt wanted reason
  wanted=$(sha256sum <"$pins")
  if [ "$(cat "$venv/.built" 2>/dev/null)" = "$wanted" ] && works "$name" 2>/dev/null; then
    say "$name: up to date"
    return
  fi
  reason=$(obstacle "$name")
  [ -z "$reason" ] || { say "$name: left out: $reason"; return 1; }
  say "$name: installing $(grep -c == "$pins") packages"
  "$python" -m venv --clear "$venv" &&
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps --only-binary :all: \
      --requirement "$pins" &&
    works "$name" || { rm -rf "$venv"; say "$name: left out: the installation failed (see above)"; return 1; }
  printf '%s\n' "$wanted" >"$venv/.built"
}

chosen=()
for word in "$@"; do
  case $word in
    -h | --help) usage; exit 0 ;;
    *)
      case " ${peers[*]} " in
        *" $word "*) chosen+=("$word") ;;
        *) say "unknown peer $word; known are ${peers[*]}"; exit 2 ;;
      esac
      ;;
  esac
done
[ ${#chosen[@]} -gt 0 ] || chosen=("${peers[@]}")
python=$(find_python) || { say "no Python 3.11 with venv found; name one: PEER_PYTHON=/path/to/python3.11"; exit 1; }
status=0
for name in "${chosen[@]}"; do build "$name" || status=1; done
exit $status
