#!/usr/bin/env bash
# Makes .venv at the root of the project and installs parallel-infer into it, editable. Needs no root and nothing but
# Python 3.11 to 3.14; quick when nothing changed.
set -euo pipefail

usage() {
  cat <<'END'
usage: scripts/build.sh [--gpu | --cpu] [--dev]

  --gpu   ONNX Runtime for NVIDIA GPUs, with the CUDA and cuDNN libraries (several GB)
  --cpu   ONNX Runtime for CPUs, with OpenVINO on x86-64; where the processor has bfloat16 and is not Intel's, also
          OpenVINO's own runtime, which ONNX Runtime does not reach there
          with neither: what was chosen last time; at first --gpu where nvidia-smi answers, else --cpu
  --dev   also what the tests and the checks need

PARALLEL_INFER_PYTHON=/path/to/python chooses the Python; else the newest that works is taken.
END
}

say() { printf 'build: %s\n' "$*" >&2; } # never stdout: that belongs to the command that run.sh starts
fail() { say "$@"; exit 1; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv
python=$venv/bin/python
stamp=$venv/.parallel-infer-build

version_of() { # prints 3.11.7; fails where the command is missing, broken (a shim without a Python) or unsupported
  "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3]); sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' 2>/dev/null
}

can_make_venvs() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

find_python() { # sets base, the Python that makes the environment
  local candidate without_venv=
  if [ -n "${PARALLEL_INFER_PYTHON:-}" ]; then
    candidate=$PARALLEL_INFER_PYTHON
    version_of "$candidate" >/dev/null || fail "PARALLEL_INFER_PYTHON=$candidate is not a working Python 3.11 to 3.14."
    can_make_venvs "$candidate" || fail_for_venv "$candidate"
    base=$candidate
    return
  fi
  for candidate in python3.14 python3.13 python3.12 python3.11 python3; do
    version_of "$candidate" >/dev/null || continue
    if can_make_venvs "$candidate"; then base=$candidate; return; fi
    without_venv=${without_venv:-$candidate}
  done
  [ -z "$without_venv" ] || fail_for_venv "$without_venv"
  fail "no Python 3.11 to 3.14 found. Install one (Debian, Ubuntu: sudo apt install python3 python3-venv; without root:" \
    "uv python install 3.13, or pyenv install 3.13), or name one: PARALLEL_INFER_PYTHON=/path/to/python scripts/build.sh"
}

fail_for_venv() {
  local minor
  minor=$(version_of "$1" | cut -d. -f1,2)
  fail "$1 has no venv module. Install it (Debian, Ubuntu: sudo apt install python3-venv, or python$minor-venv)," \
    "or name another Python: PARALLEL_INFER_PYTHON=/path/to/python scripts/build.sh"
}

stamped() { # prints one field of the stamp: root, python, provider, dev or pyproject
  [ ! -f "$stamp" ] || sed -n "s/^$1=//p" "$stamp"
}

why_remake() { # prints why the environment cannot be kept; nothing when it can
  local version wanted
  if ! version=$(version_of "$python"); then
    printf 'its Python does not work or is not 3.11 to 3.14'
  elif [ -f "$stamp" ] && [ "$(stamped root)" != "$root" ]; then
    printf 'the project was moved'
  elif [ -n "${PARALLEL_INFER_PYTHON:-}" ]; then
    wanted=$(version_of "$PARALLEL_INFER_PYTHON") || fail "PARALLEL_INFER_PYTHON=$PARALLEL_INFER_PYTHON is not a working Python 3.11 to 3.14."
    [ "${wanted%.*}" = "${version%.*}" ] || printf 'it has Python %s, PARALLEL_INFER_PYTHON is %s' "$version" "$wanted"
  fi
}

make_venv() {
  local reason
  if [ -e "$venv" ]; then
    reason=$(why_remake)
    [ -n "$reason" ] || return 0
    say "making .venv anew: $reason"
  fi
  find_python
  say "making .venv with $(command -v "$base") ($(version_of "$base"))"
  "$base" -m venv --clear "$venv" || fail "could not make $venv; is the disk full, or the folder not yours to write?"
}

choose_provider() { # sets provider and why
  if [ -n "$provider" ]; then
    why="asked for"
  elif provider=$(stamped provider) && [ -n "$provider" ]; then
    why="as before"
  elif command -v nvidia-smi >/dev/null && timeout 20 nvidia-smi --list-gpus 2>/dev/null | grep -q GPU; then
    provider=gpu why="nvidia-smi lists a GPU"
  else
    provider=cpu why="nvidia-smi lists no GPU"
  fi
}

has_foreign_bf16() { # whether the processor computes bfloat16 and OpenVINO's plugin for ONNX Runtime does not take it
  grep -qwE 'avx512_bf16|amx_bf16' /proc/cpuinfo 2>/dev/null && ! grep -q GenuineIntel /proc/cpuinfo
}

remove_other_runtime() { # both wheels own the folder onnxruntime/: with one of them gone the other is broken
  local extras=$1
  local other=onnxruntime
  [ "$provider" = gpu ] || other=onnxruntime-gpu
  "$python" -c "import importlib.metadata as m; m.version('$other')" 2>/dev/null || return 0
  "$python" -m pip install --quiet --dry-run --editable "$root[$extras]" >&2 || fail_to_install # before anything is lost
  say "removing $other: it cannot stand beside the one for $provider"
  rm -f "$stamp"
  "$python" -m pip uninstall --quiet --yes onnxruntime onnxruntime-gpu
}

fail_to_install() {
  fail "the installation failed (see above). Without a network give pip a local index (PIP_INDEX_URL or PIP_FIND_LINKS)." \
    "Where no GPU wheel exists for this machine, use scripts/build.sh --cpu."
}

install() {
  local extras=$1 quiet=()
  [ -t 2 ] || quiet=(--quiet)
  remove_other_runtime "$extras"
  rm -f "$stamp"
  say "installing parallel-infer[$extras]"
  "$python" -m pip install --disable-pip-version-check "${quiet[@]}" --editable "$root[$extras]" >&2 ||
    fail_to_install
  "$python" -c 'import cv2, msgspec, onnx, onnxruntime, simplejpeg, zmq' ||
    fail "installed, but a library does not load (see above)."
  printf '%s\n' "$wanted" >"$stamp"
}

provider='' dev=no
while [ $# -gt 0 ]; do
  case $1 in
    --gpu | --cpu)
      [ -z "$provider" ] || [ "$provider" = "${1#--}" ] || { say "--gpu or --cpu, not both"; exit 2; }
      provider=${1#--}
      ;;
    --dev) dev=yes ;;
    -h | --help) usage; exit 0 ;;
    *) say "unknown option $1"; usage >&2; exit 2 ;;
  esac
  shift
done

# Two builds at once take turns. The lock is on a file that exists anyway and ends with this process.
exec 9<"$root/pyproject.toml"
! command -v flock >/dev/null || flock 9

make_venv
choose_provider
[ "$(stamped dev)" != yes ] || dev=yes # once there, the tools stay
extras=$provider,http,grpc
[ "$provider" = gpu ] || ! has_foreign_bf16 || extras+=,openvino
[ "$dev" = no ] || extras+=,dev
wanted=$(printf '%s\n' "root=$root" "python=$(version_of "$python")" "provider=$provider" "dev=$dev" "extras=$extras" \
  "pyproject=$(sha256sum <"$root/pyproject.toml" | cut -d' ' -f1)")

summary="Python $(version_of "$python"), $provider ($why)"
[ "$dev" = no ] || summary+=", with the tools"
if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
  say "up to date: $summary"
else
  say "$summary"
  install "$extras"
  say "done"
fi
# An editable install is compiled at each start of each process where Python may not keep what it compiled.
"$python" -m compileall -q "$root/parallel_infer" "$root/stages"
