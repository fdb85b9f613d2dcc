package redis

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/testserver"
)

// leastUser is the command of docs/configuration.md that makes the user with the least rights, as arguments. The user
// is called sidecart, and its password is PASSWORD.
func leastUser(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	command := regexp.MustCompile(`(?m)^ACL SETUSER sidecart (.*\\\n)*.*$`).FindString(string(text))
	if command == "" {
		t.Fatal("docs/configuration.md does not say which rights the user needs")
	}
	return strings.Fields(strings.ReplaceAll(command, "\\\n", " "))
}

// perTest makes rights for prefixes p1, p2 and so on, as the harness gives them.
func perTest(rights []string) (all []string) {
	for _, r := range rights {
		all = append(all, strings.ReplaceAll(r, "cart.*", "p*"))
	}
	return all
}

// asLeastUser is c with the rights that the documentation names, on all nodes, for the prefixes of a harness.
func asLeastUser(t *testing.T, c Config, nodes ...*testserver.Redis) Config {
	t.Helper()
	for _, node := range nodes {
		do(t, node, perTest(leastUser(t))...)
	}
	c.Username, c.Password = storage.NewSecret("sidecart", "/s/user"), storage.NewSecret("PASSWORD", "/s/password")
	return c
}

// TestLeastUser: the rights that the documentation names are enough for the probe, and for all advice but that on
// persistence. [TestConformance] shows that they are enough for the whole contract.
func TestLeastUser(t *testing.T) {
	r := testserver.StartRedis(t)
	c := testserver.StartRedisCluster(t, 3)
	for name, config := range map[string]Config{
		"Standalone": {Addresses: []string{r.Addr}},
		"Cluster":    {Addresses: c.Addrs(), Mode: Cluster},
	} {
		t.Run(name, func(t *testing.T) {
			config = asLeastUser(t, config, nodes(name, r, c)...)
			config.Prefix = "p"
			s := open(t, config)
			if err := s.Ping(t.Context()); err != nil {
				t.Errorf("Ping: %v", err)
			}
			connected(t, s)
			advice, err := s.Advice(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range advice {
				if a.Code != storage.AdviceNotPersistent && a.Code != storage.AdviceUnknownPersistence {
					t.Errorf("advice: %s: %s", a.Code, a.Message)
				}
			}
		})
	}
}

// TestEachRightIsProbed: a missing right is reported before a client needs it.
func TestEachRightIsProbed(t *testing.T) {
	r := testserver.StartRedis(t)
	// Rights that a change does not need.
	elsewhere := map[string]string{
		"+scan": "flush", "+unlink": "flush",
		"+info": storage.AdviceUnknownEviction, "+publish": storage.AdviceNoWakeUps, "+subscribe": storage.AdviceNoWakeUps,
		"&wake.cart.*": storage.AdviceNoWakeUps, "+config|get": storage.AdviceUnknownPersistence,
		"+ping": "sharing a connection, and subscriptions that are idle", "+wait": "minReplicas", "+cluster|slots": "Cluster",
	}
	user := leastUser(t)
	var n atomic.Int64
	probed := 0
	for i, right := range user {
		if !strings.ContainsAny(right[:1], "+~&") {
			continue
		}
		t.Run(strings.NewReplacer("*", "", "|", " ").Replace(right), func(t *testing.T) {
			name := fmt.Sprintf("user%d", n.Add(1))
			without := slices.Concat(user[:i], user[i+1:])
			without[2] = name
			do(t, r, without...)
			do(t, r, "SCRIPT", "FLUSH") // as after a restart of the server
			s := open(t, Config{Addresses: []string{r.Addr}, Username: storage.NewSecret(name, "/s/user"), Password: storage.NewSecret("PASSWORD", "/s/password")})
			err := s.Ping(t.Context())
			where := elsewhere[right]
			if where == "" {
				probed++
				words, ok := storage.RefusalOf(err)
				if !errors.Is(err, storage.ErrUnavailable) || !ok || strings.Contains(err.Error(), name) {
					t.Errorf("Ping: %v, want ErrUnavailable with the server's words, without the user's name", err)
				}
				command, isCommand := strings.CutPrefix(right, "+")
				if isCommand && !strings.Contains(strings.ToLower(words), command) {
					t.Errorf("Ping: %v, want it to name the command %s", err, command)
				}
				return
			}
			if err != nil {
				t.Errorf("Ping: %v, want it to pass", err)
			}
			if where == "flush" {
				if err := s.Flush(t.Context()); right == "+scan" && !errors.Is(err, storage.ErrUnavailable) {
					t.Errorf("Flush: %v", err)
				}
			}
			advice, err := s.Advice(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(where, "Unknown") || strings.HasPrefix(where, "No") {
				if !slices.ContainsFunc(advice, func(a storage.Advice) bool { return a.Code == where }) {
					t.Errorf("advice is %v, want %s", advice, where)
				}
			}
			for _, a := range advice {
				if strings.Contains(a.Message, name) {
					t.Errorf("advice names the user: %s", a.Message)
				}
			}
		})
	}
	if want := 30; probed < want {
		t.Errorf("only %d rights were probed, want %d", probed, want)
	}
	// A user without the right to delete leaves the probe's keys until they expire.
	if n, err := strconv.Atoi(do(t, r, "DBSIZE")); err != nil || n > 7 {
		t.Errorf("the probes left %d keys, %v", n, err)
	}
}

// TestProbeKnowsAllCommands: the probe uses every command that a script uses.
func TestProbeKnowsAllCommands(t *testing.T) {
	call := regexp.MustCompile(`(?:redis\.p?call|gather|spread)\('([A-Z]+)'`)
	for _, sc := range []script{commitScript, claimScript, abandonScript, leaseScript, instancesScript, pingScript} {
		found := call.FindAllStringSubmatch(sc.source, -1)
		if len(found) == 0 {
			t.Error("a script calls nothing")
		}
		for _, m := range found {
			if !strings.Contains(probeScript.source, "{'"+m[1]+"'") && !strings.Contains(probeScript.source, "pcall('"+m[1]+"'") {
				t.Errorf("the probe does not use %s", m[1])
			}
		}
	}
}

// TestProbeLeavesNothing: nobody sees the cart that a probe makes, and it is gone afterwards.
func TestProbeLeavesNothing(t *testing.T) {
	r := testserver.StartRedis(t)
	c := testserver.StartRedisCluster(t, 3)
	for name, config := range map[string]Config{
		"Standalone": {Addresses: []string{r.Addr}, Namespace: "n:"},
		"Cluster":    {Addresses: c.Addrs(), Mode: Cluster},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, config)
			for _, node := range nodes(name, r, c) {
				do(t, node, "CONFIG", "RESETSTAT")
			}
			for range 3 {
				if err := s.Ping(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			for _, node := range nodes(name, r, c) {
				if n := do(t, node, "DBSIZE"); n != "0" {
					t.Errorf("%s keys are left", n)
				}
				if calls(t, node)["zadd"] == 0 {
					t.Errorf("the probe was not at %s", node.Addr)
				}
			}
			// The cart of a probe that broke off is not listed, expires by itself, and goes with a flush.
			key := cart.Key{Identifier: probeName, Instance: probeName + "x"}
			mustCommit(t, s, storage.Committed, replace(key, &cart.Cart{}, `{}`))
			mustLease(t, s, key, leaseOf(cart.PartItems))
			n := s.space.names(key)
			for _, k := range []string{n.cart, n.index, n.queue, n.fence, n.lockKey(cart.PartItems)} {
				if s.space.owns(k) || !s.space.probes(k) {
					t.Errorf("%q passes for the key of a cart", k)
				}
			}
			if err := s.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, node := range nodes(name, r, c) {
				if n := do(t, node, "DBSIZE"); n != "0" {
					t.Errorf("%s keys are left after a flush", n)
				}
			}
		})
	}
}

// TestProbeOfEachMaster: a Cluster is not ready if one of its masters refuses changes.
func TestProbeOfEachMaster(t *testing.T) {
	c := testserver.StartRedisCluster(t, 3)
	s := open(t, Config{Addresses: c.Addrs(), Mode: Cluster})
	for _, node := range c.Nodes {
		if err := s.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		do(t, node, "CONFIG", "SET", "maxmemory", "1")
		err := s.Ping(t.Context())
		if words, ok := storage.RefusalOf(err); !ok || !strings.HasPrefix(words, "OOM ") {
			t.Errorf("%s is full: Ping: %v", node.Addr, err)
		}
		do(t, node, "CONFIG", "SET", "maxmemory", "0")
	}
}

// TestRefusalIsNoDamage: a refusal by the server is not reported as damaged data, since the server has not looked at
// the data.
func TestRefusalIsNoDamage(t *testing.T) {
	start := func(args ...string) *testserver.Redis {
		return testserver.StartRedis(t, testserver.WithRedisArgs(args...))
	}
	t.Run("without TIME", func(t *testing.T) {
		s := open(t, Config{Addresses: []string{start("--rename-command", "TIME", "").Addr}})
		wantUnavailable(t, s, "without TIME")
		if words, ok := storage.RefusalOf(s.Ping(t.Context())); !ok || !strings.Contains(words, "TIME") {
			t.Errorf("the refusal does not name TIME: %q", words)
		}
	})
	t.Run("without EVALSHA", func(t *testing.T) {
		s := open(t, Config{Addresses: []string{start("--rename-command", "EVALSHA", "").Addr}})
		wantUnavailable(t, s, "without EVALSHA")
		_, err := s.Commit(t.Context(), replace(u1, &cart.Cart{}, `{"secret":1}`))
		if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "cart.u1") {
			t.Errorf("the error quotes the call: %v", err)
		}
	})
	t.Run("without PEXPIREAT", func(t *testing.T) {
		s := open(t, Config{Addresses: []string{start("--rename-command", "PEXPIREAT", "").Addr}})
		_, err := s.Commit(t.Context(), replace(u1, &cart.Cart{}, `{}`))
		if !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("Commit: %v, want ErrUnavailable", err)
		}
	})
	t.Run("busy", func(t *testing.T) {
		r := start("--busy-reply-threshold", "10")
		s := open(t, Config{Addresses: []string{r.Addr}})
		ended := make(chan error, 1)
		go func() {
			_, err := r.Do("EVAL", "while true do end", "0")
			ended <- err
		}()
		await(t, "the server is busy", func() bool {
			_, err := r.Do("PING")
			return err != nil && strings.HasPrefix(err.Error(), "BUSY")
		})
		wantUnavailable(t, s, "busy")
		do(t, r, "SCRIPT", "KILL")
		if err := <-ended; err == nil {
			t.Error("the script was not killed")
		}
	})
	t.Run("a mistake in a script", func(t *testing.T) {
		s := open(t, Config{Addresses: []string{start().Addr}})
		for _, source := range []string{"return nothing.here", "return 1 + {}", "return redis.call('NOPE')", "error('no')", "return redis.error_reply('ERR x')"} {
			sc := newScript(source)
			_, err := s.run(t.Context(), sc, scriptArgs(sc, 0))
			if err = s.translate(t.Context(), err, "try"); !errors.Is(err, storage.ErrUnavailable) || errors.Is(err, storage.ErrCorrupt) {
				t.Errorf("%s: %v, want ErrUnavailable", source, err)
			}
			if words, ok := storage.RefusalOf(err); !ok || strings.Contains(words, "user_script") && !strings.Contains(words, ": attempt") && !strings.Contains(words, "global") && !strings.Contains(words, "no") {
				t.Errorf("%s: words are %q", source, words)
			}
		}
	})
}

