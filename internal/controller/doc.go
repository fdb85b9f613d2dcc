// Package controller is the operator: everything that talks to the API server.
//
//   - [Reconciler] keeps the ConfigMap of each CartStorage, the annotations of its
//     pods and its status as they should be.
//   - [Injector] is the webhook that gives pods their sidecar.
//   - [Filler] is the webhook that notes where carts come from that are to move.
//   - [Certificates] makes and renews the certificate of the webhooks.
//   - [New] puts them together.
//
// What is to be written is decided by the pure functions of package render; this package gathers what they need and
// writes what they say. It reads no Secret but the one with its own certificate, and the sidecars work without it.
//
// It may import the API, render and controller-runtime, never a backend.
package controller
