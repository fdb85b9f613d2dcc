package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestFullDiskIsTold: a sidecar whose disk is full is not ready and says why. One whose disk has room only for small
// changes stays ready, and says what it refuses.
func TestFullDiskIsTold(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may mount a file system")
	}
	folder := t.TempDir()
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatalf("mount: %v", err)
	}
	t.Cleanup(func() { // after the sidecar has stopped
		if err := syscall.Unmount(folder, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	s := launch(t, "--backend=database", "--database-url=sqlite:"+filepath.Join(folder, "carts.db"))
	s.ready(true)
	s.mustPut("u1", 1)
	filler := filepath.Join(folder, "filler")
	fill := func(keep int64) {
		t.Helper()
		if err := os.WriteFile(filler, bytes.Repeat([]byte("x"), 4<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("the disk is not full: %v", err)
		}
		info, err := os.Stat(filler)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filler, info.Size()-keep); err != nil {
			t.Fatal(err)
		}
	}
	large := fmt.Sprintf(`{"items":{"sku-1":{"id":"sku-1","name":%q,"quantity":1}}}`, strings.Repeat("x", 700_000))

	fill(0)
	s.ready(false)
	if code, body := s.get(s.admin + "/readyz"); code != http.StatusServiceUnavailable || !strings.HasPrefix(body, "backend Database refuses changes: ") || !strings.Contains(body, "full") {
		t.Errorf("readyz: %d %s", code, body)
	}
	if q := s.quantity("u1"); q != 1 {
		t.Errorf("quantity %d", q)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	s.ready(true)
	s.mustPut("u1", 3)

	fill(300 << 10)
	if code, body, err := request(http.MethodPut, s.http+"/v1/carts/u2/default/items", large); err != nil || code != http.StatusServiceUnavailable || !strings.Contains(body, "refuses") {
		t.Errorf("a large change: %d %s %v", code, body, err)
	}
	if line := s.await("backend did not do what was asked"); line["level"] != "WARN" || !strings.Contains(fmt.Sprint(line["error"]), "full") {
		t.Errorf("told so: %v", line)
	}
	s.mustPut("u1", 4)
	s.ready(true)
	if code, body := s.get(s.admin + "/readyz"); code != http.StatusOK || !strings.Contains(body, "ok\nbackend Database refused changes within the last minute: ") || !strings.Contains(body, "full") {
		t.Errorf("readyz: %d %s", code, body)
	}
	if m := s.metric("sidecart_backend_refusals_total"); m != `sidecart_backend_refusals_total{backend="Database"} 1` {
		t.Errorf("metric: %s", m)
	}
}
