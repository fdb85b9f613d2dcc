// Command sidecar serves carts on localhost, from the backend that its configuration names.
//
// This package owns flags, environment, signals, exit codes and the wiring of the rooms: it opens the backend, gives it
// to the coordinator and that to the proxy, and replaces them when the configuration changes. It knows nothing of carts
// and nothing of Kubernetes.
//
// Exit codes: 0 after a graceful stop or an answered command; 1 when serving failed, did not stop in time or was
// stopped twice, and when validate found problems; 2 when the command line or the configuration is wrong.
package main
