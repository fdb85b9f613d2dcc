// Package stories tests the whole of Sidecart on a real cluster, as its users meet it: `helm install`, `kubectl apply`
// of a CartStorage, and an app that talks to localhost, while pods come and go and things break. Each test is a story.
// They share one cluster of two nodes, and each has a namespace of its own.
//
// It needs Linux and root; elsewhere the stories are skipped and say how to run them. With SIDECART_E2E=required, as in
// CI, that is a failure.
//
// This package holds only tests and what they share.
package stories
