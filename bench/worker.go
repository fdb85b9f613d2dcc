package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"time"
)

// workerCommand as first argument makes this program one of the writers: a process of its own for each, as the pods of
// a shop are.
const workerCommand = "worker"

// order is a line that a worker reads. It gets ready, says so, and waits for the line "go".
type order struct {
	Way    string `json:"way"`
	Target string `json:"target"` // address of Redis, or of the worker's own sidecar
	Key    string `json:"key"`
	Ops    int    `json:"ops"`
	// Carts, if not 0, is how many carts the operations use in turn. Writers begin at different carts.
	Carts int `json:"carts,omitempty"`
	// For, if not 0, is how long Clients make operations at once.
	For     time.Duration `json:"for,omitempty"`
	Clients int           `json:"clients,omitempty"`
	Worker  int           `json:"worker,omitempty"`
	// Stubborn repeats an operation that fails until it is acknowledged, and answers once more when half of them are.
	Stubborn bool `json:"stubborn,omitempty"`
}

// tally is a line that a worker answers. Times are nanoseconds, on a clock that all processes of the machine share.
type tally struct {
	Error string  `json:"error,omitempty"`
	Start int64   `json:"start,omitempty"`
	End   int64   `json:"end,omitempty"`
	Ops   []int64 `json:"ops,omitempty"`
	// Clients are how many operations each client made, Failed how many ended with an error.
	Clients []int64 `json:"clients,omitempty"`
	Failed  int64   `json:"failed,omitempty"`
	// Unanswered are the numbers of the operations of a stubborn order that failed, each as often as it did.
	Unanswered []int `json:"unanswered,omitempty"`
}

func (t *tally) durations() []time.Duration {
	ds := make([]time.Duration, len(t.Ops))
	for i, op := range t.Ops {
		ds[i] = time.Duration(op)
	}
	return ds
}

// key is the cart of the n-th operation.
func (o *order) key(n int) string {
	if o.Carts == 0 {
		return o.Key
	}
	return fmt.Sprintf("%s-%d", o.Key, (n+o.Worker*o.Carts/mostWriters)%o.Carts)
}

const goLine = "go"

func runWorker(in io.Reader, out io.Writer) int {
	w := &worker{in: bufio.NewScanner(in), out: json.NewEncoder(out), clients: map[string]client{}}
	defer w.close()
	for w.in.Scan() {
		var o order
		err := json.Unmarshal(w.in.Bytes(), &o)
		var t tally
		if err == nil {
			t, err = w.carryOut(o)
		}
		if err != nil {
			t = tally{Error: fmt.Sprintf("%s on %s: %v", o.Way, o.Key, err)}
		}
		if w.out.Encode(t) != nil {
			return 1
		}
	}
	return 0
}

type worker struct {
	in      *bufio.Scanner
	out     *json.Encoder
	clients map[string]client
}

func (w *worker) close() {
	for _, c := range w.clients {
		_ = c.Close()
	}
}

func (w *worker) carryOut(o order) (t tally, err error) {
	patience := time.Minute + o.For
	if o.Stubborn {
		patience = 10 * time.Minute // what is broken takes its time
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := w.client(o)
	if err != nil {
		return t, err
	}
	// Connections and code are warm before the clock starts, on another cart.
	for range 5 {
		if err := c.AddItem(ctx, "warm-"+o.Key, itemID); err != nil {
			return t, err
		}
	}
	runtime.GC()
	if err := w.out.Encode(tally{}); err != nil {
		return t, err
	}
	if !w.in.Scan() || w.in.Text() != goLine {
		return t, fmt.Errorf("%q came in place of %q", w.in.Text(), goLine)
	}
	if o.For > 0 {
		return carryOutCrowd(ctx, c, o), nil
	}
	if o.Stubborn {
		return w.insist(ctx, c, o)
	}
	t.Ops = make([]int64, 0, o.Ops)
	// This process is the clock of every way, so its own garbage collector must not add to what it measures.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	t.Start = monotonic()
	for n := range o.Ops {
		before := monotonic()
		if err := c.AddItem(ctx, o.key(n), itemID); err != nil {
			return t, err
		}
		t.Ops = append(t.Ops, monotonic()-before)
	}
	t.End = monotonic()
	return t, nil
}

// failurePause is how long a stubborn writer waits after a failure.
const failurePause = 100 * time.Millisecond

// insist makes operations until each is acknowledged.
func (w *worker) insist(ctx context.Context, c client, o order) (t tally, err error) {
	t.Start = monotonic()
	for n := range o.Ops {
		if n == o.Ops/2 {
			if err := w.out.Encode(tally{}); err != nil {
				return t, err
			}
		}
		for before := monotonic(); ; {
			err := c.AddItem(ctx, o.key(n), itemID)
			if err == nil {
				t.Ops = append(t.Ops, monotonic()-before)
				break
			}
			t.Unanswered = append(t.Unanswered, n)
			select {
			case <-ctx.Done():
				return t, err
			case <-time.After(failurePause):
			}
		}
	}
	t.End = monotonic()
	return t, nil
}

// client keeps one client for each way. A new target ends the one to the old.
func (w *worker) client(o order) (client, error) {
	id := o.Way + " " + o.Target
	if c, ok := w.clients[id]; ok {
		return c, nil
	}
	way, ok := wayCalled(o.Way)
	if !ok {
		return nil, errors.New("no such way")
	}
	c, err := way.connect(o.Target)
	if err != nil {
		return nil, err
	}
	w.close()
	clear(w.clients)
	w.clients[id] = c
	return c, nil
}
