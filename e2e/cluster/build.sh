#!/bin/bash
# build.sh [part ...]: builds the cluster's programs from Go modules into $K8S_ROOT/bin and its images into $K8S_ROOT/img/out.
# Parts: envtest (kube-apiserver, etcd, kubectl) | cluster (the rest of Kubernetes, containerd, runc, CNI, CoreDNS, images) | helm.
# None named: cluster and helm. A program that was built of the same version with the same flags is left alone, one that
# was not is built anew. The first build takes about ten minutes on two cores.
set -euo pipefail
R=${K8S_ROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/sidecart-cluster}; B=$R/bin; M=$R/modules; H=$(cd "$(dirname "$0")" && pwd)
KUBE=1.37.2 ETCD=3.7.0 CONTAINERD=2.4.2 RUNC=1.5.2 CNI=1.9.1 COREDNS=1.15.0 HELM=4.3.1
mkdir -p "$B/cni" "$B/.keys" "$M"

# What a file was made from is kept beside it: its key. One that is cut off while it is built has none.
fresh() { [ -e "$2" ] && [ "$(cat "$B/.keys/$1" 2>/dev/null)" = "$3" ]; } # name file key
made() { echo "$2" >"$B/.keys/$1"; }                                      # name key

# module NAME VERSION PACKAGE...: a scratch module of its own for each program, so that their dependencies never meet
module() {
  local dir=$M/$1 version=$2 args=() p; shift 2
  [ "$(cat "$dir/done" 2>/dev/null)" = "$version" ] && return
  rm -rf "$dir"; mkdir -p "$dir"; cd "$dir"
  go mod init "scratch/$(basename "$dir")" 2>/dev/null
  for p in "$@"; do args+=("$p@v$version"); done
  # It names every module it adds, which is of no use unless it fails.
  p=$(go get -tool "${args[@]}" 2>&1) || { echo "$p" >&2; exit 1; }
  echo "$version" >done
}
# kubernetes' own go.mod requires its staging modules at v0.0.0 and replaces them by folders: name the published ones instead
kube_module() {
  [ "$(cat "$M/kube/done" 2>/dev/null)" = "$KUBE" ] && return
  rm -rf "$M/kube"; mkdir -p "$M/kube"; cd "$M/kube"
  local mod; mod=$(go mod download -json "k8s.io/kubernetes@v$KUBE" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
  { echo "module scratch/kube"; grep -E '^(go|godebug) ' "$mod"; echo "require k8s.io/kubernetes v$KUBE"; echo "replace ("
    sed -n 's/^\t\(k8s\.io\/[a-z0-9-]*\) v0\.0\.0\( .*\)\{0,1\}$/\1/p' "$mod" | sort -u | while read -r m; do echo "	$m => $m v0.${KUBE#1.}"; done; echo ")"; } >go.mod
  { echo '//go:build tools'; echo; echo 'package tools'; echo; echo 'import ('
    for c in kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubelet kubectl; do echo "	_ \"k8s.io/kubernetes/cmd/$c\""; done; echo ')'; } >tools.go
  go mod tidy; echo "$KUBE" >done
}
kube() { # program...: plain builds would call themselves v0.0.0, which clients refuse
  local v=k8s.io/component-base/version c flags key todo=()
  flags="-s -w -X $v.gitVersion=v$KUBE -X $v.gitMajor=1 -X $v.gitMinor=${KUBE:2:2} -X $v.gitTreeState=clean -X $v.gitCommit=0000000000000000000000000000000000000000 -X $v.buildDate=1970-01-01T00:00:00Z"
  key="$KUBE $flags"
  for c in "$@"; do fresh "$c" "$B/$c" "$key" || todo+=("$c"); done
  [ ${#todo[@]} = 0 ] && return
  echo "build.sh: building ${todo[*]} $KUBE"
  kube_module; cd "$M/kube"
  CGO_ENABLED=0 go build -trimpath -ldflags "$flags" -o "$B/" "${todo[@]/#/k8s.io/kubernetes/cmd/}"
  for c in "${todo[@]}"; do made "$c" "$key"; done
}
# program FILE VERSION PACKAGE [cgo] [tags] [ldflags]: of the module that was made with that version
program() {
  local name=${1##*/} key="$2 $3 ${4:-0} ${5:-} ${6:-}"
  fresh "$name" "$B/$1" "$key" && return
  echo "build.sh: building $name $2"
  "module_$MODULE"; cd "$M/$MODULE"
  CGO_ENABLED=${4:-0} go build -trimpath -tags "${5:-}" -ldflags "-s -w ${6:-}" -o "$B/$1" "$3"
  made "$name" "$key"
}

module_etcd() { module etcd $ETCD go.etcd.io/etcd/server/v3; }
module_containerd() { module containerd $CONTAINERD $C/containerd $C/containerd-shim-runc-v2 $C/ctr; }
module_runc() { module runc $RUNC github.com/opencontainers/runc; }
module_cni() { module cni $CNI $P/ipam/host-local $P/main/bridge $P/main/loopback $P/meta/portmap; }
module_coredns() { module coredns $COREDNS github.com/coredns/coredns; }
module_helm() { module helm $HELM helm.sh/helm/v4/cmd/helm; }
C=github.com/containerd/containerd/v2/cmd P=github.com/containernetworking/plugins/plugins

envtest() {
  kube kube-apiserver kubectl
  MODULE=etcd program etcd $ETCD go.etcd.io/etcd/server/v3
}
cluster() {
  envtest; kube kube-controller-manager kube-scheduler kubelet kube-proxy
  local p
  for p in containerd containerd-shim-runc-v2 ctr; do
    MODULE=containerd program $p $CONTAINERD $C/$p 0 "" "-X ${C%/cmd}/version.Version=v$CONTAINERD"
  done
  # seccomp needs cgo and libseccomp-dev
  MODULE=runc program runc $RUNC github.com/opencontainers/runc 1 "seccomp netgo osusergo" "-X main.version=$RUNC"
  for p in ipam/host-local main/bridge main/loopback meta/portmap; do MODULE=cni program "cni/${p##*/}" $CNI $P/$p; done
  MODULE=coredns program coredns $COREDNS github.com/coredns/coredns
  images
}
images() { # no registry: a static binary becomes a one-layer image in an archive that containerd imports
  local i=$R/img/out key
  key="$COREDNS $(cat "$H"/img/go.* "$H"/img/*/*.go | sha256sum)"
  fresh images "$i/coredns.tar" "$key" && return
  echo "build.sh: making images"
  mkdir -p "$i"; cd "$H/img"
  go build -trimpath -o "$B/mkimage" ./mkimage
  CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$i/pause" ./pause
  "$B/mkimage" -t registry.local/pause:1 -o "$i/pause.tar" -entrypoint /pause -user 65535:65535 "$i/pause:/pause"
  "$B/mkimage" -t registry.local/coredns:1 -o "$i/coredns.tar" -entrypoint /coredns -user 65532:65532 -dir /tmp "$B/coredns:/coredns"
  made images "$key"
}
helm() { MODULE=helm program helm $HELM helm.sh/helm/v4/cmd/helm; }

[ $# -gt 0 ] || set -- cluster helm
for part in "$@"; do "$part"; done
