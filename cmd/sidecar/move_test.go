package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/testserver"
)

// TestMove: the configuration of a sidecar gets another backend, with moveFrom. The sidecar serves the carts from the
// former backend, moves them all, and says so. So does the command, without a sidecar.
func TestMove(t *testing.T) {
	dir := t.TempDir()
	file, database := filepath.Join(dir, "sidecar.yaml"), "sqlite:"+filepath.Join(dir, "carts.db")
	addr := testserver.StartRedis(t).Addr
	const head = "apiVersion: sidecar.sidecart.dev/v1alpha1\nkind: SidecarConfig\n"
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(head+text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	onSQLite := fmt.Sprintf("{type: Database, database: {url: %q}}", database)
	onRedis := fmt.Sprintf("{type: Redis, redis: {addresses: [%q]}}", addr)

	write("backend: " + onSQLite + "\n")
	s := launch(t, "--config="+file)
	quantity := func(identifier string, want int) {
		t.Helper()
		if got := s.quantity(identifier); got != want {
			t.Errorf("%s has quantity %d, want %d", identifier, got, want)
		}
	}
	for i := range 5 {
		s.mustPut(fmt.Sprint("u", i), 3)
	}
	write("backend: " + onRedis + "\nmoveFrom: {backend: " + onSQLite + "}\n")
	s.await("configuration taken over")
	quantity("u1", 3)
	s.mustPut("u1", 4)
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		move := s.status().Move
		if move.State == "Done" && move.From == "Database "+database && move.Walking && move.Carried == 5 && move.Left == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the move does not end: %+v", move)
		}
	}
	if _, metrics := s.get(s.admin + "/metrics"); !strings.Contains(metrics, "sidecart_carts_moved_total 5") || !strings.Contains(metrics, "sidecart_carts_left 0") {
		t.Error("the metrics do not tell of the move")
	}
	write("backend: " + onRedis + "\n")
	s.await("configuration taken over")
	quantity("u1", 4)
	quantity("u2", 3)

	// Back again, by the command.
	var out, errs bytes.Buffer
	write("backend: " + onRedis + "\n")
	if code := Run(t.Context(), []string{"move", "--config", file}, nil, &out, &errs); code != exitUsage || !strings.Contains(errs.String(), "moveFrom: is missing") {
		t.Errorf("without moveFrom: %d, %s", code, &errs)
	}
	back := filepath.Join(dir, "back.yaml")
	if err := os.WriteFile(back, []byte(head+"backend: "+onSQLite+"\nmoveFrom: {backend: "+onRedis+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	errs.Reset()
	if code := Run(t.Context(), []string{"move", "--config", back}, nil, &out, &errs); code != exitOK || !strings.Contains(out.String(), "done: 5 carts carried from Redis") {
		t.Errorf("move: %d, %s, %s", code, &out, &errs)
	}
	// The sidecar that does not know of the move says so.
	for _, method := range []string{http.MethodGet, http.MethodPut} {
		code, answer, err := request(method, s.http+"/v1/carts/u1/default/items", `{"items":{}}`)
		if err != nil || code != http.StatusServiceUnavailable || !strings.Contains(answer, "BACKEND_UNAVAILABLE") || !strings.Contains(answer, "moved to another backend") {
			t.Errorf("%s by a sidecar that was not told: %d %s, %v", method, code, answer, err)
		}
	}
}
