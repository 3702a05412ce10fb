#!/usr/bin/env bash
# Builds the image with podman on a base of its own making, runs it in every way that docs/howto/container.md tells of,
# and takes it all away again. Needs root, podman, runc and mmdebstrap, a network for packages, and .venv.
#
#   tests/container/run.sh [CASE...]    all cases, or those named; "N passed, N failed" ends it
#   BASE_TAR=file.tar                   a base made before, or where to keep the one that is made
#   WHEELS=folder                       the Python packages; else they are fetched
#   IMAGE=name                          an image that is there already, in place of building one
#   KEEP=folder                         keep podman's storage there, so that a further run builds quickly
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
python=$root/.venv/bin/python
pictures=$root/parallel_infer/zoo/pictures
work=$(mktemp -d /tmp/parallel-infer-image-XXXXXX)
storage=${KEEP:-$work/storage}
cases=(small_shm small_shm_fits models_and_keys kept_keys secret_keys routes no_keys_without_a_place insecure no_models
  empty read_only other_commands quantizes not_its_own_code stop_at_once stop_under_load ipc_volume
  killed_and_restarted upgraded)
name=pinfer-test-$$
passed=0 failed=0

skip() { echo "run.sh: skipped: $*" >&2; echo "0 passed, 0 failed, ${#cases[@]} skipped"; exit 0; }
[ "$(id -u)" = 0 ] || skip "only root can make a base with mmdebstrap"
for program in podman runc mmdebstrap; do
  command -v "$program" >/dev/null || skip "there is no $program (Debian: apt-get install podman runc mmdebstrap)"
done
[ -x "$python" ] || skip "there is no .venv; run scripts/build.sh first"

# Settings of its own: another storage, runc (crun refuses hybrid control groups), limits that this machine can give.
mkdir -p "$storage"
cat >"$work/storage.conf" <<END
[storage]
driver = "overlay"
runroot = "$work/run"
graphroot = "$storage"
END
cat >"$work/containers.conf" <<END
[containers]
default_ulimits = ["nofile=$(ulimit -Hn):$(ulimit -Hn)", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
END
export CONTAINERS_STORAGE_CONF=$work/storage.conf CONTAINERS_CONF=$work/containers.conf

clean_up() {
  [ -z "${load:-}" ] || kill "$load" 2>/dev/null
  podman rm --all --force --time 0 >/dev/null 2>&1
  # not `podman system reset`, which would take networks of other users of podman as well
  [ -n "${KEEP:-}" ] || podman image rm --all --force >/dev/null 2>&1
  umount "$storage/overlay" 2>/dev/null # podman's own bind mount of the folder
  rm -rf "$work"
}
trap clean_up EXIT

# --- the image -------------------------------------------------------------------------------------------------------

make_base() {
  local tar=${BASE_TAR:-$work/base.tar}
  ! podman image exists localhost/debian:bookworm-slim || return 0
  # shellcheck disable=SC2016  # $1 is the hook's
  [ -s "$tar" ] || mmdebstrap --quiet --variant=minbase --include=ca-certificates \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*' bookworm "$tar" || return 1
  podman import --quiet "$tar" localhost/debian:bookworm-slim >/dev/null
}

works() { # with a port that is published
  podman run --rm --publish 127.0.0.1::5555 localhost/debian:bookworm-slim true >/dev/null 2>"$work/works.log"
}

make_image() {
  local wheels=${WHEELS:-$work/wheels}
  make_base || skip "no base can be made here: mmdebstrap fetches packages of Debian"
  works || skip "podman runs no container here: $(tail -n 1 "$work/works.log")"
  [ -d "$wheels" ] || "$python" -m pip wheel --quiet --wheel-dir "$wheels" "${root}[cpu,http,grpc]" \
    'hatchling>=1.27' || skip "the wheels that the image is made of cannot be fetched here"
  "$root/container/build.sh" --with podman --base localhost/debian:bookworm-slim --wheels "$wheels" --tag "$image" \
    -- --network host --runtime runc >"$work/build.log" 2>&1 || { tail -n 20 "$work/build.log"; return 1; }
}

# --- what the cases say -----------------------------------------------------------------------------------------------

fail() { echo "    $*"; return 1; }
log() { podman logs "$name" 2>&1; }
has() {
  log >"$work/log"
  grep --quiet -- "$1" "$work/log" && return
  fail "the log has no '$1':"
  tail -n 15 "$work/log" | sed 's/^/      /'
  return 1
}
has_not() {
  log >"$work/log"
  ! grep --quiet -- "$1" "$work/log" || fail "the log has '$1'"
}
state() { podman inspect "$name" --format '{{.State.Status}}'; }
exit_code() { podman inspect "$name" --format '{{.State.ExitCode}}'; }
port() { podman port "$name" "$1/tcp" | head -n 1; } # 127.0.0.1:PORT
run() {
  podman run --detach --name "$name" --publish 127.0.0.1::5555 --publish 127.0.0.1::8000 "$@" \
    >/dev/null 2>"$work/run.log" || fail "$(cat "$work/run.log")"
}
end() { podman wait "$name" >/dev/null; }

ready() { # waits for the line that says so; ends where the container does
  local line
  while read -r line; do
    case $line in ready:*) return 0 ;; esac
  done < <(podman logs --follow "$name" 2>/dev/null)
  fail "it ended with $(exit_code) instead of getting ready:"
  log | tail -n 15 | sed 's/^/      /'
  return 1
}

