//go:build long

package storagetest

// How large the longest tests are. Without the build tag long they are smaller.
const (
	// staleTries is how often each of twenty holders comes too late.
	staleTries = 100
	// fenceLeases is how many leases of one name have rising fences.
	fenceLeases = 1000
	// rememberedStep says which of the leases that are remembered are asked for: every one.
	rememberedStep = 1
)
