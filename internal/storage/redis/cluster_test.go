package redis

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/testserver"
)

// TestSlotMigration: while a slot moves, a commit waits, is made once, and on the right node.
func TestSlotMigration(t *testing.T) {
	c := testserver.StartRedisCluster(t, 3)
	s := open(t, Config{Addresses: c.Addrs(), Mode: Cluster})
	mustCommit(t, s, storage.Committed, replace(u1, &cart.Cart{}, `{"a":1}`))
	connected(t, s)
	was := mustLoad(t, s, u1)
	n := s.space.names(u1)
	slot := do(t, c.Nodes[0], "CLUSTER", "KEYSLOT", n.cart)
	var from, to *testserver.Redis
	for _, node := range c.Nodes {
		if _, err := node.Do("EXISTS", n.cart); err == nil {
			from = node
		} else {
			to = node
		}
	}
	fromID, toID := do(t, from, "CLUSTER", "MYID"), do(t, to, "CLUSTER", "MYID")
	do(t, to, "CLUSTER", "SETSLOT", slot, "IMPORTING", fromID)
	do(t, from, "CLUSTER", "SETSLOT", slot, "MIGRATING", toID)
	host, port, _ := net.SplitHostPort(to.Addr)
	for _, k := range []string{n.cart, n.index} {
		if got := do(t, from, "MIGRATE", host, port, k, "0", "5000"); got != "OK" {
			t.Fatalf("MIGRATE %s: %s", k, got)
		}
	}
	done := make(chan error, 1)
	go func() {
		outs, err := s.Commit(t.Context(), replace(u1, was, `{"b":1}`))
		if err == nil && outs[0].Status != storage.Committed {
			err = errors.New("not committed")
		}
		done <- err
	}()
	other, claim := cart.Key{Identifier: u1.Identifier, Instance: "leased"}, leaseOf(cart.PartAll)
	granted := acquireLater(t.Context(), s, other, claim, false)
	await(t, "the commit meets keys on the move", func() bool {
		return strings.Contains(do(t, to, "INFO", "errorstats"), "errorstat_TRYAGAIN")
	})
	for _, node := range []*testserver.Redis{to, from} {
		do(t, node, "CLUSTER", "SETSLOT", slot, "NODE", toID)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	receive(t, granted)
	if l, err := s.Lease(t.Context(), other, claim.Token); err != nil || l.Fence == 0 {
		t.Errorf("a lease that was asked for meanwhile: %+v, %v", l, err)
	}
	if now := mustLoad(t, s, u1); now.Version != 2 {
		t.Errorf("version %d, want 2", now.Version)
	}
	if do(t, to, "EXISTS", n.cart) != "1" {
		t.Error("the cart is not on the new node")
	}
}

// TestSlotThatStaysOnItsWay: if a move stops halfway, every call is answered at its deadline, and none is made.
func TestSlotThatStaysOnItsWay(t *testing.T) {
	c := testserver.StartRedisCluster(t, 3)
	s := open(t, Config{Addresses: c.Addrs(), Mode: Cluster})
	mustCommit(t, s, storage.Committed, replace(u1, &cart.Cart{}, `{"a":1}`))
	connected(t, s)
	was := mustLoad(t, s, u1)
	key := s.space.names(u1).cart
	slot := do(t, c.Nodes[0], "CLUSTER", "KEYSLOT", key)
	var from, to *testserver.Redis
	for _, node := range c.Nodes {
		if _, err := node.Do("EXISTS", key); err == nil {
			from = node
		} else {
			to = node
		}
	}
	do(t, to, "CLUSTER", "SETSLOT", slot, "IMPORTING", do(t, from, "CLUSTER", "MYID"))
	do(t, from, "CLUSTER", "SETSLOT", slot, "MIGRATING", do(t, to, "CLUSTER", "MYID"))
	const most = 300 * time.Millisecond
	within := func(call func(ctx context.Context) error) error {
		ctx, cancel := context.WithTimeout(t.Context(), most)
		defer cancel()
		start := time.Now()
		err := call(ctx)
		if took := time.Since(start); took > most+patient/4 {
			t.Errorf("a call took %v", took)
		}
		return err
	}
	commit := within(func(ctx context.Context) error {
		_, err := s.Commit(ctx, replace(u1, was, `{"b":1}`))
		return err
	})
	acquire := within(func(ctx context.Context) error {
		_, err := s.Acquire(ctx, u1, claimOf(cart.PartItems), false)
		return err
	})
	if !errors.Is(commit, context.DeadlineExceeded) || !errors.Is(acquire, storage.ErrLockTimeout) {
		t.Errorf("Commit: %v, Acquire: %v, want their deadlines", commit, acquire)
	}
	do(t, from, "CLUSTER", "SETSLOT", slot, "STABLE")
	do(t, to, "CLUSTER", "SETSLOT", slot, "STABLE")
	if now := mustLoad(t, s, u1); now.Version != was.Version {
		t.Errorf("version %d, want %d", now.Version, was.Version)
	}
	mustCommit(t, s, storage.Committed, replace(u1, was, `{"c":1}`))
}

// TestAtomicAcrossSlots: in a Cluster, carts of one slot are one step, others are refused.
func TestAtomicAcrossSlots(t *testing.T) {
	c := testserver.StartRedisCluster(t, 3)
	s := open(t, Config{Addresses: c.Addrs(), Mode: Cluster})
	a := cart.Key{Identifier: "foo", Instance: "default"}
	same, apart := a, a
	for i := 0; ; i++ {
		k := cart.Key{Identifier: randomName(), Instance: "default"}
		if s.Atomic(a, k) {
			same = k
			break
		}
		apart = k
	}
	outs, err := s.Commit(t.Context(), replace(a, &cart.Cart{}, `{"a":1}`), replace(same, &cart.Cart{}, `{"b":1}`))
	if err != nil || outs[0].Status != storage.Committed || outs[1].Status != storage.Committed {
		t.Errorf("one slot: %+v, %v", outs, err)
	}
	if _, err := s.Commit(t.Context(), replace(a, &cart.Cart{}, `{}`), replace(apart, &cart.Cart{}, `{}`)); !errors.Is(err, storage.ErrUnsupported) {
		t.Errorf("two slots: %v, want ErrUnsupported", err)
	}
}
