package testserver

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Redis is a redis-server process. Stop, Kill, Pause, Resume and PID act on the process; Restart starts it again in the
// same place.
type Redis struct {
	*process
	// Addr is where it listens: "127.0.0.1:port", or the path of a unix socket with [WithSocket].
	Addr string
	// TLSAddr is where it speaks TLS, with [Authority.Secure].
	TLSAddr string

	args     []string
	password string
}

// RedisOption changes how a [Redis] is started.
type RedisOption func(*redisSetup)

type redisSetup struct {
	socket   bool
	args     []string
	password string
	host     string
	tls      []string // arguments for TLS
}

// WithSocket makes the server listen on a unix socket instead of a port.
func WithSocket() RedisOption { return func(s *redisSetup) { s.socket = true } }

// WithAOF makes every acknowledged write durable (appendfsync always), so that it survives Kill and Restart.
func WithAOF() RedisOption {
	return WithRedisArgs("--appendonly", "yes", "--appendfsync", "always")
}

// WithRedisArgs adds arguments to the command line of redis-server.
func WithRedisArgs(args ...string) RedisOption {
	return func(s *redisSetup) { s.args = append(s.args, args...) }
}

// StartRedis starts an empty redis-server on loopback, and stops it at the end of the test.
func StartRedis(tb TB, opts ...RedisOption) *Redis {
	tb.Helper()
	var s redisSetup
	for _, o := range opts {
		o(&s)
	}
	r := &Redis{process: newProcess(tb, "redis-server"), password: s.password}
	if s.socket {
		// Paths of sockets are short by law (108 bytes), test folders are not.
		dir, err := os.MkdirTemp("", "redis")
		if err != nil {
			tb.Fatalf("folder for the socket: %v", err)
		}
		tb.Cleanup(func() { _ = os.RemoveAll(dir) })
		r.Addr = filepath.Join(dir, "s")
	}
	if err := r.launch(s, nil); err != nil {
		tb.Fatalf("%v", err)
	}
	return r
}

// launch finds a port and starts the server. If somebody took the port meanwhile, it tries another.
func (r *Redis) launch(s redisSetup, first []string) error {
	const attempts = 5
	host, err := cmp.Or(s.host, "127.0.0.1"), error(nil)
	for range attempts {
		args := append(append([]string{}, first...), "--dir", r.dir)
		if len(first) == 0 { // sentinels know no --save
			// By default a master waits for 5 s whether more replicas come.
			args = append(args, "--save", "", "--repl-diskless-sync-delay", "0")
		}
		if s.socket {
			args = append(args, "--port", "0", "--unixsocket", r.Addr)
		} else {
			port, perr := freePort()
			if perr != nil {
				return perr
			}
			r.Addr = net.JoinHostPort(host, strconv.Itoa(port))
			args = append(args, "--bind", host, "--port", strconv.Itoa(port))
		}
		if s.tls != nil {
			port, perr := freePort()
			if perr != nil {
				return perr
			}
			r.TLSAddr = net.JoinHostPort(host, strconv.Itoa(port))
			args = append(append(args, "--tls-port", strconv.Itoa(port)), s.tls...)
		}
		r.args = append(args, s.args...)
		if err = r.start(r.args, r.ready); err == nil {
			return nil
		}
	}
	return err
}

// among is the address that other servers use.
func (r *Redis) among() string { return cmp.Or(r.TLSAddr, r.Addr) }

// Restart stops the server, if it runs, and starts it in the same place with the same data.
func (r *Redis) Restart() {
	r.tb.Helper()
	r.Stop()
	if err := r.start(r.args, r.ready); err != nil {
		r.tb.Fatalf("%v", err)
	}
}

// ready is nil once the server serves. An answer that asks for a password counts as serving; one that says that data is
// being loaded does not.
func (r *Redis) ready() error {
	reply, err := r.Do("PING")
	if err != nil && strings.HasPrefix(err.Error(), "NOAUTH") {
		return nil
	}
	if err != nil {
		return err
	}
	if reply != "PONG" {
		return fmt.Errorf("answered %q to PING", reply)
	}
	return nil
}

// Do sends one command over a connection of its own. It returns the reply if that is a status, a number or a string,
// and the empty string otherwise. An error reply is an error.
func (r *Redis) Do(args ...string) (string, error) {
	conn, err := r.dial()
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	if r.password != "" {
		if _, err := exchange(conn, in, "AUTH", r.password); err != nil {
			return "", err
		}
	}
	return exchange(conn, in, args...)
}

func (r *Redis) dial() (net.Conn, error) {
	network := "tcp"
	if filepath.IsAbs(r.Addr) {
		network = "unix"
	}
	conn, err := net.DialTimeout(network, r.Addr, time.Second)
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(time.Now().Add(stopTimeout))
}

// exchange sends one command and reads its reply.
func exchange(conn io.Writer, in *bufio.Reader, args ...string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := io.WriteString(conn, b.String()); err != nil {
		return "", err
	}
	line, err := in.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimRight(line, "\r\n")
	switch line[0] {
	case '-':
		return "", errors.New(line[1:])
	case '+', ':':
		return line[1:], nil
	case '$':
		n, err := strconv.Atoi(line[1:])
		if err != nil || n < 0 {
			return "", err
		}
		raw := make([]byte, n)
		_, err = io.ReadFull(in, raw)
		return string(raw), err
	}
	return "", nil
}
