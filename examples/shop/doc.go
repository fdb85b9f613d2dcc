// Command shop is a small shop that keeps its carts in the Sidecart sidecar beside it. It knows one thing about
// Sidecart, the address SIDECART_HTTP_URL, and uses no package of it: an app in any language would do the same.
//
// Sidecart's cluster tests use it too: `shop load` adds items and keeps account of what was acknowledged, and
// `shop check` compares that account with the carts.
package main