// TestDamagedQueues: whatever is stored under the key of a queue, scripts check it before they use it.
func TestDamagedQueues(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	mustCommit(t, s, storage.Committed, replace(u1, &cart.Cart{}, `{}`))
	was := mustLoad(t, s, u1)
	token := randomName()
	for _, queue := range []string{
		`x`, `[]`, `1`, `null`, `{}`, `{"held":[],"waiting":1}`, `{"held":[1],"waiting":[]}`, `{"held":[{"token":"t"}],"waiting":[]}`,
		`{"held":[{"token":"t","holder":"","parts":[{}],"expires":1}],"waiting":[]}`,
		`{"held":[{"token":"` + token + `","holder":"","parts":["items"],"expires":"soon"}],"waiting":[]}`,
		`{"held":[],"waiting":[{"token":"t","holder":"","parts":["items"],"alive":9e15}]}`,
		`{"held":[{"token":"` + token + `","holder":"","parts":["items"],"expires":9e15}],"waiting":[{"token":"t","holder":null,"parts":["items"],"alive":9e15,"lease":1,"life":2,"wake":"w"}]}`,
	} {
		do(t, r, "SET", "queue.cart.u1.default", queue)
		do(t, r, "SET", "lock.cart.u1.default.items", token)
		turn := replace(u1, was, `{"a":1}`)
		again := claimOf(cart.PartItems)
		turn.Locks.Token, turn.Locks.Release, turn.Locks.Again = token, true, &again
		_, commit := s.Commit(t.Context(), replace(u1, was, `{"a":1}`))
		_, inTurn := s.Commit(t.Context(), turn)
		ctx, cancel := context.WithTimeout(t.Context(), patient) // for a queue that passes for one
		_, claim := s.Acquire(ctx, u1, claimOf(cart.PartItems), false)
		cancel()
		_, lease := s.Lease(t.Context(), u1, token)
		for doing, err := range map[string]error{"Commit": commit, "Commit in turn": inTurn, "Acquire": claim, "Lease": lease, "Abandon": s.Abandon(t.Context(), u1, token)} {
			if !errors.Is(err, storage.ErrCorrupt) {
				t.Errorf("queue %s: %s: %v, want ErrCorrupt", queue, doing, err)
			}
		}
	}
	if now := mustLoad(t, s, u1); now.Version != was.Version {
		t.Error("a commit was made")
	}
}

func TestWords(t *testing.T) {
	const sha = "0123456789012345678901234567890123456789"
	for said, want := range map[string]string{
		"NOPERM No permissions to access a key": "NOPERM No permissions to access a key",
		"ERR ACL failure in script: User se cret has no permissions to run the 'time' command script: " + sha + ", on @user_script:7.": "ERR ACL failure in script: the user has no permissions to run the 'time' command",
		"NOPERM User s3cret has no permissions to run the 'evalsha' command":                                                           "NOPERM the user has no permissions to run the 'evalsha' command",
		"ERR unknown command 'evalsha', with args beginning with: 'x' '4' 'cart.u1' ":                                                  "ERR unknown command 'evalsha'",
		"ERR Error running script (call to f_" + sha + "): @user_script:3: user_script:3: Unknown Redis command called from script":    "Unknown Redis command called from script",
		"OOM command not allowed when used memory > 'maxmemory'. script: " + sha + ", on @user_script:42.":                             "OOM command not allowed when used memory > 'maxmemory'.",
		"MISCONF a\r\nb": "MISCONF a b",
	} {
		if got := (&Store{}).words(goredisError(said)); got != want {
			t.Errorf("words(%q) = %q, want %q", said, got, want)
		}
	}
}
