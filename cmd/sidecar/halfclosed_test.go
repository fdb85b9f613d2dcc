package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/testserver"
)

// A client that closes its side of the connection after the request, as netcat does, is served the same on every
// backend: the change is made and answered.
func TestHalfClosedChangeIsMade(t *testing.T) {
	for name, args := range map[string]func() []string{
		"memory": func() []string { return []string{"--backend=memory"} },
		"sqlite": func() []string { return []string{"--database-url=" + sqliteURL(t)} },
		"redis": func() []string {
			return []string{"--backend=redis", "--redis-address=" + testserver.StartRedis(t).Addr}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := launch(t, args()...)
			s.ready(true)
			for i := range 20 {
				conn, err := net.Dial("tcp", strings.TrimPrefix(s.http, "http://"))
				if err != nil {
					t.Fatal(err)
				}
				_ = conn.SetDeadline(time.Now().Add(patience))
				body := `{"item":{"id":"sku-1"}}`
				_, _ = fmt.Fprintf(conn, "POST /v1/carts/u1/default/items HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
				if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
					t.Fatal(err)
				}
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				answer, _ := io.ReadAll(resp.Body)
				_ = conn.Close()
				if resp.StatusCode != http.StatusOK || s.quantity("u1") != i+1 {
					t.Fatalf("change %d: %d %s; the quantity is %d", i+1, resp.StatusCode, answer, s.quantity("u1"))
				}
			}
		})
	}
}
