package moving_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/moving"
	"github.com/sidecart/sidecart/internal/storage/mysql"
	"github.com/sidecart/sidecart/internal/storage/postgres"
	"github.com/sidecart/sidecart/internal/storage/redis"
	"github.com/sidecart/sidecart/internal/storage/sql"
	"github.com/sidecart/sidecart/internal/testserver"
)

// payerPlaces tells a process of this test binary to play the sidecar of TestPayersKilled, and where the backends are.
const payerPlaces = "MOVING_TEST_PAYER"

// places are the backends of TestPayersKilled: carts move from Redis to PostgreSQL, and checkouts are in MariaDB.
type places struct{ redis, postgres, mariadb string }

func (p places) String() string { return strings.Join([]string{p.redis, p.postgres, p.mariadb}, " ") }

func (p places) open(ctx context.Context) (from, to, critical storage.Store, err error) {
	rc := redis.Config{Addresses: []string{p.redis}, Prefix: "cart"}
	rc.DialTimeout, rc.ReadTimeout, rc.WriteTimeout = patient, patient, patient
	audited := database(p.mariadb, "cart")
	audited.Audit = sql.Audit{Retention: time.Hour, Who: "a sidecar"}
	if from, err = redis.New(ctx, rc); err == nil {
		to, err = postgres.Open(ctx, database(p.postgres, "cart"))
	}
	if err == nil {
		critical, err = mysql.Open(ctx, audited)
	}
	return from, to, critical, err
}

// payable is how many carts there are to pay for.
const payable = 45

// payableKey is the cart of that number. Every third one has gone to another name before the move, and is asked for
// under its first name all the same.
func payableKey(i int) (name, now cart.Key) {
	name = cart.Key{Identifier: fmt.Sprint("u", i), Instance: "default"}
	if now = name; i%3 == 0 {
		now.Identifier = fmt.Sprint("v", i)
	}
	return name, now
}

