package controller

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
)

// from is a connection of a host on loopback.
func from(t *testing.T, host, address string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(host)}}
	c, err := d.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Thousands of half-sent requests of one host neither use up memory nor keep others from being answered.
func TestConnectionsAreBounded(t *testing.T) {
	const strangers = 2000
	entered, leave := make(chan struct{}), make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/slow", func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-leave
		_, _ = io.WriteString(w, "slow")
	})
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	server, err := serve("probes", "127.0.0.1:0", mux, nil, logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Start(ctx) }()
	address := server.Listener.Addr().String()
	listener := server.Listener.(*boundedListener)
	open := func() int {
		listener.mu.Lock()
		defer listener.mu.Unlock()
		return listener.in.Len()
	}

	slow := from(t, "127.0.0.3", address)
	_, _ = fmt.Fprintf(slow, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	<-entered
	before := heap()
	for range strangers {
		_, _ = fmt.Fprintf(from(t, "127.0.0.1", address), "GET /healthz HTTP/1.1\r\nHost: a\r\nX-")
	}
	probe := from(t, "127.0.0.2", address)
	_ = probe.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = fmt.Fprintf(probe, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(probe), nil); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("a probe is answered %v, error %v", resp, err)
	}
	within(t, 10*time.Second, func() string {
		if n := open(); n > mostConns {
			return fmt.Sprintf("%d connections are open, want %d at most", n, mostConns)
		}
		return ""
	})
	if grown := heap() - before; grown > 16 {
		t.Errorf("the heap has grown by %.0f MiB", grown)
	} else {
		t.Logf("the heap has grown by %.1f MiB, this test's own ends included", grown)
	}
	// The connections that were being answered were not closed.
	close(leave)
	_ = slow.SetDeadline(time.Now().Add(10 * time.Second))
	if resp, err := http.ReadResponse(bufio.NewReader(slow), nil); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("the slow request is answered %v, error %v", resp, err)
	}
	within(t, 30*time.Second, func() string { // what never asks is closed
		if n := open(); n > 2 {
			return fmt.Sprintf("%d connections are open", n)
		}
		return ""
	})
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// If all connections are being answered, one more is not let in.
func TestConnectionsAllBusy(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newBoundedListener(inner, 1)
	defer func() { _ = l.Close() }()
	accepted := make(chan net.Conn, 2)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.(*visitor).busy.Store(true)
			accepted <- c
		}
	}()
	from(t, "127.0.0.1", inner.Addr().String())
	first := <-accepted
	second := from(t, "127.0.0.1", inner.Addr().String())
	if _, err := second.Read(make([]byte, 1)); err == nil {
		t.Error("the second connection was let in")
	}
	_ = first.Close()
	from(t, "127.0.0.1", inner.Addr().String())
	<-accepted
}

// Strangers cannot fill the log; a panic of ours is logged.
func TestServerLog(t *testing.T) {
	var told bytes.Buffer
	log := logr.FromSlogHandler(slog.NewTextHandler(&told, nil))
	server, err := serve("probes", "127.0.0.1:0", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), nil, log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Listener.Close() }()
	server.Server.ErrorLog.Print("http: TLS handshake error from 10.0.0.1:4711: EOF")
	if told.Len() > 0 {
		t.Errorf("a failed handshake is told: %s", &told)
	}
	server.Server.ErrorLog.Print("http: panic serving 10.0.0.1:4711: nil")
	if !strings.Contains(told.String(), "level=ERROR") || !strings.Contains(told.String(), "panic serving") {
		t.Errorf("a panic is told as %q", &told)
	}
}
