package dynamodb

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go/middleware"
	"github.com/google/go-cmp/cmp"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/testserver"
)

// meter adds up what calls cost. A condition that fails costs what the write would have; the server of the tests does
// not say so.
type meter struct {
	mu          sync.Mutex
	read, write float64
	refused     int
}

func (m *meter) option(o *dynamodb.Options) {
	o.APIOptions = append(o.APIOptions, func(s *middleware.Stack) error {
		return s.Initialize.Add(middleware.InitializeMiddlewareFunc("Meter", m.handle), middleware.Before)
	})
}

func (m *meter) handle(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
	const total = types.ReturnConsumedCapacityTotal
	switch p := in.Parameters.(type) {
	case *dynamodb.GetItemInput:
		p.ReturnConsumedCapacity = total
	case *dynamodb.QueryInput:
		p.ReturnConsumedCapacity = total
	case *dynamodb.PutItemInput:
		p.ReturnConsumedCapacity = total
	case *dynamodb.DeleteItemInput:
		p.ReturnConsumedCapacity = total
	}
	out, metadata, err := next.HandleInitialize(ctx, in)
	m.mu.Lock()
	defer m.mu.Unlock()
	if code(err) == codeConditionFailed {
		m.refused++
	}
	if err != nil {
		return out, metadata, err
	}
	switch o := out.Result.(type) {
	case *dynamodb.GetItemOutput:
		m.read += *o.ConsumedCapacity.CapacityUnits
	case *dynamodb.QueryOutput:
		m.read += *o.ConsumedCapacity.CapacityUnits
	case *dynamodb.PutItemOutput:
		m.write += *o.ConsumedCapacity.CapacityUnits
	case *dynamodb.DeleteItemOutput:
		m.write += *o.ConsumedCapacity.CapacityUnits
	}
	return out, metadata, nil
}

// cost is what f costs, as "1 read, 2 write".
func (m *meter) cost(t *testing.T, f func() error) string {
	t.Helper()
	m.mu.Lock()
	m.read, m.write, m.refused = 0, 0, 0
	m.mu.Unlock()
	if err := f(); err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	text := fmt.Sprintf("%g read, %g write", m.read, m.write)
	if m.refused > 0 {
		text += fmt.Sprintf(", %d refused", m.refused)
	}
	return text
}

// TestCapacity: what doc.go says that a call costs.
func TestCapacity(t *testing.T) {
	server := testserver.StartDynalite(t)
	var m meter
	d := openDriver(t, configAt(server.Endpoint), m.option)
	s := cell.New(cell.Swapping(d))
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, kib := range []int{0, 10} {
		name := func(s string) string { return fmt.Sprintf("%s, %d KiB", s, max(1, kib)) }
		document := `{"a":"` + strings.Repeat("x", kib<<10-kib<<6) + `"}`
		commit := func(key string, v uint64) func() error {
			return func() error {
				c := change(&cart.Cart{}, document)
				c.Key.Identifier = key
				if v > 0 {
					c.Expect = storage.Expect{ID: c.Change.NewID, Version: v}
				}
				outs, err := s.Commit(t.Context(), c)
				if err == nil && outs[0].Status != storage.Committed {
					err = fmt.Errorf("commit: %+v", outs)
				}
				return err
			}
		}
		key := fmt.Sprint("cart", kib)
		got[name("create")] = m.cost(t, commit(key, 0))
		d.Drop(cart.Key{Identifier: key, Instance: "default"})
		got[name("commit")] = m.cost(t, commit(key, 1))
		got[name("load")] = m.cost(t, func() error {
			_, err := s.Load(t.Context(), cart.Key{Identifier: key, Instance: "default"})
			return err
		})
		if err := commit(key, 2)(); err != nil {
			t.Fatal(err)
		}
		for i := uint64(3); ; i++ { // unless the machine is too busy to be quick, or the item must be read again
			if got[name("commit after another")] = m.cost(t, commit(key, i)); strings.HasPrefix(got[name("commit after another")], "0 read") || i > 50 {
				break
			}
		}
		got[name("conflict")] = m.cost(t, func() error {
			d.Drop(cart.Key{Identifier: key, Instance: "default"})
			c := change(&cart.Cart{}, document)
			c.Key.Identifier = key
			outs, err := s.Commit(t.Context(), c)
			if err == nil && outs[0].Status != storage.Conflict {
				err = fmt.Errorf("conflict: %+v", outs)
			}
			return err
		})
	}
	got["lock and release"] = m.cost(t, func() error {
		key := cart.Key{Identifier: "locked", Instance: "default"}
		claim := storage.Claim{Token: "0123456789012345678901", Parts: []cart.Part{cart.PartAll}, Duration: time.Minute}
		if _, err := s.Acquire(t.Context(), key, claim, false); err != nil {
			return err
		}
		d.Drop(key)
		return s.Abandon(t.Context(), key, claim.Token)
	})
	got["beat"] = m.cost(t, func() error { return s.Beat(t.Context()) })
	want := map[string]string{
		"load, 1 KiB": "1 read, 0 write", "load, 10 KiB": "3 read, 0 write",
		"create, 1 KiB": "1 read, 1 write", "create, 10 KiB": "1 read, 10 write",
		"commit, 1 KiB": "1 read, 1 write", "commit, 10 KiB": "3 read, 10 write",
		"commit after another, 1 KiB": "0 read, 1 write", "commit after another, 10 KiB": "0 read, 10 write",
		"conflict, 1 KiB": "1 read, 0 write", "conflict, 10 KiB": "3 read, 0 write",
		"lock and release": "2 read, 2 write", "beat": "0.5 read, 0 write",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
