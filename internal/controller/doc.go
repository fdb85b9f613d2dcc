// Package controller is the operator: everything that talks to the API server.
//
//   - [Reconciler] keeps the ConfigMap of each CartStorage, the annotations of its
//     pods and its status as they should be.
//   - [Injector] is the webhook that gives pods their sidecar.
//   - [Filler] is the webhook that records where carts come from when they are to move.
//   - [Certificates] makes and renews the certificate of the webhooks.
//   - [New] puts them together.
//
// The pure functions of package render decide what is to be written. This package gathers their input and writes their
// output. It reads only one Secret, the one with its own certificate, and the sidecars work without it.
//
// It may import the API, render and controller-runtime, never a backend.
package controller
