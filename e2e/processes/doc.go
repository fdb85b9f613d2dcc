// Package processes tests the sidecar from outside: real processes of the built binary, on real backends, killed and
// restarted while clients change carts. There is nothing here but tests and what they share.
package processes
