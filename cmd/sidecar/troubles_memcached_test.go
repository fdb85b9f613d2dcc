package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/testserver"
)

var memcachedTroubles = []failure{
	{"the server is down", func(t *testing.T) scene {
		m := testserver.StartMemcached(t)
		return scene{args: onMemcachedAt(m.Addr), strike: m.Kill, mend: m.Restart}
	}, 2 * time.Second},
	{"the server of the cart is down, another one answers", func(t *testing.T) scene {
		servers := []*testserver.Memcached{testserver.StartMemcached(t), testserver.StartMemcached(t)}
		var down *testserver.Memcached
		return scene{
			args: onMemcachedAt(servers[0].Addr + "," + servers[1].Addr),
			strike: func() {
				for _, m := range servers {
					if answer, err := m.Do("get cart.u1.default"); err != nil {
						t.Fatal(err)
					} else if strings.HasPrefix(answer, "VALUE") {
						down = m
					}
				}
				down.Kill()
			},
			mend: func() { down.Restart() },
		}
	}, 2 * time.Second},
	{"the host is unreachable: packets to it are dropped", func(t *testing.T) scene {
		return scene{args: onMemcachedAt(blackHole(t))}
	}, 3 * time.Second},
	{"a connection is half-open: packets on it are dropped", func(t *testing.T) scene {
		return halfOpen(t, testserver.StartMemcached(t).Addr, onMemcachedAt)
	}, 3 * time.Second},
	{"the server is frozen (SIGSTOP)", func(t *testing.T) scene {
		m := testserver.StartMemcached(t)
		return scene{args: onMemcachedAt(m.Addr), strike: m.Pause, mend: m.Resume}
	}, 3 * time.Second},
	{"the server is out of memory (`-M`)", func(t *testing.T) scene {
		m := testserver.StartMemcached(t, "-m", "2", "-M")
		return scene{args: onMemcachedAt(m.Addr), strike: func() { fillMemcached(t, m) }, mend: m.Restart, large: 800} // of a size that no probe makes room for
	}, 2 * time.Second},
	{"the server is out of memory and evicts (without `-M`)", func(t *testing.T) scene {
		m := testserver.StartMemcached(t, "-m", "2")
		return scene{args: onMemcachedAt(m.Addr), strike: func() { fillMemcached(t, m) }, mend: nothing, warns: storage.AdviceCartsEvicted}
	}, 2 * time.Second},
	{"a cart is larger than an item of the server may be (`-I`)", func(t *testing.T) scene {
		m := testserver.StartMemcached(t, "-I", "512k")
		return scene{args: onMemcachedAt(m.Addr), strike: nothing, mend: nothing, large: 600 << 10, fine: true}
	}, 2 * time.Second},
	{"the server has as many connections as it takes (`-c`)", func(t *testing.T) scene {
		const most = 64
		m := testserver.StartMemcached(t, "-c", fmt.Sprint(most))
		return scene{args: onMemcachedAt(m.Addr), mend: guests(t, m.Addr, most, "version\r\n")}
	}, 2 * time.Second},
	{"the server was started without cas (`-C`)", func(t *testing.T) scene {
		return scene{args: onMemcachedAt(testserver.StartMemcached(t, "-C").Addr)}
	}, 2 * time.Second},
}

func onMemcachedAt(address string) []string {
	return []string{"--backend=memcached", "--memcached-address=" + address}
}

// fillMemcached leaves no room for an item of any size that a small cart can have: the server keeps those of each size
// apart.
func fillMemcached(t *testing.T, m *testserver.Memcached) {
	t.Helper()
	conn, err := net.Dial("tcp", m.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	full := make(chan error, 1)
	go func() { // it complains of each that it does not take
		for lines := bufio.NewReader(conn); ; {
			line, err := lines.ReadString('\n')
			if err != nil || strings.HasPrefix(line, "VERSION") {
				full <- err
				return
			}
		}
	}()
	for size := 250; size < 1500; size += size / 5 { // by less than from one size to the next, which is a quarter
		var all strings.Builder
		for n := range (3 << 19) / size {
			fmt.Fprintf(&all, "add filler-%d-%d 0 0 %d noreply\r\n%s\r\n", size, n, size, strings.Repeat("x", size))
		}
		if _, err := io.WriteString(conn, all.String()); err != nil {
			t.Fatal(err)
		}
	}
	// When this is answered, everything that was sent before it is done.
	if _, err := io.WriteString(conn, "version\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := <-full; err != nil {
		t.Fatal(err)
	}
}
