// Package config is the one type that a sidecar runs on, and everything that is done with it before it runs: defaults,
// strict loading, layering, validation and writing. The operator renders a [Config], the sidecar loads it; nothing else
// passes between the two.
//
// A configuration comes in layers: defaults, then the file, then the environment, then flags; see [Builder]. Secrets
// never stand in it: it names the files that hold them.
//
// The package imports the standard library and one YAML library. It opens no files and knows neither flags nor
// backends.
package config
