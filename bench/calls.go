package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bsm/redislock"
	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	sidecartv1 "github.com/sidecart/sidecart/proto/sidecart/v1"
)

// What one call costs: every call by itself, at several sizes and numbers of clients, beside an empty call and beside
// what a program that talks to Redis by itself would do.

// callClients are how many clients call at once.
var callClients = []int{1, 16, 64}

// callCarts is how many carts of its own a client uses in turn.
const callCarts = 8

// cartSizes are the sizes of carts, by how many items they have.
var cartSizes = []struct {
	name  string
	items int
}{{"0.25 kB", 3}, {"1.4 kB", 16}, {"20 kB", 235}}

// callKind is one call as one program makes it.
type callKind struct {
	name string
	// via is how the call reaches the sidecar; "" for a program that uses Redis by itself.
	via string
	// client returns a function that makes the call, for one client. round keeps rounds apart.
	client func(ctx context.Context, t *callTargets, round, client int) (func() error, error)
}

// callSample is the result of a kind of call at a number of clients, over all rounds.
type callSample struct {
	perSecond  []float64 // by round
	sidecarCPU []float64 // milliseconds per 1,000 calls, by round
	redisCPU   []float64
	waits      []time.Duration
}

type callKey struct {
	kind, via string
	clients   int
}

// callTargets are the sidecar, by each way to it, and its Redis.
type callTargets struct {
	grpc   map[string]*grpc.ClientConn
	http   map[string]*http.Client
	redis  *redis.Client
	locks  *redislock.Client
	socket string
}

const (
	grpcTCP, grpcSocket = "gRPC, TCP", "gRPC, socket"
	httpTCP, httpSocket = "HTTP, TCP", "HTTP, socket"
	direct              = "no sidecar"

	emptyCall = "empty call"
	addCall   = "add an item, 0.25 kB"
	putCall   = "put with etag, 1.4 kB"
	getRedis  = "GET, 0.25 kB"
	getSet    = "GET and SET, 0.25 kB"
)

func readCall(size string) string { return "read, " + size }

// document has n items.
func document(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, `,"sku-%d":%s`, i, mug(fmt.Sprintf("sku-%d", i)))
	}
	b.WriteByte('}')
	b.Bytes()[0] = '{'
	return b.Bytes()
}

