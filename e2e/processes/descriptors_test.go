package processes

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A sidecar without free descriptors waits for some, on every front, and does not exit.
func TestOutOfDescriptors(t *testing.T) {
	admin := freeAddress(t)
	s := prepare(t, "--backend", "database", "--database-url", "sqlite:"+filepath.Join(t.TempDir(), "carts.db"), "--admin-address", admin)
	s.run()
	s.must(http.MethodPut, "/v1/carts/u1/default/items", `{"items":{"a":{}}}`)
	s.client.CloseIdleConnections()
	few := unix.Rlimit{Cur: 64, Max: 64}
	if err := unix.Prlimit(s.cmd.Process.Pid, unix.RLIMIT_NOFILE, &few, nil); err != nil {
		t.Fatal(err)
	}
	for _, front := range []struct{ network, address string }{{"unix", s.socket}, {"tcp", admin}} {
		var conns []net.Conn
		for range 200 { // those that are not accepted wait in the queue of the listener
			c, err := net.DialTimeout(front.network, front.address, time.Second)
			if err != nil {
				break
			}
			conns = append(conns, c)
			_, _ = c.Write([]byte("P"))
		}
		if len(conns) < 64 {
			t.Fatalf("%s: only %d connections", front.network, len(conns))
		}
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid))
			if err != nil {
				t.Fatalf("%s: the sidecar has exited: %v", front.network, err)
			}
			if len(open) >= int(few.Cur)-1 { // one may be free: who meets the limit closes the oldest connection
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: only %d descriptors are open", front.network, len(open))
			}
		}
		for _, c := range conns {
			_ = c.Close()
		}
		if got := s.must(http.MethodGet, "/v1/carts/u1/default", ""); got["version"] != float64(1) {
			t.Errorf("%s: afterwards %v", front.network, got)
		}
	}
	if code := s.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
