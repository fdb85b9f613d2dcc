package storagetest

import (
	"context"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/storage"
)

// Harness is a store to test, with other ways to open its data. The suite closes stores only to test Close. The
// function that opens a store closes it with t.Cleanup.
type Harness struct {
	// Store is empty and used by nobody else.
	Store storage.Store
	// Second opens another store on the same data under the same prefix, as a second sidecar does; nil if the data
	// belongs to one store ([Caps.NoSecond]).
	Second func(t *testing.T) storage.Store
	// Other opens a store on the same data under another prefix; nil if the data has no prefixes ([Caps.NoPrefix]).
	Other func(t *testing.T) storage.Store
}

// Caps names what a backend cannot do. Each string is the reason; "" means that the backend can do it.
type Caps struct {
	// NoLocks: the store is no [storage.Locker]. Claims are ignored.
	NoLocks string
	// NoPairs: no two keys share an atomic step.
	NoPairs string
	// NoForeignPairs: only keys of one identifier share an atomic step.
	NoForeignPairs string
	// NoInstances: the instances of an identifier cannot be listed.
	NoInstances string
	// NoCount: the store is no [storage.Counter], or its Count is ErrUnsupported.
	NoCount string
	// NoFlush: the carts of a prefix cannot be found.
	NoFlush string
	// NoFences: the store is no [storage.Fencer].
	NoFences string
	// NoWalk: the store is no [storage.Walker], or its Page is ErrUnsupported.
	NoWalk string
	// NoSecond: two stores cannot share data. Such a store is not Shared.
	NoSecond string
	// NoPrefix: no two prefixes live in the same data.
	NoPrefix string
	// MaxCartBytes is the size of a cart that the backend refuses with ErrTooLarge; 0 means that three documents of 1
	// MiB fit.
	MaxCartBytes int
	// Tick is the backend's precision of expiry, if that is coarser than a millisecond. Carts may live longer by that
	// much.
	Tick time.Duration
	// Slow says how many times longer than on other servers a call takes on the tests' server. Short lives and the time
	// that a test may take are multiplied by it. 0 stands for 1.
	Slow int
}

