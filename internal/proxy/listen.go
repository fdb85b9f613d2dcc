package proxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"
)

// listenLoopback listens where only programs of this machine, or of this pod, can connect, because clients are not
// authenticated.
func listenLoopback(what, address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("%s address %q: %w", what, address, err)
	}
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("%s address %q is not on loopback, and clients are not authenticated: write 127.0.0.1:PORT or [::1]:PORT", what, address)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if a, ok := l.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
		_ = l.Close()
		return nil, fmt.Errorf("%s address %q resolves to %s, which is not loopback: write 127.0.0.1:PORT", what, address, l.Addr())
	}
	return l, nil
}

// listenTwin listens on [::1], at the same port, if l listens on 127.0.0.1: for most clients "localhost" is both. It
// returns nil if l has another address. It also returns nil if it cannot listen there; why says why.
func listenTwin(l net.Listener) (twin net.Listener, why error) {
	a, ok := l.Addr().(*net.TCPAddr)
	if !ok || !a.IP.Equal(net.IPv4(127, 0, 0, 1)) {
		return nil, nil
	}
	twin, err := net.Listen("tcp6", net.JoinHostPort("::1", strconv.Itoa(a.Port)))
	if err != nil {
		return nil, err
	}
	return twin, nil
}

// socketMode gives access to the owner and the group of a pod's user, and to nobody else.
const socketMode = 0o660

// listenSocket listens on a Unix socket. It replaces a socket file that a dead process left, but not one on which a
// process answers.
func listenSocket(path string) (net.Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := os.Chmod(path, socketMode); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("socket: %w", err)
	}
	return l, nil
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("socket %s: there is something else under this name, which is left alone: choose another path", path)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		_ = c.Close()
		return fmt.Errorf("socket %s: another process answers on it", path)
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("socket %s: %w", path, err)
	}
	return os.Remove(path)
}
