package main

import (
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/sidecart/sidecart/internal/testserver"
)

// startInProcess is a writer without a process of its own.
func startInProcess(t *testing.T) *writer {
	t.Helper()
	inRead, inWrite := io.Pipe()
	outRead, outWrite := io.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runWorker(inRead, outWrite)
		_ = outWrite.Close()
	}()
	t.Cleanup(func() {
		_ = inWrite.Close()
		<-ended
	})
	return &writer{in: inWrite, out: json.NewDecoder(outRead)}
}

func TestWritersUnderALockLoseNothing(t *testing.T) {
	redis := testserver.StartRedis(t)
	for _, name := range []string{wayLinear, wayExponential, wayRueidis} {
		f := &fleet{
			bed:     &testbed{redis: redis.Addr},
			writers: []*writer{startInProcess(t), startInProcess(t)},
		}
		var s sample
		w, _ := wayCalled(name)
		if err := f.measure(t.Context(), w, row{name, 2, 0}, "cart-"+name, &s); err != nil {
			t.Fatal(err)
		}
		if len(s.rounds) != 1 || len(s.ops) != opsPerRound || s.lost[0] != 0 {
			t.Errorf("%s: %d rounds, %d operations, %v lost; want 1, %d and none", name, len(s.rounds), len(s.ops), s.lost, opsPerRound)
		}
	}
}

func TestWorkerSaysWhatWentWrong(t *testing.T) {
	w := startInProcess(t)
	if err := w.send(order{Way: "by hand", Key: "k", Ops: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.answer(); err == nil || !strings.Contains(err.Error(), "by hand on k: no such way") {
		t.Errorf("error = %v, want one that names the way", err)
	}
}
