package dynamodb

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/testserver"
)

func openDriver(t *testing.T, c Config, options ...func(*dynamodb.Options)) *driver {
	t.Helper()
	d, err := newDriver(t.Context(), c, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func attribute(name, kind string) types.AttributeDefinition {
	return types.AttributeDefinition{AttributeName: &name, AttributeType: types.ScalarAttributeType(kind)}
}

func keyElement(name, kind string) types.KeySchemaElement {
	return types.KeySchemaElement{AttributeName: &name, KeyType: types.KeyType(kind)}
}

// TestWrongTable: a table that is not Sidecart's is refused in words that say what is wrong, and nothing is written.
func TestWrongTable(t *testing.T) {
	server := testserver.StartDynalite(t)
	for want, table := range map[string]dynamodb.CreateTableInput{
		"has partition key identifier of type S: it needs": {
			AttributeDefinitions: []types.AttributeDefinition{attribute("identifier", "S")}, KeySchema: []types.KeySchemaElement{keyElement("identifier", "HASH")},
		},
		"has partition key identifier of type S and sort key instance of type N: it needs": {
			AttributeDefinitions: []types.AttributeDefinition{attribute("identifier", "S"), attribute("instance", "N")},
			KeySchema:            []types.KeySchemaElement{keyElement("identifier", "HASH"), keyElement("instance", "RANGE")},
		},
		"has partition key instance of type S and sort key identifier of type S: it needs": {
			AttributeDefinitions: []types.AttributeDefinition{attribute("identifier", "S"), attribute("instance", "S")},
			KeySchema:            []types.KeySchemaElement{keyElement("instance", "HASH"), keyElement("identifier", "RANGE")},
		},
	} {
		c := configAt(server.Endpoint)
		d := openDriver(t, c)
		table.TableName, table.BillingMode = &c.Table, types.BillingModePayPerRequest
		if _, err := d.client.CreateTable(t.Context(), &table); err != nil {
			t.Fatal(err)
		}
		s := openStore(t, c)
		_, err := s.Commit(t.Context(), change(&cart.Cart{}, `{}`))
		for _, err := range []error{err, s.Ping(t.Context())} {
			words, _ := storage.RefusalOf(err)
			if !errors.Is(err, storage.ErrUnavailable) || !strings.HasPrefix(words, "table carts "+want) {
				t.Errorf("%q, %v; want %q", words, err, want)
			}
		}
		if _, err := d.client.DeleteTable(t.Context(), &dynamodb.DeleteTableInput{TableName: &c.Table}); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(30 * time.Second); ; {
			if _, err := d.describe(t.Context()); code(err) == codeTableMissing {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("the table stays")
			}
		}
	}
}

// TestMissingTable: without createTable the words say what to do. With it the table is created, and created again if
// somebody deletes it.
func TestMissingTable(t *testing.T) {
	server := testserver.StartDynalite(t)
	c := configAt(server.Endpoint)
	c.CreateTable = false
	s := openStore(t, c)
	_, err := s.Load(t.Context(), u1)
	for _, err := range []error{err, s.Ping(t.Context())} {
		words, _ := storage.RefusalOf(err)
		if !errors.Is(err, storage.ErrUnavailable) || words != "table carts is not there: make it with "+wantedKey+", or set createTable" {
			t.Errorf("%q, %v", words, err)
		}
	}

	c.CreateTable = true
	maker := openStore(t, c)
	mustCommit(t, maker, change(&cart.Cart{}, `{}`))
	d := openDriver(t, c)
	table, err := d.describe(t.Context())
	if err != nil || d.fits(table) != nil || table.BillingModeSummary.BillingMode != types.BillingModePayPerRequest {
		t.Errorf("made %+v, %v", table, err)
	}
	if c := mustLoad(t, s); c.Version != 1 {
		t.Errorf("the other store reads version %d", c.Version)
	}

	if _, err := d.client.DeleteTable(t.Context(), &dynamodb.DeleteTableInput{TableName: &c.Table}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(t.Context(), u1); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("Load of a table that was deleted: %v", err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		if err := maker.Ping(t.Context()); err == nil {
			break
		} else if !errors.Is(err, storage.ErrUnavailable) || time.Now().After(deadline) {
			t.Fatalf("Ping of a table that was deleted: %v", err)
		}
	}
	mustCommit(t, s, change(&cart.Cart{}, `{}`))
}

// TestTenMakers: sidecars that start together agree on who makes the table, and all wait until it is there.
func TestTenMakers(t *testing.T) {
	server := testserver.StartDynalite(t, 300*time.Millisecond)
	var wg sync.WaitGroup
	for range 10 {
		s := openStore(t, configAt(server.Endpoint))
		wg.Go(func() {
			if err := s.Ping(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()

	// One that cannot wait so long says why.
	c := configAt(testserver.StartDynalite(t, time.Hour).Endpoint)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	err := openStore(t, c).Ping(ctx)
	if words, _ := storage.RefusalOf(err); !errors.Is(err, storage.ErrUnavailable) || words != "table carts: it is being made" {
		t.Errorf("%q, %v", words, err)
	}
}

// TestTimeToLive: a created table deletes expired items if the server can, and Advice says if it does not.
func TestTimeToLive(t *testing.T) {
	server := testserver.StartDynalite(t)
	p := startProxy(t, server.Endpoint)
	var asked string
	p.inject(func(operation string, _ int, body string) (f fault) {
		if operation == "UpdateTimeToLive" { // dynalite has none
			asked = body
			f.before = &reply{status: http.StatusOK}
		}
		return f
	})
	s := openStore(t, configAt(p.URL))
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(asked, `"AttributeName":"expires"`) || !strings.Contains(asked, `"Enabled":true`) {
		t.Errorf("time to live was asked for by %q", asked)
	}
	advice, err := s.Advice(t.Context())
	if err != nil || len(advice) != 1 || advice[0].Code != storage.AdviceExpiredStay {
		t.Errorf("without time to live: %+v, %v", advice, err)
	}
	c := configAt(server.Endpoint)
	c.CreateTable = false
	p.inject(func(string, int, string) fault { return fault{} })
	if err := openStore(t, c).Ping(t.Context()); err != nil || p.count("UpdateTimeToLive") != 0 {
		t.Errorf("a table that was not to be made: %v", err)
	}
	// Without the right to ask there is no advice, rather than advice that may be wrong.
	p.first(1<<20, "DescribeTimeToLive", fault{before: &reply{400, "AccessDeniedException", "no"}})
	if advice, err := s.Advice(t.Context()); err != nil || len(advice) != 0 {
		t.Errorf("without the right to ask: %+v, %v", advice, err)
	}
}

// stored puts an item as it is into the table.
func stored(t *testing.T, d *driver, key cart.Key, state *storage.State, revision uint64, expires int64) {
	t.Helper()
	a := d.space.key(key)
	a[attrState] = &types.AttributeValueMemberB{Value: storage.EncodeState(state, []byte("{}"), []byte("{}"))}
	a[attrRevision] = number(revision)
	if expires != 0 {
		a[attrExpires] = number(expires)
	}
	if _, err := d.client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &d.table, Item: a}); err != nil {
		t.Fatal(err)
	}
}

// TestExpiredItemStays: an expired item that DynamoDB has not deleted yet does not count: no call shows it, a new cart
// takes its place, and no change starts from it.
func TestExpiredItemStays(t *testing.T) {
	server := testserver.StartDynalite(t)
	d := openDriver(t, configAt(server.Endpoint))
	s := openStore(t, configAt(server.Endpoint))
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	// By what it says of itself, the cart would live for ever.
	state := &storage.State{Cart: cart.Cart{ID: "old", Version: 7, CreatedAt: time.UnixMilli(1), UpdatedAt: time.UnixMilli(1)}}
	past := time.Now().Add(-time.Hour).Unix()
	stored(t, d, u1, state, 42, past)
	if c := mustLoad(t, s); c.Exists() {
		t.Errorf("Load: %+v", c)
	}
	if list, err := s.Instances(t.Context(), u1.Identifier); err != nil || len(list) != 0 {
		t.Errorf("Instances: %q, %v", list, err)
	}
	if n, _, err := s.Count(t.Context(), 10); err != nil || n != 0 {
		t.Errorf("Count: %d, %v", n, err)
	}
	if swapped, err := d.Swap(t.Context(), u1, 42, []byte("x"), time.Time{}); swapped || err != nil {
		t.Errorf("Swap of an item that is over: %v, %v", swapped, err)
	}
	mustCommit(t, s, change(&cart.Cart{}, `{"new":1}`))
	if c := mustLoad(t, s); c.Version != 1 || c.ID == "old" {
		t.Errorf("made anew: %+v", c)
	}
	// A store that still believes that nothing is there does not overwrite it.
	if swapped, err := d.Swap(t.Context(), u1, 0, []byte("x"), time.Time{}); swapped || err != nil {
		t.Errorf("Swap in place of nothing: %v, %v", swapped, err)
	}
	// An item that another program wrote is not a cart.
	a := d.space.key(cart.Key{Identifier: "u2", Instance: "default"})
	a["revision"] = &types.AttributeValueMemberS{Value: "x"}
	if _, err := d.client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &d.table, Item: a}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(t.Context(), cart.Key{Identifier: "u2", Instance: "default"}); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("Load of what is no cart: %v", err)
	}
}

// TestItemLimit: the largest item that DynamoDB takes is sent, and one more byte is refused before.
func TestItemLimit(t *testing.T) {
	server := testserver.StartDynalite(t)
	p := startProxy(t, server.Endpoint)
	d := openDriver(t, configAt(p.URL))
	fits := maxItemBytes
	for {
		_, err := d.space.encode(u1, make([]byte, fits), newRevision(), time.Now())
		if err == nil {
			break
		}
		fits--
	}
	if maxItemBytes-fits > 150 {
		t.Errorf("%d bytes are kept for names and numbers", maxItemBytes-fits)
	}
	if swapped, err := d.Swap(t.Context(), u1, 0, make([]byte, fits-11), time.Now().Add(time.Hour)); !swapped || err != nil {
		t.Errorf("the largest: %v, %v", swapped, err)
	}
	n := p.count("PutItem")
	swapped, err := d.Swap(t.Context(), u1, 0, make([]byte, maxItemBytes), time.Now().Add(time.Hour))
	if swapped || !errors.Is(err, storage.ErrTooLarge) || !strings.Contains(err.Error(), "at most 409600") || p.count("PutItem") != n {
		t.Errorf("one that is too large: %v, %v, sent %d", swapped, err, p.count("PutItem")-n)
	}
	if v, _, err := d.Get(t.Context(), u1); err != nil || len(v) != fits-11 {
		t.Errorf("afterwards %d bytes are there, %v", len(v), err)
	}
}

// TestFlushManyPages: a flush deletes what is on all pages, and nothing of another prefix that begins alike.
func TestFlushManyPages(t *testing.T) {
	server := testserver.StartDynalite(t)
	c := configAt(server.Endpoint)
	d := openDriver(t, c)
	c.Prefix = "cart2"
	other := openStore(t, c)
	mustCommit(t, other, change(&cart.Cart{}, `{}`))
	for i := range 12 { // of 300 KB each, three to a page of 1 MB
		key := cart.Key{Identifier: "u", Instance: string(rune('a' + i))}
		if _, err := d.Swap(t.Context(), key, 0, storage.EncodeState(&storage.State{Cart: cart.Cart{ID: "x", Version: 1}}, make([]byte, 300<<10), nil), time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := d.Count(t.Context(), 100); n != 12 || err != nil {
		t.Errorf("Count: %d, %v", n, err)
	}
	if n, err := d.Count(t.Context(), 5); n != 5 || err != nil {
		t.Errorf("Count of 5 at most: %d, %v", n, err)
	}
	if list, err := d.Instances(t.Context(), "u"); len(list) != 12 || err != nil {
		t.Errorf("Instances: %q, %v", list, err)
	}
	if err := d.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	out, err := d.client.Scan(t.Context(), &dynamodb.ScanInput{TableName: &d.table})
	if err != nil || len(out.Items) != 1 || out.Items[0][attrIdentifier].(*types.AttributeValueMemberS).Value != "cart2/u1" {
		t.Errorf("a flush left %d items, %v", len(out.Items), err)
	}
}

// TestCheckIsShared: calls that come while the table is checked end with that check, not one after the other.
func TestCheckIsShared(t *testing.T) {
	server := testserver.StartDynalite(t)
	c := configAt(server.Endpoint)
	c.ReadTimeout, c.WriteTimeout = 500*time.Millisecond, 500*time.Millisecond
	d := openDriver(t, c)
	server.Pause()
	begun := time.Now()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if _, _, err := d.Get(t.Context(), u1); !errors.Is(err, storage.ErrUnavailable) {
				t.Errorf("Get: %v", err)
			}
		})
	}
	all.Wait()
	if took := time.Since(begun); took > 5*c.ReadTimeout {
		t.Errorf("20 calls of a frozen server took %v", took)
	}
}
