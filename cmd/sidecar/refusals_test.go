package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/testserver"
)

func do(t *testing.T, r *testserver.Redis, args ...string) string {
	t.Helper()
	reply, err := r.Do(args...)
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return reply
}

// metric is the line of a metric, "" where there is none.
func (s *sidecarUnderTest) metric(name string) string {
	s.t.Helper()
	_, page := s.get(s.admin + "/metrics")
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, name) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// says waits until a page of the admin port says text.
func (s *sidecarUnderTest) says(path, text string) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		_, body := s.get(s.admin + path)
		if strings.Contains(body, text) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s says %q and not %q:\n%s", path, body, text, s.logs)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestNotReadyWithoutRights: a sidecar whose user lacks a right that a change needs says which one and is not ready. It
// becomes ready when the right is granted.
func TestNotReadyWithoutRights(t *testing.T) {
	r := testserver.StartRedis(t)
	folder := t.TempDir()
	for name, text := range map[string]string{"user": "s3cretuser", "password": "s3cretword"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	patterns := func(kinds ...string) (all []string) {
		for _, k := range kinds {
			all = append(all, "~"+k+"*")
		}
		return append(all, "&*", "+@all")
	}
	all := patterns("cart.", "lock.", "queue.", "index.", "fence.")
	for name, test := range map[string]struct {
		rights []string
		words  string
	}{
		"queue": {patterns("cart.", "lock.", "index.", "fence."), "(on a queue)"},
		"index": {patterns("cart.", "lock.", "queue.", "fence."), "(on an index)"},
		"TIME":  {append(patterns("*"), "-time"), "(TIME)"},
	} {
		t.Run(name, func(t *testing.T) {
			user := func(rights []string) {
				t.Helper()
				do(t, r, append([]string{"ACL", "SETUSER", "s3cretuser", "reset", "on", ">s3cretword"}, rights...)...)
			}
			user(test.rights)
			s := launch(t, "--backend=redis", "--redis-address="+r.Addr, "--redis-username-file="+filepath.Join(folder, "user"), "--redis-password-file="+filepath.Join(folder, "password"))
			s.await("backend refuses changes, ready when it takes them")
			s.says("/readyz", "backend Redis refuses changes: ")
			told := func() {
				t.Helper()
				code, body := s.get(s.admin + "/readyz")
				if code != http.StatusServiceUnavailable || !strings.HasPrefix(body, "backend Redis refuses changes: ") || !strings.Contains(body, test.words) {
					t.Errorf("readyz: %d %s", code, body)
				}
				if _, page := s.get(s.admin + "/statusz"); !strings.Contains(page, "backend Redis refuses changes: ") {
					t.Errorf("statusz: %s", page)
				}
				if m := s.metric("sidecart_backend_up"); m != `sidecart_backend_up{backend="Redis"} 0` {
					t.Errorf("metric: %s", m)
				}
			}
			told()
			if code, body, err := request(http.MethodPut, s.http+"/v1/carts/u1/default/items", `{"items":{}}`); err != nil || code != http.StatusServiceUnavailable || !strings.Contains(body, "BACKEND_UNAVAILABLE") {
				t.Errorf("a change: %d %s %v", code, body, err)
			}
			user(all)
			s.ready(true)
			s.mustPut("u1", 1)
			user(test.rights)
			if err := s.put("u1", 2); err == nil { // has the backend probed
				t.Error("a change without the right is made")
			}
			s.says("/readyz", "backend Redis refuses changes: ")
			told()
			if text := s.logs.String(); strings.Contains(text, "s3cret") || !strings.Contains(text, test.words) {
				t.Errorf("the log: %s", text)
			}
		})
	}
}

// TestEvictionIsTold: log, status and metric say that a Redis evicts carts. The remaining carts of an identifier are
// forgotten when that is asked for, also without its index.
func TestEvictionIsTold(t *testing.T) {
	r := testserver.StartRedis(t, testserver.WithAOF())
	s := launch(t, "--backend=redis", "--redis-address="+r.Addr)
	s.ready(true)
	s.says("/statusz", `"warnings":[]`) // this Redis loses nothing
	used := 0
	for line := range strings.Lines(do(t, r, "INFO", "memory")) {
		if value, ok := strings.CutPrefix(line, "used_memory:"); ok {
			used, _ = strconv.Atoi(strings.TrimSpace(value))
		}
	}
	do(t, r, "CONFIG", "SET", "maxmemory", strconv.Itoa(used+2<<20))
	do(t, r, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
	const carts = 2000
	body := fmt.Sprintf(`{"items":{"sku-1":{"id":"sku-1","name":%q,"quantity":1}}}`, strings.Repeat("x", 1500))
	for i := range carts {
		url := fmt.Sprintf("%s/v1/carts/u%d/%d/items", s.http, i/5, i%5)
		if code, answer, err := request(http.MethodPut, url, body); err != nil || code != http.StatusOK {
			t.Fatalf("cart %d: %d %s %v", i, code, answer, err)
		}
	}
	for _, code := range []string{storage.AdviceCartsEvicted, storage.AdviceEvictionPolicy} {
		deadline := time.After(patience)
		for told := false; !told; {
			line, more := s.logs.code(code)
			if told = line != nil; told {
				if line["level"] != "WARN" {
					t.Errorf("told so: %v", line)
				}
				continue
			}
			select {
			case <-more:
			case <-deadline:
				t.Fatalf("nobody told of %s:\n%s", code, s.logs)
			}
		}
		if m := s.metric(`sidecart_backend_warning{code="` + code); !strings.HasSuffix(m, " 1") {
			t.Errorf("metric of %s: %q", code, m)
		}
		if _, page := s.get(s.admin + "/statusz"); !strings.Contains(page, `"code":"`+code+`"`) {
			t.Errorf("statusz lacks %s: %s", code, page)
		}
	}
	s.ready(true) // it is a warning

	tried := 0
	for i := carts/5 - 1; i >= 0 && tried < 20; i-- {
		prefix := fmt.Sprintf("cart.u%d.", i)
		there := 0
		for j := range 5 {
			if do(t, r, "EXISTS", prefix+strconv.Itoa(j)) == "1" {
				there++
			}
		}
		if there == 0 {
			continue
		}
		tried++
		do(t, r, "DEL", fmt.Sprintf("index.cart.u%d", i))
		if code, answer, err := request(http.MethodDelete, fmt.Sprintf("%s/v1/carts/u%d", s.http, i), ""); err != nil || code != http.StatusOK {
			t.Fatalf("DELETE: %d %s %v", code, answer, err)
		}
		for j := range 5 {
			if do(t, r, "EXISTS", prefix+strconv.Itoa(j)) != "0" {
				t.Errorf("%s%d is still there after its identifier was forgotten", prefix, j)
			}
		}
	}
	if tried == 0 {
		t.Error("nothing was left to forget")
	}
}
