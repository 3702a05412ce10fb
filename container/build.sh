#!/usr/bin/env bash
# Builds the image with whatever builds images here: docker, podman or buildah.
set -euo pipefail

usage() {
  cat <<'END'
usage: container/build.sh [OPTION]... [-- ARGUMENT...]

  --tag NAME          what the image is called (parallel-infer:VERSION, with -gpu or -no-openvino where that is chosen)
  --base IMAGE        what it stands on: a Debian or Ubuntu (docker.io/library/debian:bookworm-slim)
  --gpu               with ONNX Runtime for NVIDIA GPUs, CUDA and cuDNN; several GB
  --no-openvino       without OpenVINO's plugin; 112 MB less
  --wheels FOLDER     take every Python package from this folder and nothing from an index; made with
                        pip wheel --wheel-dir FOLDER '.[cpu,http,grpc]'
  --with PROGRAM      docker, podman or buildah; else the first of these that answers
  --print             print the command that would be run, and end
  ARGUMENT...         goes to the program as it is, such as --network host or --platform linux/arm64
END
}

say() { printf 'container/build.sh: %s\n' "$*" >&2; }
fail() { say "$@"; exit 1; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/pyproject.toml" | head -n 1)

find_program() { # sets program
  local candidate
  for candidate in ${program:-docker podman buildah}; do
    command -v "$candidate" >/dev/null || continue
    case $candidate in
      docker) docker version >/dev/null 2>&1 || continue ;; # a client without a daemon builds nothing
    esac
    program=$candidate
    return
  done
  fail "none of ${program:-docker, podman, buildah} answers here; install one (Debian, Ubuntu: sudo apt install podman)"
}

take_wheels() { # into the context, for as long as the build lasts
  [ -n "$(find "$wheels" -maxdepth 1 -name '*.whl' -print -quit)" ] || fail "there are no wheels in $wheels"
  [ ! -e "$root/container/wheels" ] || fail "$root/container/wheels is there already; another build uses it, or left it"
  trap 'rm -rf "$root/container/wheels"' EXIT
  mkdir "$root/container/wheels"
  # ours is built from the sources of this checkout; a wheel of it could be an older one
  find "$wheels" -maxdepth 1 -name '*.whl' ! -name 'parallel_infer-*' -exec cp -t "$root/container/wheels" {} +
}

tag='' base='' provider=cpu openvino=yes wheels='' program='' print=no more=()
while [ $# -gt 0 ]; do
  case $1 in
    --tag | --base | --wheels | --with)
      [ $# -ge 2 ] || { say "$1 needs a value"; exit 2; }
      case $1 in
        --tag) tag=$2 ;;
        --base) base=$2 ;;
        --wheels) wheels=$2 ;;
        --with) program=$2 ;;
      esac
      shift
      ;;
    --gpu) provider=gpu ;;
    --no-openvino) openvino=no ;;
    --print) print=yes ;;
    -h | --help) usage; exit 0 ;;
    --) shift; more=("$@"); break ;;
    *) say "unknown option $1"; usage >&2; exit 2 ;;
  esac
  shift
done

find_program
suffix=''
[ "$openvino" = yes ] || suffix=-no-openvino
[ "$provider" = cpu ] || suffix=-gpu
[ -n "$tag" ] || tag=parallel-infer:$version$suffix

arguments=(--file "$root/container/Containerfile" --tag "$tag" --build-arg "VERSION=$version")
arguments+=(--build-arg "PROVIDER=$provider" --build-arg "OPENVINO=$openvino")
[ -z "$base" ] || arguments+=(--build-arg "BASE=$base")
[ -z "$wheels" ] || arguments+=(--build-arg WHEELS=no-index)
! revision=$(git -C "$root" rev-parse HEAD 2>/dev/null) || arguments+=(--build-arg "REVISION=$revision")
for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL; do # an index of your own; other variables stay outside
  [ -z "${!name:-}" ] || arguments+=(--build-arg "$name=${!name}")
done
case $program in
  docker) command=(env DOCKER_BUILDKIT=1 docker build) ;;
  podman) command=(podman build --format docker) ;; # OCI's own format knows no HEALTHCHECK
  buildah) command=(buildah build --format docker) ;;
  *) fail "$program is none of docker, podman, buildah" ;;
esac
command+=("${arguments[@]}" ${more[@]+"${more[@]}"} "$root")

if [ "$print" = yes ]; then
  printf '%q ' "${command[@]}"
  echo
  exit 0
fi
[ -z "$wheels" ] || take_wheels
say "building $tag with $program"
"${command[@]}"
say "built $tag"
