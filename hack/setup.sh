#!/usr/bin/env bash
# setup.sh installs what the tests run against and this machine lacks: servers from Debian's packages, and a Kubernetes
# API server that is built from Go modules into the user's cache. What is there already is left alone.
set -euo pipefail
cd "$(dirname "$0")/.."

# command -> Debian package
declare -A packages=([redis-server]=redis-server [memcached]=memcached [gcc]=gcc)

missing=()
for command in "${!packages[@]}"; do
  command -v "$command" >/dev/null || missing+=("${packages[$command]}")
done

if [ ${#missing[@]} -gt 0 ]; then
  sudo=()
  if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
      echo "setup: the tests need ${missing[*]}; install them, or run this as root or with sudo at hand" >&2
      exit 1
    fi
    sudo=(sudo)
  fi
  if ! command -v apt-get >/dev/null; then
    echo "setup: the tests need ${missing[*]}, and there is no apt-get to install them with; install them by hand" >&2
    exit 1
  fi
  echo "setup: installing ${missing[*]}"
  # The tests start servers of their own on free ports: keep the packages from starting theirs.
  "${sudo[@]}" apt-get -qq update
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -qq -y --no-install-recommends install "${missing[@]}" </dev/null >/dev/null
fi

# The API server is kept across checkouts; another version in e2e/cluster/build.sh builds it anew.
bin=$(hack/envtest-dir.sh)
want=$(sed -n 's/^KUBE=\([0-9.]*\).*/v\1/p' e2e/cluster/build.sh)
have=$("$bin/kube-apiserver" --version 2>/dev/null | awk '{print $2}' || true)
if [ "$have" != "$want" ] || [ ! -x "$bin/etcd" ] || [ ! -x "$bin/kubectl" ]; then
  echo "setup: building kube-apiserver $want, kubectl and etcd; this takes some minutes, once"
  [ "$have" = "$want" ] || rm -f "$bin"/{kube-apiserver,kubectl}
  e2e/cluster/build.sh envtest
fi