models() { # a folder of one plain file and one in Triton's layout
  mkdir -p "$work/models/net/1"
  cp "$root/parallel_infer/zoo/detector.onnx" "$work/models/street.onnx"
  cp "$root/parallel_infer/zoo/classifier.onnx" "$work/models/net/1/model.onnx"
  chmod -R a+rX "$work/models"
}

fresh_keys() { rm -rf "$work/keys"; mkdir --mode=1777 "$work/keys"; }
cli() { "$root/.venv/bin/parallel-infer" "$@"; }
wire() {
  cli infer --timeout 120 --server "tcp://$(port 5555)" --key "$work/keys/client.key" "$1" "$pictures/astronaut.png"
}
over_http() { curl --silent --max-time 60 --output "$work/body" --write-out '%{http_code}' "$@"; }
healthy() { podman healthcheck run "$name" >/dev/null 2>&1 || fail "it is not healthy"; }

# --- cases -----------------------------------------------------------------------------------------------------------

small_shm() { # Docker's 64 MB
  run "$image" && end && [ "$(exit_code)" = 1 ] && has '--shm-size='
}

small_shm_fits() {
  run "$image" --fit-shared-memory --insecure && ready && has 'because of fit_shared_memory' && healthy
}

models_and_keys() {
  fresh_keys
  # shellcheck disable=SC2015  # what went wrong is shown wherever it did
  run --shm-size 1g --volume "$work/models:/models:ro" --volume "$work/keys:/keys" "$image" && ready &&
    has '(net, street)' && has 'secret = ' && wire street >"$work/answer" && grep --quiet person "$work/answer" &&
    [ "$(over_http "http://$(port 8000)/v2/models/street")" = 401 ] &&
    [ "$(over_http --header "Authorization: Bearer $(sed -n 's/^token = //p' "$work/keys/client.key")" \
      --data-binary "@$pictures/astronaut.png" "http://$(port 8000)/infer/street")" = 200 ] &&
    grep --quiet person "$work/body" && healthy || fail "$(cat "$work/answer" "$work/body" 2>/dev/null | head -n 5)"
}

kept_keys() { # another container on the same volume: nothing is printed, the key goes on
  fresh_keys
  run --shm-size 1g --volume "$work/models:/models:ro" --volume "$work/keys:/keys" "$image" && ready &&
    has 'secret = ' && podman rm --force "$name" >/dev/null 2>&1 &&
    run --shm-size 1g --volume "$work/models:/models:ro" --volume "$work/keys:/keys" "$image" && ready &&
    has_not 'secret = ' && wire street >/dev/null
}

secret_keys() { # flat, read-only and open to others, as Kubernetes mounts a Secret
  fresh_keys
  cli keys new client --dir "$work/made" --out "$work/keys/client.key" >/dev/null &&
    mkdir -p "$work/secret" && cp "$work/made/server.key" "$work/made/clients/client.pub" "$work/secret" &&
    chmod -R a+rX "$work/secret" &&
    run --shm-size 1g --volume "$work/models:/models:ro" --volume "$work/secret:/keys:ro" "$image" && ready &&
    has_not 'secret = ' && wire street >/dev/null
  local result=$?
  rm -rf "$work/made" "$work/secret"
  return $result
}

routes() { # a router of the same image in front of a server, with the keys of a Secret
  fresh_keys
  # shellcheck disable=SC2015  # what went wrong is shown wherever it did
  cli keys new client --dir "$work/made" --out "$work/keys/client.key" >/dev/null &&
    cli keys new router --manage --dir "$work/made" --out "$work/made/router.key" >/dev/null &&
    mkdir -p "$work/secret" && cp "$work/made"/*.key "$work/made/clients"/*.pub "$work/secret" &&
    chmod -R a+rX "$work/secret" &&
    run --shm-size 1g --publish 127.0.0.1::5600 --volume "$work/models:/models:ro" --volume "$work/secret:/keys:ro" \
      "$image" && ready &&
    podman run --detach --name "$name-router" --network "container:$name" --volume "$work/secret:/keys:ro" \
      --read-only --cap-drop ALL --user 4321:4321 "$image" route --bind tcp://0.0.0.0:5600 \
      --member tcp://127.0.0.1:5555 >/dev/null &&
    cli infer --timeout 120 --server "tcp://$(port 5600)" --key "$work/keys/client.key" street \
      "$pictures/astronaut.png" >"$work/answer" && grep --quiet person "$work/answer" &&
    podman healthcheck run "$name-router" >/dev/null || fail "$(podman logs "$name-router" 2>&1 | tail -n 5)"
  local result=$?
  podman rm --force --time 0 "$name-router" >/dev/null 2>&1
  rm -rf "$work/made" "$work/secret"
  return $result
}

no_keys_without_a_place() { # keys that last as long as the container do
  run --shm-size 1g --read-only --read-only-tmpfs=false "$image" --model a=zoo:classifier && ready &&
    has 'They go with this container' && has 'secret = '
}

insecure() {
  run --shm-size 1g "$image" --insecure --model a=zoo:classifier && ready && has 'WHOEVER REACHES ITS PORTS' &&
    has_not 'secret = ' && [ "$(over_http "http://$(port 8000)/v2/models/a")" = 200 ]
}

no_models() {
  run --shm-size 1g "$image" --insecure && ready && has 'the shipped ones are served' && has 'detector, classifier'
}

empty() {
  mkdir -p "$work/empty"
  run --shm-size 1g --volume "$work/empty:/models:ro" "$image" --insecure && end && [ "$(exit_code)" = 2 ] &&
    has 'there is no model in /models'
}

read_only() { # nothing to write to but /dev/shm, a user that nobody knows, no rights, little of everything
  fresh_keys
  run --shm-size 1g --volume "$work/models:/models:ro" --volume "$work/keys:/keys" --read-only --read-only-tmpfs=false \
    --cap-drop ALL --security-opt no-new-privileges --user 4321:4321 --memory 3g --cpus 1.5 --pids-limit 300 "$image" &&
    ready && wire net >/dev/null && healthy && has 'decode workers are confined'
}

other_commands() {
  [ "$(podman run --rm "$image" --model a=zoo:pose --print-config 2>/dev/null | grep -c '^\[models')" = 1 ] &&
    podman run --rm "$image" keys --help 2>/dev/null | grep CURVE >/dev/null &&
    run --shm-size 1g "$image" --model a=zoo:classifier && ready &&
    podman exec "$name" parallel-infer models list 2>/dev/null | grep classify >/dev/null
}

quantizes() { # needs the most of the packages, of which the image has no more than what is needed
  podman run --rm --volume "$pictures:/pictures:ro" "$image" quantize zoo:classifier --calibrate /pictures \
    --output /tmp/small.onnx >"$work/quantized" 2>&1 || fail "$(tail -n 5 "$work/quantized")"
}

not_its_own_code() {
  local found
  found=$(podman run --rm --entrypoint find "$image" / -xdev -writable ! -type l -path '/opt/*' 2>/dev/null)
  [ -z "$found" ] || fail "it may write $found"
}

stop_at_once() { # before any handler is there: its init passes the signal on
  local attempt
  for attempt in 1 2 3; do
    run --shm-size 1g "$image" --insecure --model a=zoo:classifier && podman kill --signal TERM "$name" >/dev/null 2>&1
    end
    [ "$(exit_code)" != 137 ] || fail "attempt $attempt: it had to be killed" || return 1
    podman rm --force "$name" >/dev/null 2>&1
  done
}

start_load() { # in the background, until "$work/enough" is there
  rm -f "$work/enough" "$work/started"
  mkfifo "$work/started"
  "$python" "$root/tests/container/load.py" "$1" "$2" street "$pictures/astronaut.png" "$pictures/coffee.png" \
    --under-way "$work/started" --until "$work/enough" >"$work/load.json" 2>"$work/load.err" &
  load=$!
  timeout 300 cat "$work/started" >/dev/null || fail "the load has not started: $(tail -n 3 "$work/load.err")"
}

end_load() {
  touch "$work/enough"
  wait "$load"
  local result=$?
  load=''
  echo "    $(cat "$work/load.json")"
  [ $result = 0 ] || fail "$(grep lost "$work/load.err" | head -n 5)"
}

with_models() { # at an address that stays
  podman run --detach --name "$name" --publish "127.0.0.1:$fixed:5555" --shm-size 1g --stop-timeout 20 \
    --volume "$work/models:/models:ro" --volume "$work/keys:/keys" "$@" >/dev/null 2>&1
}

stop_under_load() { # what was admitted is answered; the next server takes the rest
  fresh_keys
  with_models "$image" && ready && start_load "tcp://127.0.0.1:$fixed" "$work/keys/client.key" &&
    podman stop "$name" >/dev/null 2>&1 && has ' 0 abandoned' && [ "$(exit_code)" = 0 ] &&
    podman start "$name" >/dev/null 2>&1 && answers && end_load
}

answers() { # a few pictures one after the other, while the load goes on
  local attempt
  for attempt in 1 2 3 4; do
    wire street >/dev/null 2>"$work/wire.err" || fail "picture $attempt: $(tail -n 2 "$work/wire.err")" || return 1
  done
}

ipc_volume() { # clients of the host by a socket in a volume
  mkdir "$work/sockets" && chmod 1777 "$work/sockets" &&
    run --shm-size 1g --volume "$work/sockets:/sockets" "$image" --model a=zoo:classifier --bind ipc:///sockets/s &&
    ready && healthy && cli infer --server "ipc://$work/sockets/s" a "$pictures/chelsea.png" >/dev/null
}

killed_and_restarted() { # kill -9 of everything in it, three times
  fresh_keys
  with_models "$image" && ready && start_load "tcp://127.0.0.1:$fixed" "$work/keys/client.key" || return 1
  local attempt
  for attempt in 1 2 3; do
    podman kill --signal KILL "$name" >/dev/null 2>&1
    end
    podman start "$name" >/dev/null 2>&1 && answers || return 1
  done
  end_load
}

upgraded() { # the container of one image is replaced by that of the next, twice
  fresh_keys
  printf 'FROM %s\nLABEL org.opencontainers.image.version=next\n' "$image" |
    podman build --quiet --format docker --tag "$image-next" - >/dev/null 2>&1 || fail "no second image" || return 1
  with_models "$image" && ready && start_load "tcp://127.0.0.1:$fixed" "$work/keys/client.key" || return 1
  local next
  for next in "$image-next" "$image"; do
    podman stop "$name" >/dev/null 2>&1 && podman rm "$name" >/dev/null 2>&1 || return 1
    with_models "$next" && answers || return 1
  done
  end_load
}

# --- all of them -----------------------------------------------------------------------------------------------------

image=${IMAGE:-localhost/parallel-infer:test}
if [ -z "${IMAGE:-}" ] && ! make_image; then
  echo "run.sh: the image cannot be built" >&2
  echo "0 passed, 1 failed"
  exit 1
fi
podman image inspect "$image" --format "$image has {{.Size}} bytes" || exit 1
models
fixed=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
[ $# = 0 ] || cases=("$@")
for case in "${cases[@]}"; do
  if "$case"; then
    echo "ok      $case"
    passed=$((passed + 1))
  else
    echo "not ok  $case"
    failed=$((failed + 1))
    [ -z "${load:-}" ] || { kill "$load" 2>/dev/null; wait "$load" 2>/dev/null; load=''; }
  fi
  podman rm --force --time 0 "$name" >/dev/null 2>&1
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
