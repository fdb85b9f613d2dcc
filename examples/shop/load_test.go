package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const killed = syscall.SIGKILL

func decodeLast[T any](t *testing.T, text string) T {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(text), "\n")
	var v T
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

func TestLoadAndCheck(t *testing.T) {
	_, sidecar := startSidecar(t, "--backend", "memory")
	out, err := command(t, sidecar, "", "load", "--adds", "300", "--carts", "3", "--items", "4", "--clients", "8", "--prefix", "a")
	if err != nil {
		t.Fatal(err)
	}
	sum := decodeLast[tally](t, out)
	if !sum.Done || sum.Attempted != 300 || sum.Acknowledged != 300 || len(sum.Failed) != 0 || len(sum.Carts) != 3 || sum.Carts["a-2"].Acknowledged != 100 {
		t.Errorf("%+v", sum)
	}
	// The accounts as they look in a log: with other lines, prefixes, and a line that was cut off.
	accounts := "starting\n" + strings.ReplaceAll(out, `{"run`, `2026-01-01T00:00:00Z {"run`) + `{"run":"` + sum.Run
	text, err := command(t, sidecar, accounts, "check")
	if err != nil {
		t.Errorf("check: %v", err)
	}
	if v := decodeLast[verdict](t, text); v.Found != 300 || v.Acknowledged != 300 || v.Runs != 1 || v.Unfinished != 0 {
		t.Errorf("%+v", v)
	}

	t.Run("lost", func(t *testing.T) {
		if err := newCarts(sidecar).change(t.Context(), "", "a-1", "sku-0", -2); err != nil {
			t.Fatal(err)
		}
		text, err := command(t, sidecar, accounts, "check", "-")
		if v := decodeLast[verdict](t, text); err == nil || v.Lost != 2 || v.Excess != 0 || len(v.Wrong) != 1 || v.Wrong[0].Found != 98 {
			t.Errorf("%v %+v", err, v)
		}
	})
	t.Run("in excess", func(t *testing.T) {
		// In another cart, so that it cannot make up for what is lost there.
		if err := newCarts(sidecar).change(t.Context(), "", "a-2", "sku-0", 3); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(file, []byte(accounts), 0o600); err != nil {
			t.Fatal(err)
		}
		text, err := command(t, sidecar, "", "check", file)
		if v := decodeLast[verdict](t, text); err == nil || v.Lost != 2 || v.Excess != 3 || len(v.Wrong) != 2 {
			t.Errorf("%v %+v", err, v)
		}
	})
	t.Run("no account", func(t *testing.T) {
		if _, err := command(t, sidecar, "nothing\n{}\n", "check"); err == nil || !strings.Contains(err.Error(), "no account") {
			t.Error(err)
		}
	})
}

// Several loads on the same carts, as in several pods: one ends by SIGTERM and accounts for all it did, one is killed,
// and the accounts still agree with the carts.
func TestLoadIsStopped(t *testing.T) {
	_, sidecar := startSidecar(t, "--backend", "memory")
	args := []string{"load", "--carts", "2", "--clients", "4", "--every", "20ms", "--prefix", "b", "--items", "100"}
	polite, cut := start(t, shopAt(t, sidecar, args...)), start(t, shopAt(t, sidecar, args...))
	_, first := polite.await(t, `"acknowledged":[1-9]\d\d`)
	_, second := cut.await(t, `"acknowledged":[1-9]\d\d`)
	if code := cut.end(killed); code != -1 {
		t.Errorf("exit code %d of what was killed", code)
	}
	if code := polite.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
	first = append(first, polite.rest()...)
	second = append(second, cut.rest()...)
	sum := decodeLast[tally](t, strings.Join(first, "\n"))
	if !sum.Done || sum.Attempted != sum.Acknowledged {
		t.Errorf("it did not finish what was under way: %+v", sum)
	}
	text, err := command(t, sidecar, strings.Join(append(first, second...), "\n"), "check")
	if v := decodeLast[verdict](t, text); err != nil || v.Runs != 2 || v.Unfinished != 1 || v.Found < v.Acknowledged {
		t.Errorf("%v %+v", err, v)
	}
}

