#!/usr/bin/env bash
# Builds the images of the checked-out commit on a Debian made here, with podman, as root, and tries them.
#
#     tests/containers.sh          all but CUDA's, then `pytest -m containers`: the whole pipeline in them
#     tests/containers.sh smoke    the smallest one, and what it says of itself
#
# Installs podman, runc and debootstrap with apt-get where they are missing. Exit code 77: this machine cannot have them.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly BASE=localhost/textvae-base:bookworm
python=${PYTHON:-.venv/bin/python}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unavailable() { # REASON [LOG]
    if [ $# -gt 1 ]; then tail -n 20 "$2" >&2; fi
    echo "no containers here: $1" >&2
    exit 77
}

[ "$(id -u)" = 0 ] || unavailable "debootstrap needs root"
if ! command -v podman runc debootstrap >"$work/found" || [ "$(wc -l <"$work/found")" != 3 ]; then
    command -v apt-get >/dev/null || unavailable "podman, runc or debootstrap is missing, and there is no apt-get"
    echo "installing podman, runc and debootstrap"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update && apt-get install -y --no-install-recommends podman runc debootstrap; } >"$work/apt.log" 2>&1 ||
        unavailable "apt-get could not install podman, runc and debootstrap" "$work/apt.log"
fi

# Without systemd, and without the right to raise limits: podman's defaults want both.
export CONTAINERS_CONF=$work/containers.conf
cat >"$CONTAINERS_CONF" <<END
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
END
podman info >"$work/info.log" 2>&1 || unavailable "podman does not work" "$work/info.log"

if ! podman image exists $BASE; then
    echo "making a Debian with Python"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$work/debian" \
        >"$work/debootstrap.log" 2>&1 || unavailable "debootstrap failed" "$work/debootstrap.log"
    # What this machine trusts, the base trusts: a package index may be behind a proxy with a certificate of its own.
    cp /etc/ssl/certs/ca-certificates.crt "$work/debian/etc/ssl/certs/ca-certificates.crt"
    tar -C "$work/debian" -c . | podman import - $BASE >/dev/null
    rm -rf "$work/debian"
fi
podman run --rm --network host $BASE true >"$work/run.log" 2>&1 || unavailable "a container does not start" "$work/run.log"
printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' >"$work/pip.conf"

if [ "${1:-}" = smoke ]; then
    "$python" -m pipelines.containers.images ngram --base $BASE --pip-conf "$work/pip.conf"
    exit
fi

mkdir "$work/wheels" # torch as this machine's pip chooses it: for the CPU, where that is offered
"$python" -m pip download -q --no-deps -d "$work/wheels" -c constraints.txt torch
"$python" -m pipelines.containers.images data ngram train --base $BASE --pip-conf "$work/pip.conf" --wheels "$work/wheels"
rm -r "$work/wheels"
"$python" -m pytest -m containers -p no:cacheprovider
