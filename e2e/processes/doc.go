// Package processes tests the sidecar from outside: real processes of the built binary, on real backends, killed and
// restarted while clients change carts. This package holds only tests and what they share.
package processes
