#!/bin/bash
# build.sh [part ...]: builds the cluster's programs from Go modules into $K8S_ROOT/bin and its images into $K8S_ROOT/img/out.
# Parts: envtest (kube-apiserver, etcd, kubectl) | cluster (the rest of Kubernetes, containerd, runc, CNI, CoreDNS, images) | helm.
# None named: all. What is there already is left alone. The first build takes about ten minutes on two cores.
set -euo pipefail
R=${K8S_ROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/sidecart-cluster}; B=$R/bin; M=$R/modules; H=$(cd "$(dirname "$0")" && pwd)
KUBE=1.37.2 ETCD=3.7.0 CONTAINERD=2.4.2 RUNC=1.5.2 CNI=1.9.1 COREDNS=1.15.0 CRICTL=1.37.0 HELM=4.3.1
mkdir -p $B/cni $M

# module NAME VERSIONED-MODULE PACKAGE...: a scratch module of its own for each program, so that their dependencies never meet
module() {
  local dir=$M/$1 mod=$2; shift 2
  [ -f $dir/done ] && return
  rm -rf $dir; mkdir -p $dir; cd $dir
  go mod init scratch/$(basename $dir) 2>/dev/null
  local args=(); for p in "$@"; do args+=("$p@${mod#*@}"); done
  go get -tool "${args[@]}"; touch done
}
# kubernetes' own go.mod requires its staging modules at v0.0.0 and replaces them by folders: name the published ones instead
kube_module() {
  [ -f $M/kube/done ] && return
  rm -rf $M/kube; mkdir -p $M/kube; cd $M/kube
  local mod; mod=$(go mod download -json k8s.io/kubernetes@v$KUBE | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
  { echo "module scratch/kube"; grep -E '^(go|godebug) ' $mod; echo "require k8s.io/kubernetes v$KUBE"; echo "replace ("
    sed -n 's/^\t\(k8s\.io\/[a-z0-9-]*\) v0\.0\.0\( .*\)\{0,1\}$/\1/p' $mod | sort -u | while read -r m; do echo "	$m => $m v0.${KUBE#1.}"; done; echo ")"; } >go.mod
  { echo '//go:build tools'; echo; echo 'package tools'; echo; echo 'import ('
    for c in kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubelet kubectl; do echo "	_ \"k8s.io/kubernetes/cmd/$c\""; done; echo ')'; } >tools.go
  go mod tidy; touch done
}
kube() { # program...: plain builds would call themselves v0.0.0, which clients refuse
  local v=k8s.io/component-base/version c todo=()
  for c in "$@"; do [ -x $B/$c ] || todo+=("k8s.io/kubernetes/cmd/$c"); done
  [ ${#todo[@]} = 0 ] && return; kube_module; cd $M/kube
  CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X $v.gitVersion=v$KUBE -X $v.gitMajor=1 -X $v.gitMinor=${KUBE:2:2} -X $v.gitTreeState=clean -X $v.gitCommit=0000000000000000000000000000000000000000 -X $v.buildDate=1970-01-01T00:00:00Z" -o $B/ "${todo[@]}"
}
b() { # module-dir package output [cgo] [tags] [ldflags]
  [ -x $3 ] && return; cd $M/$1; CGO_ENABLED=${4:-0} go build -trimpath -tags "${5:-}" -ldflags "-s -w ${6:-}" -o $3 $2
}
envtest() {
  kube kube-apiserver kubectl
  module etcd m@v$ETCD go.etcd.io/etcd/server/v3; b etcd go.etcd.io/etcd/server/v3 $B/etcd
}
cluster() {
  envtest; kube kube-controller-manager kube-scheduler kubelet kube-proxy
  local c=github.com/containerd/containerd/v2 p
  module containerd m@v$CONTAINERD $c/cmd/containerd $c/cmd/containerd-shim-runc-v2 $c/cmd/ctr
  for p in containerd containerd-shim-runc-v2 ctr; do b containerd $c/cmd/$p $B/$p 0 "" "-X $c/version.Version=v$CONTAINERD"; done
  module runc m@v$RUNC github.com/opencontainers/runc
  b runc github.com/opencontainers/runc $B/runc 1 "seccomp netgo osusergo" "-X main.version=$RUNC"     # seccomp needs cgo and libseccomp-dev
  c=github.com/containernetworking/plugins/plugins
  module cni m@v$CNI $c/ipam/host-local $c/main/bridge $c/main/loopback $c/meta/portmap
  for p in ipam/host-local main/bridge main/loopback meta/portmap; do b cni $c/$p $B/cni/$(basename $p); done
  module coredns m@v$COREDNS github.com/coredns/coredns; b coredns github.com/coredns/coredns $B/coredns
  module crictl m@v$CRICTL sigs.k8s.io/cri-tools/cmd/crictl; b crictl sigs.k8s.io/cri-tools/cmd/crictl $B/crictl
  images
}
images() { # no registry: a static binary becomes a one-layer image in an archive that containerd imports
  local i=$R/img; [ -f $i/out/pause.tar ] && [ -f $i/out/coredns.tar ] && return
  mkdir -p $i/out; cd $H/img
  go build -trimpath -o $B/mkimage ./mkimage; CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o $i/out/pause ./pause; cd $i
  $B/mkimage -t registry.local/pause:1 -o out/pause.tar -entrypoint /pause -user 65535:65535 out/pause:/pause
  $B/mkimage -t registry.local/coredns:$COREDNS -o out/coredns.tar -entrypoint /coredns -user 65532:65532 -dir /tmp $B/coredns:/coredns
}
helm() { module helm m@v$HELM helm.sh/helm/v4/cmd/helm; b helm helm.sh/helm/v4/cmd/helm $B/helm; }

for part in "${@:-cluster}"; do $part; done
[ $# -gt 0 ] || helm
ls $B
