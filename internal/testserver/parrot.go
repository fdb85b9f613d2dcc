package testserver

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
)

// Parrot speaks the protocol of Redis and refuses every command with an error that repeats the whole command, and
// everything that its connection sent before. Real servers do so in part: one quotes the user whom it refuses, another
// the words of a command that it does not know. So the text that a client makes of such an error must hold no secret.
type Parrot struct{ Addr string }

// StartParrot starts one in this process; it ends with the test.
func StartParrot(tb TB) *Parrot {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("parrot: %v", err)
	}
	var (
		connections sync.WaitGroup
		mu          sync.Mutex
		open        = map[net.Conn]bool{}
	)
	connections.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			connections.Go(func() {
				repeat(c)
				_ = c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	tb.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		connections.Wait()
	})
	return &Parrot{Addr: l.Addr().String()}
}

// repeat answers commands until the connection ends.
func repeat(c io.ReadWriter) {
	const most = 64 << 10
	in := bufio.NewReader(c)
	heard := ""
	for {
		words, err := readCommand(in)
		if err != nil {
			return
		}
		heard += " " + strings.Join(words, " ")
		heard = heard[max(0, len(heard)-most):]
		line := strings.NewReplacer("\r", " ", "\n", " ").Replace(heard)
		if _, err := fmt.Fprintf(c, "-ERR refused:%s\r\n", line); err != nil {
			return
		}
	}
}

// readCommand reads an array of bulk strings.
func readCommand(in *bufio.Reader) ([]string, error) {
	n, err := readCount(in, '*')
	if err != nil {
		return nil, err
	}
	words := make([]string, n)
	for i := range words {
		size, err := readCount(in, '$')
		if err != nil {
			return nil, err
		}
		raw := make([]byte, size+2)
		if _, err := io.ReadFull(in, raw); err != nil {
			return nil, err
		}
		words[i] = string(raw[:size])
	}
	return words, nil
}

func readCount(in *bufio.Reader, kind byte) (int, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimRight(strings.TrimPrefix(line, string(kind)), "\r\n"))
	if err != nil || line[0] != kind || n < 0 || n > 1<<22 {
		return 0, fmt.Errorf("%q is no count", line)
	}
	return n, nil
}
