package main

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/testserver"
)

// eventuallyGet waits until an answer has a text.
func (s *sidecarUnderTest) eventuallyGet(url, text string) {
	s.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(patience); ; {
		_, body := s.get(url)
		if strings.Contains(body, text) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			s.t.Fatalf("%s did not come to have %q: %s\n%s", url, text, body, s.logs)
		}
	}
}

// TestHybrid: while the backend for checkouts is down, a sidecar starts, is ready and serves carts, says so, and
// refuses only checkouts. Another sidecar settles a checkout that this one made, and the trail in the database has
// both.
func TestHybrid(t *testing.T) {
	db := testserver.StartPostgres(t)
	url := db.NewDatabase(t)
	flags := []string{
		"--backend=redis", "--redis-address=" + testserver.StartRedis(t).Addr,
		"--critical-backend=database", "--critical-database-url=" + url,
	}
	db.Kill()
	s := launch(t, flags...)
	s.ready(true)
	const down = "critical backend Database does not answer: "
	s.eventuallyGet(s.admin+"/readyz", down)
	s.eventuallyGet(s.admin+"/statusz", `"criticalBackend":{"type":"Database","place":"`)
	s.eventuallyGet(s.admin+"/metrics", `sidecart_backend_up{backend="Database for checkouts"} 0`)
	s.mustPut("u1", 3)
	cart := s.http + "/v1/carts/u1/default"
	post := func(what, body string) (int, string) {
		t.Helper()
		code, answer, err := request(http.MethodPost, cart+what, body)
		if err != nil {
			t.Fatal(err)
		}
		return code, answer
	}
	const order, settle = `{"checkoutId":"O-1","attributes":{"total":"5.97"}}`, `{"checkoutId":"O-1","outcome":"ORDERED"}`
	refused := func(what, body string) {
		t.Helper()
		code, answer := post(what, body)
		if code != http.StatusServiceUnavailable || !strings.Contains(answer, `"BACKEND_UNAVAILABLE"`) || !strings.Contains(answer, "the backend for checkouts does not answer") {
			t.Errorf("%s: %d %s", what, code, answer)
		}
	}
	refused(":checkout", order)
	refused(":settle", settle)

	db.Restart()
	s.eventuallyGet(s.admin+"/metrics", `sidecart_backend_up{backend="Database for checkouts"} 1`)
	if code, body := s.get(s.admin + "/readyz"); code != http.StatusOK || strings.Contains(body, "critical") {
		t.Errorf("readyz: %d %s", code, body)
	}
	if code, answer := post(":checkout", order); code != http.StatusOK {
		t.Fatalf("checkout: %d %s", code, answer)
	}
	s.mustPut("u1", 5) // meanwhile
	db.Kill()
	refused(":settle", settle)
	s.ready(true)
	s.mustPut("u1", 6)
	db.Restart()
	other := launch(t, flags...)
	other.eventuallyGet(other.admin+"/metrics", `sidecart_backend_up{backend="Database for checkouts"} 1`)
	cart = other.http + "/v1/carts/u1/default"
	for _, want := range []string{`"settled":true`, `"settled":false`} {
		if code, answer := post(":settle", settle); code != http.StatusOK || !strings.Contains(answer, want) {
			t.Errorf("settle: %d %s, want %s", code, answer, want)
		}
	}
	if got := s.quantity("u1"); got != 3 {
		t.Errorf("%d are left, want 3", got)
	}
	trail, err := db.Query(testserver.DatabaseOf(url), "SELECT checkout_id, kind, call_name, identifier, from_version, attributes FROM sidecart_audit ORDER BY id")
	want := "O-1\tchecked out\tCheckout\tu1\t1\t{\"total\":\"5.97\"}\nO-1\tordered\tSettle\tu1\t1\t{\"total\":\"5.97\"}"
	if err != nil || trail != want {
		t.Errorf("the trail is\n%s\nwant\n%s\n%v", trail, want, err)
	}
}

// If a backend for checkouts comes, changes or goes while the sidecar runs, the carts stay where they are, and earlier
// checkouts are settled.
func TestHybridReload(t *testing.T) {
	db := testserver.StartPostgres(t)
	url := config.URL(db.NewDatabase(t))
	alone := render(t, func(*config.Config) {})
	v := newVolume(t, alone)
	s := launchFile(t, v.file())
	s.ready(true)
	s.mustPut("u1", 3)
	cart := s.http + "/v1/carts/u1/default"
	call := func(what, body, want string) {
		t.Helper()
		if code, answer, err := request(http.MethodPost, cart+what, body); err != nil || code != http.StatusOK || !strings.Contains(answer, want) {
			t.Errorf("%s: %d %s %v", what, code, answer, err)
		}
	}
	call(":checkout", `{"checkoutId":"before"}`, `"OPEN"`)
	v.update(render(t, func(c *config.Config) {
		c.CriticalBackend = &config.Backend{Type: config.BackendDatabase, Database: &config.Database{URL: url}}
	}))
	if line := s.await("configuration taken over"); line["checkouts"] != "Database "+url.String() {
		t.Errorf("taken over: %v", line)
	}
	call(":checkout", `{"checkoutId":"after"}`, `"OPEN"`)
	call(":settle", `{"checkoutId":"before","outcome":"CANCELLED"}`, `"settled":true`)
	call(":settle", `{"checkoutId":"after","outcome":"CANCELLED"}`, `"settled":true`)
	if n, err := db.Query(testserver.DatabaseOf(string(url)), "SELECT COUNT(*) FROM sidecart_audit WHERE checkout_id = 'after'"); err != nil || n != "2" {
		t.Errorf("%s lines in the trail, want 2: %v", n, err)
	}
	v.update(alone)
	s.await("configuration taken over")
	if got := s.quantity("u1"); got != 3 {
		t.Errorf("%d are in the cart, want 3", got)
	}
}

// A type that cannot be the backend for checkouts is refused by name, and nothing is opened.
func TestHybridRefused(t *testing.T) {
	dir := t.TempDir()
	for name, tc := range map[string]struct{ flags, want string }{
		"a cache":      {"--critical-backend=redis", "criticalBackend.type: must be Database or DynamoDB, which keep what they acknowledge, is Redis"},
		"without type": {"--critical-database-url=postgres://db/shop", "criticalBackend.type: is missing: write one of "},
		"without url":  {"--critical-backend=database", "criticalBackend.database: is missing: a backend of type Database needs it"},
		"a file": {
			"--critical-backend=database --critical-database-url=sqlite:" + dir + "/x.db",
			"criticalBackend.database.url: must be postgres://… or mysql://…: an SQLite file belongs to one machine, and all sidecars must share criticalBackend",
		},
	} {
		if _, err := loadLayers(t, append(strings.Fields(tc.flags), "--backend=memory"), nil); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %s", name, err, tc.want)
		}
	}
	if files, err := filepath.Glob(dir + "/*"); err != nil || len(files) > 0 {
		t.Errorf("files were made: %v %v", files, err)
	}
}
