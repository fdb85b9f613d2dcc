//go:build !long

package storagetest

// How large the longest tests are. With the build tag long they are larger.
const (
	// staleTries is how often each of twenty holders comes too late.
	staleTries = 25
	// fenceLeases is how many leases of one name have rising fences.
	fenceLeases = 250
	// rememberedStep says which of the leases that are remembered are asked for: every so many.
	rememberedStep = 25
)
