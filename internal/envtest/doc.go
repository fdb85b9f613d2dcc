// Package envtest starts a real API server for tests: kube-apiserver and etcd, on free ports, with the CRD of this
// project installed. Every test of a binary shares one; a [Cluster.Namespace] keeps them apart.
//
// It is for tests only. Missing programs are a failure, never a skip.
package envtest
