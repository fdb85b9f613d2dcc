package processes

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
)

// TestRetriesWithKeys: clients add with idempotency keys through two sidecars, which are killed by turns all the while,
// and send each add again until it is answered, here or there. Each add is made exactly once.
func TestRetriesWithKeys(t *testing.T) {
	const writers, adds, kills = 6, 300, 20
	for _, backend := range sharedBackends {
		t.Run(backend.name, func(t *testing.T) {
			args := append(backend.args(t), "--read-timeout", "5s", "--write-timeout", "5s", "--lock-timeout", "10s")
			var fleet [2]*sidecar
			for i := range fleet {
				fleet[i] = prepare(t, args...)
				fleet[i].run()
			}
			var (
				wg              sync.WaitGroup
				done, attempts  atomic.Int64
				replays, others atomic.Int64
				due             = make(chan struct{}, adds)
			)
			for n := range writers {
				wg.Go(func() {
					for i := range adds / writers {
						key, body := fmt.Sprintf("client-%d-%d", n, i), `{"item":{"id":"a"}}`
						for s := n; ; s++ {
							attempts.Add(1)
							status, header, answer, err := fleet[s%2].ask(context.Background(), http.MethodPost, "/v1/carts/u1/default/items", body, "Idempotency-Key", key)
							if err == nil && status == http.StatusOK {
								if header.Get("Idempotency-Replayed") == "true" {
									replays.Add(1)
								}
								break
							}
							if err == nil && status != http.StatusServiceUnavailable && status != http.StatusLocked {
								t.Errorf("add: %d %s", status, answer)
								return
							}
							others.Add(1)
						}
						if done.Add(1)%(adds/kills) == 0 {
							due <- struct{}{}
						}
					}
				})
			}
			for n := range kills {
				<-due
				fleet[n%2].kill()
				fleet[n%2].run()
			}
			wg.Wait()
			got := fleet[0].must(http.MethodGet, "/v1/carts/u1/default", "")
			if q := fleet[0].quantities("u1/default")["a"]; q != adds || got["version"] != float64(adds) {
				t.Errorf("%d adds are in the cart, at version %v, want %d", q, got["version"], adds)
			}
			t.Logf("%d attempts, %d without success, %d found to be made already", attempts.Load(), others.Load(), replays.Load())
		})
	}
}
