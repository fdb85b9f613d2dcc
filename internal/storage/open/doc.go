// Package open turns a configuration into the store that it names: the one switch over all backends, the order of the
// decorators around one, and the one place that reads secret files.
//
// It imports config and every storage room. It opens; it never decides what a configuration should say.
package open
