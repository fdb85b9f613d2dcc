// Package proxy serves carts over gRPC and over HTTP and JSON: the handlers, the gateway with its codec, the mapping of
// errors, health, metrics and the status page. Both fronts call the same handlers in process; what must hold for both
// (timeouts, error mapping, metrics, the swap of backends) is in [service].
//
// It imports lock, cart, storage's sentinels and the generated proto package, never a backend.
package proxy
