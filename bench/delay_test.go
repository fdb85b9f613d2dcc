package main

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestDelayProxy(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	p, err := startDelayProxy(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	const oneWay = 3 * time.Millisecond
	p.oneWay.Store(int64(oneWay))

	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	buf := make([]byte, 2)
	for range 10 {
		start := time.Now()
		if _, err := io.WriteString(conn, "hi"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != "hi" {
			t.Fatalf("echo of hi: %q, %v", buf, err)
		}
		if took := time.Since(start); took < 2*oneWay {
			t.Errorf("a round trip took %s, want at least %s", took, 2*oneWay)
		}
	}

	// Many chunks arrive in order, and the end of one side reaches the other.
	sent := strings.Repeat("0123456789", 100_000)
	go func() {
		_, _ = io.WriteString(conn, sent)
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	if got, err := io.ReadAll(conn); err != nil || string(got) != sent {
		t.Fatalf("got %d bytes back, want the %d that were sent: %v", len(got), len(sent), err)
	}
}