// Run tests the stores that open makes, one for each subtest. The subtests run in parallel.
func Run(t *testing.T, open func(t *testing.T) Harness, caps Caps) {
	for _, test := range []struct {
		name string
		run  func(*subject)
	}{
		{"Capabilities", testCapabilities},
		{"MissingCart", testMissingCart},
		{"Versions", testVersions},
		{"Steps", testSteps},
		{"Expect", testExpect},
		{"Anew", testAnew},
		{"ExpectAfterForget", testExpectAfterForget},
		{"MetadataOrder", testMetadataOrder},
		{"MetadataTombstones", testMetadataTombstones},
		{"Text", testText},
		{"InternalParts", testInternalParts},
		{"Ledger", testLedger},
		{"PendingTransfer", testPendingTransfer},
		{"Forget", testForget},
		{"Check", testCheck},
		{"LargeDocuments", testLargeDocuments},
		{"TooLarge", testTooLarge},

		{"ExpiryIsRenewed", testExpiryIsRenewed},
		{"ExpiredIsGone", testExpiredIsGone},
		{"NoExpiry", testNoExpiry},

		{"Pairs", testPairs},
		{"Place", testPlace},
		{"Names", testNames},
		{"Instances", testInstances},
		{"Flush", testFlush},
		{"Count", testCount},
		{"Reserved", testReserved},
		{"CartOutlivesCheckout", testCartOutlivesCheckout},

		{"RacingCreators", testRacingCreators},
		{"LostUpdates", testLostUpdates},
		{"LostUpdatesTwoStores", testLostUpdatesTwoStores},
		{"TornReads", testTornReads},
		{"TornReadsTwoStores", testTornReadsTwoStores},
		{"LoadedIsImmutable", testLoadedIsImmutable},

		{"Cancelled", testCancelled},
		{"DeadlinePassed", testDeadlinePassed},
		{"Closed", testClosed},
		{"ConcurrentClose", testConcurrentClose},

		{"NoLocker", testNoLocker},
		{"LockBlocks", testLockBlocks},
		{"LockedBeforeConflict", testLockedBeforeConflict},
		{"LockOfMissingCart", testLockOfMissingCart},
		{"LockOutlivesForget", testLockOutlivesForget},
		{"LockDemanded", testLockDemanded},
		{"TurnRenewed", testTurnRenewed},
		{"TurnOfOtherPartsStays", testTurnOfOtherPartsStays},
		{"Release", testRelease},
		{"ReleaseNeedsSuccess", testReleaseNeedsSuccess},
		{"Abandon", testAbandon},
		{"ClaimOnConflict", testClaimOnConflict},
		{"ClaimWhileHeld", testClaimWhileHeld},
		{"ClaimUnused", testClaimUnused},
		{"Again", testAgain},
		{"QueueOrder", testQueueOrder},
		{"QueueOrderTwoStores", testQueueOrderTwoStores},
		{"QueueDisjoint", testQueueDisjoint},
		{"QueueCrowd", testQueueCrowd},
		{"CrashedHolder", testCrashedHolder},
		{"DeadWaiter", testDeadWaiter},
		{"Heartbeat", testHeartbeat},
		{"AcquireReturnsCart", testAcquireReturnsCart},
		{"AcquireTimesOut", testAcquireTimesOut},
		{"AcquireCancelled", testAcquireCancelled},
		{"AcquireClosed", testAcquireClosed},

		{"ClientLease", testClientLease},
		{"ClientLeaseIsNoTurn", testClientLeaseIsNoTurn},
		{"ClientLeaseRenewed", testClientLeaseRenewed},
		{"ClientLeaseReentrant", testClientLeaseReentrant},
		{"ClientLeaseReleased", testClientLeaseReleased},
		{"ClientLeaseReleasedByCommit", testClientLeaseReleasedByCommit},
		{"ClientLeaseCovers", testClientLeaseCovers},
		{"ClientLeaseExpired", testClientLeaseExpired},
		{"ClientLeaseGivenUp", testClientLeaseGivenUp},
		{"ClientLeaseInCommit", testClientLeaseInCommit},
		{"ClientLeaseQueue", testClientLeaseQueue},
		{"QueueGrantsShort", testQueueGrantsShort},
		{"QueueGrantsToDeadWaiter", testQueueGrantsToDeadWaiter},
		{"QueueGrantConfirmedLate", testQueueGrantConfirmedLate},
		{"ClientLeasesRemembered", testClientLeasesRemembered},
		{"CartOutlivesLease", testCartOutlivesLease},
		{"CartOutlivesRenewal", testCartOutlivesRenewal},
		{"CartOutlivesQueuedLease", testCartOutlivesQueuedLease},
		{"RenewalKeepsDuration", testRenewalKeepsDuration},
		{"PlaceUnderLocks", testPlaceUnderLocks},
		{"PlaceKeeps", testPlaceKeeps},
		{"Marker", testMarker},
		{"FencesRaised", testFencesRaised},
		{"Walk", testWalk},
		{"StaleHolders", testStaleHolders},
		{"Fences", testFences},
		{"FencesOfCrowd", testFencesOfCrowd},
		{"FencesAfterFlush", testFencesAfterFlush},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(max(1, caps.Slow))*2*patience)
			defer cancel()
			h := open(t)
			test.run(&subject{T: t, ctx: ctx, harness: h, store: h.Store, caps: caps})
		})
	}
}

func testCapabilities(s *subject) {
	c := s.store.Capabilities()
	if c.Backend == "" {
		s.Errorf("Capabilities have no Backend")
	}
	if c.Shared && s.caps.NoSecond != "" {
		s.Errorf("Capabilities say Shared although %s", s.caps.NoSecond)
	}
	if (s.harness.Second == nil) != (s.caps.NoSecond != "") || (s.harness.Other == nil) != (s.caps.NoPrefix != "") {
		s.Errorf("the harness and Caps differ about Second or Other")
	}
	if _, ok := s.store.(storage.Locker); c.Locks && !ok {
		s.Errorf("Capabilities say Locks, but %T is no Locker", s.store)
	}
	if c.Locks != (s.caps.NoLocks == "") {
		s.Errorf("Locks = %v, but Caps.NoLocks = %q", c.Locks, s.caps.NoLocks)
	}
	if err := s.store.Ping(s.ctx); err != nil {
		s.Errorf("Ping: %v", err)
	}
}
