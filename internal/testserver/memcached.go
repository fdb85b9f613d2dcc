package testserver

import (
	"bufio"
	"fmt"
	"net"
	"os/user"
	"strconv"
	"strings"
	"time"
)

// Memcached is a memcached process. Stop, Kill, Pause, Resume and PID act on the process; Restart starts it again on
// the same port, with nothing in it.
type Memcached struct {
	*process
	// Addr is where it listens: "127.0.0.1:port".
	Addr string

	args []string
}

// StartMemcached starts a memcached on loopback, which is stopped at the end of the test. More arguments are added to
// its command line: "-I", "4m" for larger items, "-m", "8" for less memory.
func StartMemcached(tb TB, more ...string) *Memcached {
	tb.Helper()
	m := &Memcached{process: newProcess(tb, "memcached")}
	me, err := user.Current() // it does not run as root unless it is told to
	if err != nil {
		tb.Fatalf("%v", err)
	}
	const attempts = 5
	for range attempts {
		port, perr := freePort()
		if perr != nil {
			tb.Fatalf("%v", perr)
		}
		m.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		m.args = append([]string{"-u", me.Username, "-l", "127.0.0.1", "-p", strconv.Itoa(port), "-U", "0", "-t", "2"}, more...)
		if err = m.start(m.args, m.ready); err == nil {
			return m
		}
	}
	tb.Fatalf("%v", err)
	return nil
}

// Restart stops the server, if it runs, and starts it on the same port.
func (m *Memcached) Restart() {
	m.tb.Helper()
	m.Stop()
	if err := m.start(m.args, m.ready); err != nil {
		m.tb.Fatalf("%v", err)
	}
}

// ready is nil once this very process answers, and not another that has the port.
func (m *Memcached) ready() error {
	stats, err := m.Do("stats")
	if err != nil {
		return err
	}
	if want := fmt.Sprintf("STAT pid %d", m.cmd.Process.Pid); !strings.Contains(stats, want+"\n") {
		return fmt.Errorf("another process answers on %s", m.Addr)
	}
	return nil
}

// Do sends one command, a line or one with its data, over a connection of its own, and returns the lines of the answer.
func (m *Memcached) Do(command string) (string, error) {
	conn, err := net.DialTimeout("tcp", m.Addr, time.Second)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(stopTimeout))
	if _, err := conn.Write([]byte(command + "\r\n")); err != nil {
		return "", err
	}
	var answer strings.Builder
	in := bufio.NewReader(conn)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return "", err
		}
		line = strings.TrimRight(line, "\r\n")
		answer.WriteString(line + "\n")
		if ends(line) {
			return answer.String(), nil
		}
	}
}

// ends reports whether a line is the last of an answer. Values that a test stores must have no such line.
func ends(line string) bool {
	word, _, _ := strings.Cut(line, " ")
	switch word {
	case "END", "OK", "STORED", "NOT_STORED", "EXISTS", "NOT_FOUND", "DELETED", "ERROR", "CLIENT_ERROR", "SERVER_ERROR":
		return true
	}
	return false
}