// payAndExit is a sidecar that moves all carts and pays for each, and prints a line for each answer.
func payAndExit() int {
	var p places
	if _, err := fmt.Sscan(os.Getenv(payerPlaces), &p.redis, &p.postgres, &p.mariadb); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx := context.Background()
	from, to, critical, err := p.open(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	s, err := moving.New(from, to, "a payer")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go func() { _, _ = s.Finish(ctx) }()
	c := lock.NewHybrid(s, critical, paying())
	order := rand.Perm(payable)
	failed := make(chan error)
	const customers = 5
	for some := range slices.Chunk(order, payable/customers) {
		go func() {
			for _, i := range some {
				if err := pay(ctx, c, i, func(what string) { fmt.Println(i, what) }); err != nil {
					failed <- err
				}
			}
			failed <- nil
		}()
	}
	for range customers {
		if err := <-failed; err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return 0
}

// pay settles the order O of a cart, checks out what came meanwhile as P, and settles that too. Each step may have been
// made before. tell is told of each answer.
func pay(ctx context.Context, c *lock.Coordinator, i int, tell func(what string)) error {
	name, now := payableKey(i)
	settle := func(key cart.Key, id string) error {
		r, err := c.Settle(ctx, key, id, cart.Ordered, lock.Change{})
		if err == nil {
			tell(fmt.Sprint(id, " ", r.Settled))
		}
		return err
	}
	if err := settle(name, "O"); err != nil {
		return fmt.Errorf("settle O of %s: %w", name, err)
	}
	if err := checkOut(ctx, c, now, "P"); err != nil {
		return fmt.Errorf("checkout P of %s: %w", now, err)
	}
	tell("P open")
	if err := settle(now, "P"); err != nil {
		return fmt.Errorf("settle P of %s: %w", now, err)
	}
	return nil
}

// TestPayersKilled: orders that were begun before carts move are settled while they do, and others are begun and
// settled, by sidecars that are killed again and again, wherever they are. Customers go on to add, through a sidecar
// that moves carts and one that has not been told. At the end each order was taken once, and nothing else is missing.
func TestPayersKilled(t *testing.T) {
	server := testserver.StartRedis(t)
	mariadb := testserver.SharedMariaDB(t)
	p := places{server.Addr, testserver.SharedPostgres(t).NewDatabase(t), mariadb.NewDatabase(t)}
	from, to, critical, err := p.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	both := movingStore(t, from, to)
	t.Cleanup(func() { _ = critical.Close() })
	late, told := lock.NewHybrid(from, critical, paying()), lock.NewHybrid(both, critical, paying())

	var (
		mu      sync.Mutex
		added   [payable]int
		settled = map[string]int{} // how often a caller was told that it settled an order
	)
	ids := make([]string, payable)
	for i := range payable {
		name, now := payableKey(i)
		err := errors.Join(bought(t.Context(), late, name, "x", 10), bought(t.Context(), late, name, "y", 1), checkOut(t.Context(), late, name, "O"))
		if now != name && err == nil {
			_, err = late.HandOver(t.Context(), name, now, cart.StrategySwap, lock.Change{})
		}
		if err = errors.Join(err, bought(t.Context(), late, now, "x", 2)); err != nil {
			t.Fatal(err)
		}
		added[i] = 12
		k, err := late.Read(t.Context(), now)
		if err != nil {
			t.Fatal(err)
		}
		ids[i] = k.ID
	}
	ctx, stop := context.WithCancel(t.Context())
	var customers sync.WaitGroup
	defer customers.Wait()
	defer stop()
	for _, c := range []*lock.Coordinator{told, late} {
		customers.Go(func() {
			for ctx.Err() == nil {
				i := rand.N(payable)
				_, now := payableKey(i)
				switch err := bought(ctx, c, now, "x", 1); {
				case err == nil:
					mu.Lock()
					added[i]++
					mu.Unlock()
				case ctx.Err() != nil: // it may have been made: nobody asks at the end
					mu.Lock()
					added[i] = -1
					mu.Unlock()
				case c == told || !errors.Is(err, storage.ErrMoved):
					t.Errorf("a customer: %v", err)
					return
				}
			}
		})
	}
	const most = 12
	kills := 0
	for done := false; !done; {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), payerPlaces+"="+p.String())
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		after := 5 + rand.N(15)
		lines := bufio.NewScanner(out)
		for n := 1; lines.Scan(); n++ {
			if i, what, _ := strings.Cut(lines.Text(), " "); strings.HasSuffix(what, " true") {
				settled[i+" "+what]++
			}
			if n == after && kills < most {
				_ = cmd.Process.Kill()
				kills++
			}
		}
		err = cmd.Wait()
		if done = err == nil; !done && cmd.ProcessState.Exited() {
			t.Fatalf("a process that pays ended with %v", err)
		}
		if _, err := server.Do("DEL", "lock.cart.%chore.move"); err != nil { // the next walks at once
			t.Fatal(err)
		}
	}
	stop()
	customers.Wait()
	if err := walkAll(t, both); err != nil {
		t.Fatal(err)
	}
	only := lock.NewHybrid(to, critical, paying())
	for i := range payable {
		if err := checkPaid(t, only, from, i, ids[i], added[i]); err != nil {
			t.Error(i, err)
		}
	}
	for order, n := range settled {
		if n > 1 {
			t.Errorf("%s: %d callers were told that they settled it", order, n)
		}
	}
	trail, err := mariadb.Query(testserver.DatabaseOf(p.mariadb), "SELECT COUNT(*), COUNT(DISTINCT cart_id, checkout_id) FROM sidecart_audit WHERE part = 'checkout' AND kind = 'ordered'")
	if want := fmt.Sprintf("%d\t%[1]d", 2*payable); err != nil || trail != want {
		t.Errorf("the trail has %q orders, want %q: %v", trail, want, err)
	}
	t.Logf("%d processes were killed; the answers of %d settlements were lost with them", kills, 2*payable-len(settled))
	if kills == 0 {
		t.Error("no process was killed: the test shows nothing")
	}
}

// checkPaid checks the cart of that number by a sidecar that knows the new backend alone.
func checkPaid(t *testing.T, c *lock.Coordinator, from storage.Store, i int, id string, added int) error {
	name, now := payableKey(i)
	taken := 0
	for order, key := range map[string]cart.Key{"O": name, "P": now} {
		k, err := c.GetCheckout(t.Context(), key, order)
		if err != nil || k.Outcome != cart.Ordered || k.CartID != id {
			return fmt.Errorf("order %s: %+v, %w", order, k, err)
		}
		taken += quantityOf(k.Cart, "x")
	}
	k, err := c.Read(t.Context(), now)
	if err != nil {
		return err
	}
	if got := quantityOf(k, "x"); k.ID != id || quantityOf(k, "y") != 0 || added >= 0 && got != added-taken {
		return fmt.Errorf("%s: %d of x and %d of y are left, added were %d, and taken %d", now, got, quantityOf(k, "y"), added, taken)
	}
	list, err := statesOf(t.Context(), c, now)
	if err != nil || !slices.Equal(list, []string{"P ORDERED", "O ORDERED"}) {
		return fmt.Errorf("the list of %s is %v, %w", now, list, err)
	}
	if markerOf(t, from, now) != "done" || !mustLoad(t, from, now).Empty() {
		return fmt.Errorf("%s is left in the old backend", now)
	}
	return nil
}
