// Package observe finds the updates that programs lose when they change carts by reading and writing them whole,
// without a lock: two read the same cart, both write it, and the change of the first is gone.
//
// A [Detector] is told of the values of carts one after another, and judges each write by the two values before it. It
// knows nothing of the place where the carts are. What it counts as lost is a lower bound: see [Detector.Saw].
package observe
