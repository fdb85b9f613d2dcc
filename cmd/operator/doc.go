// Command operator keeps CartStorages: it gives pods their sidecar and sidecars their configuration.
//
// This package owns flags, signals, exit codes and the wiring; the work is done by internal/controller.
//
// Exit codes: 0 after a graceful stop or an answered command; 1 when running or the check failed or leadership was
// lost; 2 when the command line is wrong.
package main