// callKinds are all rows of the table.
func callKinds() (kinds []*callKind) {
	for _, via := range []string{grpcTCP, grpcSocket} {
		kinds = append(kinds, &callKind{emptyCall, via, func(ctx context.Context, t *callTargets, _, _ int) (func() error, error) {
			c := healthpb.NewHealthClient(t.grpc[via])
			return func() error { _, err := c.Check(ctx, &healthpb.HealthCheckRequest{}); return err }, nil
		}})
		for _, size := range cartSizes {
			kinds = append(kinds, &callKind{readCall(size.name), via, func(ctx context.Context, t *callTargets, _, client int) (func() error, error) {
				c, keys := sidecartv1.NewCartServiceClient(t.grpc[via]), callKeys("read-"+size.name, client)
				err := forEach(keys, func(key string) error {
					_, err := c.PutItems(ctx, &sidecartv1.PutItemsRequest{Identifier: key, Instance: instance, Items: document(size.items)})
					return err
				})
				return inTurn(keys, func(key string) error {
					_, err := c.GetCart(ctx, &sidecartv1.GetCartRequest{Identifier: key, Instance: instance})
					return err
				}), err
			}})
		}
		kinds = append(kinds, &callKind{addCall, via, func(ctx context.Context, t *callTargets, round, client int) (func() error, error) {
			c, keys := sidecartv1.NewCartServiceClient(t.grpc[via]), callKeys(fmt.Sprint("add-", via, round), client)
			err := forEach(keys, func(key string) error {
				_, err := c.PutItems(ctx, &sidecartv1.PutItemsRequest{Identifier: key, Instance: instance, Items: document(cartSizes[0].items)})
				return err
			})
			return inTurn(keys, func(key string) error {
				_, err := c.AddItem(ctx, &sidecartv1.AddItemRequest{Identifier: key, Instance: instance, Item: mug("sku-1")})
				return err
			}), err
		}}, &callKind{putCall, via, func(ctx context.Context, t *callTargets, round, client int) (func() error, error) {
			c, keys := sidecartv1.NewCartServiceClient(t.grpc[via]), callKeys(fmt.Sprint("put-", via, round), client)
			etags, items := map[string]string{}, document(cartSizes[1].items)
			n := 0
			put := func(key string) error {
				n++
				// Another price each time: the same document would change nothing.
				d, err := c.PutItems(ctx, &sidecartv1.PutItemsRequest{Identifier: key, Instance: instance, IfMatch: etags[key],
					Items: bytes.Replace(items, []byte("1999"), strconv.AppendInt(nil, int64(1000+n%1000), 10), 1)})
				etags[key] = d.GetEtag()
				return err
			}
			return inTurn(keys, put), forEach(keys, put)
		}})
	}
	for _, via := range []string{httpTCP, httpSocket} {
		for _, size := range cartSizes {
			kinds = append(kinds, &callKind{readCall(size.name), via, func(ctx context.Context, t *callTargets, _, client int) (func() error, error) {
				keys := callKeys("read-"+size.name, client)
				err := forEach(keys, func(key string) error {
					return t.ask(ctx, via, "PUT", "/v1/carts/"+key+"/default/items", fmt.Appendf(nil, `{"items":%s}`, document(size.items)))
				})
				return inTurn(keys, func(key string) error { return t.ask(ctx, via, "GET", "/v1/carts/"+key+"/default", nil) }), err
			}})
		}
		kinds = append(kinds, &callKind{addCall, via, func(ctx context.Context, t *callTargets, round, client int) (func() error, error) {
			keys := callKeys(fmt.Sprint("add-", via, round), client)
			body := fmt.Appendf(nil, `{"item":%s}`, mug("sku-1"))
			err := forEach(keys, func(key string) error {
				return t.ask(ctx, via, "PUT", "/v1/carts/"+key+"/default/items", fmt.Appendf(nil, `{"items":%s}`, document(cartSizes[0].items)))
			})
			return inTurn(keys, func(key string) error { return t.ask(ctx, via, "POST", "/v1/carts/"+key+"/default/items", body) }), err
		}})
	}
	return append(kinds,
		&callKind{getRedis, direct, func(ctx context.Context, t *callTargets, _, client int) (func() error, error) {
			keys := callKeys("get", client)
			err := forEach(keys, func(key string) error { return t.redis.Set(ctx, key, document(cartSizes[0].items), cartTTL).Err() })
			return inTurn(keys, func(key string) error { return t.redis.Get(ctx, key).Err() }), err
		}},
		&callKind{"SET, 0.25 kB", direct, func(ctx context.Context, t *callTargets, _, client int) (func() error, error) {
			d := document(cartSizes[0].items)
			return inTurn(callKeys("set", client), func(key string) error { return t.redis.Set(ctx, key, d, cartTTL).Err() }), nil
		}},
		&callKind{getSet, direct, func(ctx context.Context, t *callTargets, _, client int) (func() error, error) {
			d := document(cartSizes[0].items)
			return inTurn(callKeys("getset", client), func(key string) error {
				if err := t.redis.Get(ctx, key).Err(); err != nil && !errors.Is(err, redis.Nil) {
					return err
				}
				return t.redis.Set(ctx, key, d, cartTTL).Err()
			}), nil
		}},
		&callKind{"redislock: obtain, GET, SET, release", direct, func(ctx context.Context, t *callTargets, _, client int) (func() error, error) {
			d := document(cartSizes[0].items)
			return inTurn(callKeys("locked", client), func(key string) error {
				l, err := t.locks.Obtain(ctx, "lock-"+key, lockTTL, nil)
				if err != nil {
					return err
				}
				if err := t.redis.Get(ctx, key).Err(); err != nil && !errors.Is(err, redis.Nil) {
					return err
				}
				return errors.Join(t.redis.Set(ctx, key, d, cartTTL).Err(), l.Release(ctx))
			}), nil
		}})
}

func callKeys(of string, client int) (keys []string) {
	for n := range callCarts {
		keys = append(keys, strings.NewReplacer(" ", "", ",", "-").Replace(fmt.Sprintf("calls-%s-%d-%d", of, client, n)))
	}
	return keys
}

// inTurn makes a call on one key after the other.
func inTurn(keys []string, call func(key string) error) func() error {
	n := 0
	return func() error {
		n++
		return call(keys[n%len(keys)])
	}
}

// forEach makes a call once on each key.
func forEach(keys []string, call func(key string) error) error {
	for _, key := range keys {
		if err := call(key); err != nil {
			return err
		}
	}
	return nil
}

func (t *callTargets) ask(ctx context.Context, via, method, path string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := t.http[via].Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", method, path, resp.Status)
	}
	return nil
}

