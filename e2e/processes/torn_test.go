package processes

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"testing"

	"github.com/sidecart/sidecart/internal/testserver"
)

const rounds = 200

// tagged is a cart whose items and conditions carry the number of the round in which they were written.
type tagged struct {
	Version uint64 `json:"version"`
	Items   map[string]struct {
		Quantity int `json:"quantity"`
	} `json:"items"`
	Conditions map[string]struct {
		Value int `json:"value"`
	} `json:"conditions"`
}

// round is the number of the round, 0 for an empty cart; whole says that both documents are of the same one.
func (c tagged) round() (n int, whole bool) {
	n = c.Items["x"].Quantity
	return n, n == c.Conditions["x"].Value
}

func read(t *testing.T, s *sidecar, cart string) tagged {
	t.Helper()
	status, b, err := s.call(context.Background(), http.MethodGet, "/v1/carts/"+cart, "")
	if err != nil || status != http.StatusOK {
		t.Errorf("read %s: %d %s %v", cart, status, b, err)
	}
	var c tagged
	if err := json.Unmarshal(b, &c); err != nil {
		t.Error(err)
	}
	return c
}

func put(t *testing.T, s *sidecar, cart string, n int) {
	t.Helper()
	s.must(http.MethodPut, "/v1/carts/"+cart, fmt.Sprintf(
		`{"items":{"x":{"id":"x","quantity":%d}},"conditions":{"x":{"name":"x","value":%d}}}`, n, n))
}

// TestReadersNeverSeeHalfAChange reads on one sidecar what another writes.
func TestReadersNeverSeeHalfAChange(t *testing.T) {
	backends := map[string]func(t *testing.T) []string{
		"redis": func(t *testing.T) []string {
			return []string{"--backend", "redis", "--redis-address", testserver.StartRedis(t).Addr}
		},
		"redis cluster": func(t *testing.T) []string {
			return []string{"--backend", "redis", "--redis-mode", "Cluster", "--redis-address", testserver.StartRedisCluster(t, 3).Addrs()[0]}
		},
		"sqlite": func(t *testing.T) []string {
			return []string{"--backend", "database", "--database-url", "sqlite:" + filepath.Join(t.TempDir(), "carts.db")}
		},
	}
	for name, args := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := args(t)
			writer, reader := start(t, a...), start(t, a...)

			t.Run("put", func(t *testing.T) {
				writer, reader := writer.in(t), reader.in(t)
				last := 0
				whileWriting(t, func(n int) { put(t, writer, "put/default", n) }, func() {
					n, whole := read(t, reader, "put/default").round()
					if !whole || n < last {
						t.Errorf("read items of round %d, whole: %v, after round %d", n, whole, last)
					}
					last = n
				})
			})
			for _, verb := range []string{"swap", "merge"} {
				t.Run(verb, func(t *testing.T) {
					writer, reader := writer.in(t), reader.in(t)
					body := `{"toIdentifier":"` + verb + `-user"}`
					if verb == "merge" {
						body = `{"toIdentifier":"merge-user","strategy":"replace"}`
					}
					guest, user := verb+"-guest/default", verb+"-user/default"
					put(t, writer, guest, 1)
					whileWriting(t, func(n int) {
						put(t, writer, guest, n)
						writer.must(http.MethodPost, "/v1/carts/"+guest+":"+verb, body)
						if verb == "merge" { // conditions of the target win: it starts anew each time
							writer.must(http.MethodPost, "/v1/carts/"+user+":swap", `{"toIdentifier":"old"}`)
						}
					}, func() {
						before := read(t, reader, user)
						if _, whole := before.round(); !whole {
							t.Errorf("read a mix: %+v", before)
						}
						if g := read(t, reader, guest); len(g.Items) > 0 {
							if _, whole := g.round(); !whole {
								t.Errorf("read a mix: %+v", g)
							}
						} else if verb == "swap" {
							// Items that have left the guest's cart are in the user's.
							if after := read(t, reader, user); len(after.Items) == 0 {
								t.Errorf("the items are in neither cart")
							}
						}
					})
				})
			}
			t.Run("swap onto itself", func(t *testing.T) {
				writer := writer.in(t)
				put(t, writer, "self/default", 7)
				before := read(t, writer, "self/default")
				answer := writer.must(http.MethodPost, "/v1/carts/self/default:swap", `{"toIdentifier":"self"}`)
				after := read(t, writer, "self/default")
				if n, whole := after.round(); n != 7 || !whole || after.Version != before.Version {
					t.Errorf("the cart was %+v and is %+v; the answer was %v", before, after, answer)
				}
			})
		})
	}
}

// whileWriting makes rounds of writes, and reads all the time.
func whileWriting(t *testing.T, write func(n int), read func()) {
	t.Helper()
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		for {
			read()
			select {
			case <-done:
				return
			default:
			}
		}
	})
	for n := 1; n <= rounds && !t.Failed(); n++ {
		write(n)
	}
	close(done)
	wg.Wait()
}

// in makes failures those of a subtest.
func (s *sidecar) in(t *testing.T) *sidecar {
	c := *s
	c.t = t
	return &c
}