// The sidecar dies and comes back: failures are counted by their reason, and nothing acknowledged is lost.
func TestLoadThroughARestart(t *testing.T) {
	file := "sqlite:" + filepath.Join(t.TempDir(), "carts.db")
	process, sidecar := startSidecar(t, "--backend", "database", "--database-url", file)
	load := start(t, shopAt(t, sidecar, "load", "--carts", "2", "--clients", "4", "--every", "20ms", "--prefix", "c"))
	_, lines := load.await(t, `"acknowledged":[1-9]\d`)
	process.end(killed)
	_, more := load.await(t, `"UNREACHABLE":[1-9]`)
	lines = append(lines, more...)
	_, again := startSidecar(t, "--backend", "database", "--database-url", file, "--http-address", strings.TrimPrefix(sidecar, "http://"))
	if again != sidecar {
		t.Fatalf("the sidecar is at %s, not at %s", again, sidecar)
	}
	before := decodeLast[tally](t, strings.Join(lines, "\n")).Acknowledged
	for now := before; now < before+50; {
		_, more := load.await(t, `"run"`)
		lines = append(lines, more...)
		now = decodeLast[tally](t, more[len(more)-1]).Acknowledged
	}
	if code := load.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	lines = append(lines, load.rest()...)
	sum := decodeLast[tally](t, strings.Join(lines, "\n"))
	var failed int64
	for _, n := range sum.Failed {
		failed += n
	}
	if !sum.Done || sum.Attempted != sum.Acknowledged+failed || sum.Uncertain > failed-sum.Failed[unreachable] {
		t.Errorf("%+v", sum)
	}
	text, err := command(t, sidecar, strings.Join(lines, "\n"), "check")
	if v := decodeLast[verdict](t, text); err != nil || v.Unfinished != 0 || v.Found > v.Acknowledged+v.Uncertain {
		t.Errorf("%v %+v", err, v)
	}
}

func TestLoadBounds(t *testing.T) {
	_, sidecar := startSidecar(t, "--backend", "memory")
	start := time.Now()
	out, err := command(t, sidecar, "", "load", "--for", "300ms", "--rate", "50", "--prefix", "d")
	if err != nil {
		t.Fatal(err)
	}
	// 50 in a second are 15 in 300 ms. A slow machine may make fewer, but none may make more.
	if sum := decodeLast[tally](t, out); !sum.Done || sum.Attempted < 1 || sum.Attempted > 16 || time.Since(start) > deadline {
		t.Errorf("%+v after %s", sum, time.Since(start))
	}
	for flag, value := range map[string]string{
		"--adds": "-1", "--for": "-1s", "--carts": "0", "--items": "0", "--clients": "0", "--rate": "-1", "--every": "0s",
	} {
		if _, err := command(t, sidecar, "", "load", flag, value); err == nil || !strings.Contains(err.Error(), flag+" must be") {
			t.Errorf("%s %s: %v", flag, value, err)
		}
	}
}

func TestOneShotCommands(t *testing.T) {
	_, sidecar := startSidecar(t, "--backend", "memory")
	for _, tc := range []struct {
		args []string
		want string // in the output, or in the error
	}{
		{[]string{"init"}, `"key":"lastStart"`},
		{[]string{"add", "u1", "mug", "2"}, `"quantity":2`},
		{[]string{"add", "u1", "mug"}, `"quantity":3`},
		{[]string{"show", "u1"}, `"version":2`},
		{[]string{"add", "u1", "mug", "none"}, `the quantity must be a whole number from 1, not "none"`},
		{[]string{"add", "u1", "mug", "20000"}, "sidecar: INVALID"},
		{[]string{"add"}, "give a cart, an item"},
		{[]string{"show"}, "give a cart"},
		{[]string{"sell"}, `no command is called "sell"`},
		{[]string{"help"}, "shop load [flags]"},
		{[]string{"check", "/no/such/file"}, "no such file"},
	} {
		out, err := command(t, sidecar, "", tc.args...)
		if err != nil {
			out += err.Error()
		}
		if !strings.Contains(out, tc.want) {
			t.Errorf("%v: %s, want %q", tc.args, out, tc.want)
		}
	}
	if _, err := command(t, "http://127.0.0.1:1", "", "init"); err == nil || !strings.Contains(err.Error(), unreachable) {
		t.Errorf("init without a sidecar: %v", err)
	}
}
