// Package render turns a CartStorage into the objects that the cluster needs, by pure functions:
//
//   - [Config] and [ConfigMap]: the configuration that the sidecars load;
//   - [Pod]: a pod with its sidecar;
//   - [DecideLocking]: whether distributed locking is on, from what could write.
//
// The same input always gives the same output, byte by byte. Secrets never appear in it: they are mounted, and only the
// paths of their files are named.
//
// It may import the API, the configuration and the types of Kubernetes. It never talks to anything.
package render
