#!/usr/bin/env bash
# setup.sh installs what the tests need and this machine lacks: servers and tools from Debian's packages, and the
# programs of a Kubernetes cluster, which are built from Go modules into the user's cache. It leaves alone what is there.
set -euo pipefail
cd "$(dirname "$0")/.."

# command -> Debian package
declare -A packages=([redis-server]=redis-server [memcached]=memcached [gcc]=gcc [sqlite3]=sqlite3 [node]=nodejs [npm]=npm [mariadbd]=mariadb-server [pgbouncer]=pgbouncer [psql]=postgresql [chromium]=chromium)
# A cluster's nodes need these, and runc needs a header to be built.
[ "$(uname)" = Linux ] && [ "$(id -u)" = 0 ] && packages+=([ip]=iproute2 [iptables]=iptables [nft]=nftables [sysctl]=procps [pkg-config]=pkg-config)

PATH+=:/usr/sbin:/sbin
missing=()
for command in "${!packages[@]}"; do
  command -v "$command" >/dev/null || missing+=("${packages[$command]}")
done
if [ "${packages[pkg-config]-}" ] && ! pkg-config --exists libseccomp 2>/dev/null; then missing+=(libseccomp-dev); fi

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

# dynalite, which the tests of DynamoDB run against, in the version that they name.
dynalite=$(sed -n 's/^const DynaliteVersion = "\(.*\)"$/\1/p' internal/testserver/dynalite.go)
dir=${XDG_CACHE_HOME:-$HOME/.cache}/sidecart-dynalite/$dynalite
if [ ! -f "$dir/complete" ]; then
  echo "setup: installing dynalite $dynalite"
  rm -rf "$dir"
  mkdir -p "$dir"
  # It needs no compiled parts: what would be compiled is a database on disk, which the tests do without.
  npm install --prefix "$dir" --no-audit --no-fund --omit=optional --ignore-scripts --loglevel=error "dynalite@$dynalite" >/dev/null
  touch "$dir/complete"
fi

# A gRPC client of another language, in the versions that the tests name.
grpcjs=$(sed -n 's/^\tGRPCJSVersion *= "\(.*\)"$/\1/p' internal/testserver/grpcjs.go)
loader=$(sed -n 's/^\tProtoLoaderVersion *= "\(.*\)"$/\1/p' internal/testserver/grpcjs.go)
dir=${XDG_CACHE_HOME:-$HOME/.cache}/sidecart-grpcjs/$grpcjs-$loader
if [ ! -f "$dir/complete" ]; then
  echo "setup: installing grpc-js $grpcjs"
  rm -rf "$dir"
  mkdir -p "$dir"
  npm install --prefix "$dir" --no-audit --no-fund --ignore-scripts --loglevel=error "@grpc/grpc-js@$grpcjs" "@grpc/proto-loader@$loader" >/dev/null
  touch "$dir/complete"
fi

# Programs are kept across checkouts. Where a whole cluster cannot run, its API server still can.
if [ "$(uname)" = Linux ] && [ "$(id -u)" = 0 ]; then
  e2e/cluster/build.sh
else
  e2e/cluster/build.sh envtest helm
fi
