#!/usr/bin/env bash
# envtest-dir.sh prints where e2e/cluster/build.sh puts kube-apiserver and etcd: what KUBEBUILDER_ASSETS must be.
echo "${K8S_ROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/sidecart-cluster}/bin"