// callTargets starts a sidecar with a socket on the testbed's Redis, and connects to both. Its timeouts are long, since
// slow calls on a busy machine are to be measured and are not failures.
func (b *testbed) callTargets(ctx context.Context) (t *callTargets, p *sidecarProcess, err error) {
	t = &callTargets{grpc: map[string]*grpc.ClientConn{}, http: map[string]*http.Client{}, socket: filepath.Join(b.dir, "calls.sock")}
	if p, err = b.launch(ctx, "enabled", append(redisFlags(b.redis), "--socket", t.socket, "--read-timeout", "10s", "--write-timeout", "10s", "--dial-timeout", "10s", "--request-timeout", "30s")); err != nil {
		return nil, nil, err
	}
	for via, target := range map[string]string{grpcTCP: "passthrough:///" + p.grpc, grpcSocket: "unix:" + t.socket} {
		if t.grpc[via], err = grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
			return nil, p, err
		}
		b.tb.Cleanup(func() { _ = t.grpc[via].Close() })
	}
	most := callClients[len(callClients)-1]
	for via, dial := range map[string]func(context.Context, string, string) (net.Conn, error){
		httpTCP: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", p.http)
		},
		httpSocket: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", t.socket)
		},
	} {
		tr := &http.Transport{DialContext: dial, MaxIdleConnsPerHost: most}
		t.http[via] = &http.Client{Transport: tr}
		b.tb.Cleanup(tr.CloseIdleConnections)
	}
	t.redis = redis.NewClient(&redis.Options{Addr: b.redis, PoolSize: most})
	b.tb.Cleanup(func() { _ = t.redis.Close() })
	t.locks = redislock.New(t.redis)
	return t, p, nil
}

// measureCalls measures every kind of call at every number of clients once in each round, for so long.
func measureCalls(ctx context.Context, b *testbed, o options, progress io.Writer) (map[callKey]*callSample, error) {
	t, p, err := b.callTargets(ctx)
	if p != nil {
		defer p.stop()
	}
	if err != nil {
		return nil, err
	}
	samples, kinds := map[callKey]*callSample{}, callKinds()
	for round := range o.rounds {
		fmt.Fprintf(progress, "round %d of %d\n", round+1, o.rounds)
		for i := range kinds {
			k := kinds[(i+round)%len(kinds)] // none always comes after the same other
			for _, n := range callClients {
				key := callKey{k.name, k.via, n}
				if samples[key] == nil {
					samples[key] = &callSample{}
				}
				if err := samples[key].measure(ctx, t, k, round, n, o.calls, p.cmd.Process.Pid, b.redisPID); err != nil {
					return nil, fmt.Errorf("%s by %s, %d clients: %w", k.name, k.via, n, err)
				}
			}
		}
	}
	return samples, nil
}

// measure has n clients make a call again and again for d.
func (s *callSample) measure(ctx context.Context, t *callTargets, k *callKind, round, n int, d time.Duration, sidecar, redis int) error {
	calls := make([]func() error, n)
	for i := range calls {
		var err error
		if calls[i], err = k.client(ctx, t, round*1000+n, i); err != nil {
			return err
		}
		if err := calls[i](); err != nil {
			return err
		}
	}
	waits, errs := make([][]time.Duration, n), make([]error, n)
	before, err := processorTimes(sidecar, redis)
	if err != nil {
		return err
	}
	began := monotonic()
	over := began + int64(d)
	var wg sync.WaitGroup
	for i, call := range calls {
		wg.Go(func() {
			for at := began; at < over; {
				if errs[i] = call(); errs[i] != nil {
					return
				}
				now := monotonic()
				waits[i] = append(waits[i], time.Duration(now-at))
				at = now
			}
		})
	}
	wg.Wait()
	took := time.Duration(monotonic() - began)
	made := 0
	for i := range waits {
		made += len(waits[i])
		s.waits = append(s.waits, waits[i]...)
	}
	after, err := processorTimes(sidecar, redis)
	if err != nil {
		return err
	}
	perThousand := func(i int) float64 { return (after[i] - before[i]).Seconds() * 1e6 / float64(max(made, 1)) }
	s.perSecond = append(s.perSecond, float64(made)/took.Seconds())
	s.sidecarCPU = append(s.sidecarCPU, perThousand(0))
	s.redisCPU = append(s.redisCPU, perThousand(1))
	return errors.Join(errs...)
}
