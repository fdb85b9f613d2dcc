package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"

	"github.com/sidecart/sidecart/internal/storage"
)

// TestToldOfDeadlines: which deadline passes first is chance, so all are told alike; other causes keep their words.
func TestToldOfDeadlines(t *testing.T) {
	server := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 6379}
	op := func(op string, addr net.Addr, err error) error {
		return &net.OpError{Op: op, Net: "tcp", Addr: addr, Err: err}
	}
	for what, c := range map[string]struct {
		err  error
		want string
	}{
		"the request's":           {context.DeadlineExceeded, "no answer in time"},
		"of an attempt":           {op("dial", server, os.ErrDeadlineExceeded), "no answer in time"},
		"of one without address":  {op("dial", nil, context.DeadlineExceeded), "no answer in time"},
		"of a read":               {op("read", server, os.ErrDeadlineExceeded), "no answer in time"},
		"nobody knows whose":      {nil, "no answer in time"},
		"of one of many servers":  {errors.Join(&storage.Silence{Server: "a:11211"}, context.DeadlineExceeded), "a:11211: no answer in time"},
		"none, it is not there":   {op("dial", server, errors.New("connection refused")), "dial 10.0.0.1:6379: connection refused"},
		"none, it has other news": {errors.New("EOF"), "EOF"},
	} {
		err := fmt.Errorf("ping: %w", storage.ErrUnavailable)
		if c.err != nil {
			err = fmt.Errorf("ping: %w: %w", storage.ErrUnavailable, c.err)
		}
		if words, refused := told(err); words != c.want || refused {
			t.Errorf("%s: told %q, refused %t; want %q", what, words, refused, c.want)
		}
	}
}
