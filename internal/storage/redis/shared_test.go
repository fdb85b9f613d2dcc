package redis

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// sharedPipe is a shared connection whose other end the test plays.
func sharedPipe(t *testing.T, timeout time.Duration) (*shared, net.Conn) {
	ours, theirs := net.Pipe()
	s := newShared(ours, timeout, func(*shared) {})
	t.Cleanup(func() {
		_ = theirs.Close()
		<-s.ended
	})
	return s, theirs
}

// outcome is what became of a call.
type outcome struct {
	text string
	sent bool
	err  error
}

// call makes a call in the background.
func (s *shared) call(ctx context.Context, word string) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		r, sent, err := s.do(ctx, []any{word})
		done <- outcome{r.text, sent, err}
	}()
	return done
}

func read(t *testing.T, conn net.Conn) string {
	t.Helper()
	buf := make([]byte, 1<<16)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func write(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

func command(words ...string) (text string) {
	for _, word := range words {
		text += fmt.Sprintf("*1\r\n$%d\r\n%s\r\n", len(word), word)
	}
	return text
}

// TestBatch: a lone command is written at once, those that come while it is being written go together, and each caller
// gets the reply to its own.
func TestBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, server := sharedPipe(t, time.Second)
		a := s.call(t.Context(), "a")
		synctest.Wait() // it is being written
		b := s.call(t.Context(), "b")
		synctest.Wait()
		c := s.call(t.Context(), "c")
		synctest.Wait()
		if got := read(t, server); got != command("a") {
			t.Errorf("first %q was written", got)
		}
		if got := read(t, server); got != command("b", "c") {
			t.Errorf("then %q was written", got)
		}
		write(t, server, "+A\r\n$1\r\nB\r\n:3\r\n")
		for want, done := range map[string]<-chan outcome{"A": a, "B": b, "3": c} {
			if got := <-done; got != (outcome{want, true, nil}) {
				t.Errorf("%+v, want the reply %s", got, want)
			}
		}
	})
}

// TestBrokenBatch: when a connection breaks, what was written may have been made, and what was not was not.
func TestBrokenBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, server := sharedPipe(t, time.Second)
		answered := s.call(t.Context(), "a")
		synctest.Wait()
		read(t, server)
		sent := s.call(t.Context(), "b")
		synctest.Wait()
		read(t, server)
		half := s.call(t.Context(), "c")
		synctest.Wait()
		waits := s.call(t.Context(), "d")
		synctest.Wait()
		write(t, server, "+A\r\n")
		if _, err := io.ReadFull(server, make([]byte, 3)); err != nil {
			t.Fatal(err)
		}
		_ = server.Close()
		if got := <-answered; got != (outcome{"A", true, nil}) {
			t.Errorf("the call that was answered: %+v", got)
		}
		for what, done := range map[string]<-chan outcome{"written": sent, "written in part": half} {
			if got := <-done; !got.sent || got.err == nil {
				t.Errorf("the call that was %s: %+v, want an error", what, got)
			}
		}
		if got := <-waits; got.sent || got.err == nil {
			t.Errorf("the call that was not written: %+v, want one that was not sent", got)
		}
		if got := <-s.call(t.Context(), "e"); got.sent {
			t.Errorf("a call on the broken connection: %+v, want one that was not sent", got)
		}
	})
}

// TestOverdue: a call fails when its own time is up. Another that began later still gets its reply, and none begins any
// more. When the last has ended, the connection is closed.
func TestOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, server := sharedPipe(t, 500*time.Millisecond)
		start := time.Now()
		first := s.call(t.Context(), "a")
		synctest.Wait()
		read(t, server)
		time.Sleep(300 * time.Millisecond)
		second := s.call(t.Context(), "b")
		synctest.Wait()
		read(t, server)
		got := <-first
		if timeout, ok := errors.AsType[net.Error](got.err); !ok || !timeout.Timeout() || !got.sent || time.Since(start) != 500*time.Millisecond {
			t.Errorf("after %v: %+v, want a timeout after 500ms", time.Since(start), got)
		}
		if got := <-s.call(t.Context(), "c"); got.sent {
			t.Errorf("a call after one was overdue: %+v, want one that was not sent", got)
		}
		write(t, server, "+A\r\n+B\r\n")
		if got := <-second; got != (outcome{"B", true, nil}) {
			t.Errorf("the later call: %+v", got)
		}
		<-s.ended
	})
}

// TestHalfOpen: a server that is gone without a word, or that no longer reads, costs each caller its own timeout or
// deadline, and then the connection is closed.
func TestHalfOpen(t *testing.T) {
	for what, reads := range map[string]bool{"silent": true, "not reading": false} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const timeout, apart, short = 500 * time.Millisecond, 100 * time.Millisecond, 20 * time.Millisecond
				s, server := sharedPipe(t, timeout)
				var crowd sync.WaitGroup
				for i, within := range []time.Duration{short, timeout, timeout, short, timeout} {
					crowd.Go(func() {
						ctx, cancel := t.Context(), func() {}
						if within == short {
							ctx, cancel = context.WithTimeout(ctx, short)
						}
						defer cancel()
						start := time.Now()
						_, sent, err := s.do(ctx, []any{"a"})
						if !sent || !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != within {
							t.Errorf("call %d: sent %v, %v after %v, want a timeout after %v", i, sent, err, time.Since(start), within)
						}
					})
					synctest.Wait()
					if reads {
						read(t, server)
					}
					time.Sleep(apart)
				}
				crowd.Wait()
				<-s.ended
			})
		})
	}
}

// TestFullQueue: commands that a server does not take wait in bounded memory. A call beyond that is not sent, at once,
// and the connection is good for more once the server has taken them.
func TestFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, server := sharedPipe(t, time.Second)
		word := strings.Repeat("x", mostShared-100)
		var crowd sync.WaitGroup
		full := 0
		for range 2 * mostWaiting / mostShared {
			done := s.call(t.Context(), word)
			synctest.Wait()
			select {
			case got := <-done:
				if got.sent {
					t.Errorf("a call ended with %+v, want one that was not sent", got)
				}
				full++
			default:
				crowd.Go(func() {
					if got := <-done; got != (outcome{"A", true, nil}) {
						t.Errorf("a call that waited: %+v", got)
					}
				})
			}
		}
		if n := len(s.out); full == 0 || n > mostWaiting+mostShared {
			t.Errorf("%d calls were not sent, %d bytes wait", full, n)
		}
		go func() {
			for {
				n, err := server.Read(make([]byte, 2*mostWaiting))
				if err != nil {
					return
				}
				for range (n + mostShared/2) / mostShared {
					_, _ = server.Write([]byte("+A\r\n"))
				}
			}
		}()
		crowd.Wait()
		if got := <-s.call(t.Context(), word); got != (outcome{"A", true, nil}) {
			t.Errorf("a call after that: %+v", got)
		}
	})
}

// TestLateReply: a caller whose deadline is over has gone. Its reply is nobody else's. A caller that was cancelled
// learns what became of its command.
func TestLateReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, server := sharedPipe(t, time.Second)
		short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		gone := s.call(short, "a")
		synctest.Wait()
		read(t, server)
		if got := <-gone; !errors.Is(got.err, context.DeadlineExceeded) || !got.sent {
			t.Errorf("beyond its deadline: %+v", got)
		}
		ctx, stop := context.WithCancel(t.Context())
		cancelled := s.call(ctx, "b")
		synctest.Wait()
		read(t, server)
		stop()
		synctest.Wait()
		write(t, server, "+A\r\n+B\r\n")
		if got := <-cancelled; got != (outcome{"B", true, nil}) {
			t.Errorf("the cancelled call: %+v", got)
		}
	})
}

// TestUnexpectedBytes: a reply that nobody asked for, or that is none, ends the connection, since all that follows
// would go to the wrong callers.
func TestUnexpectedBytes(t *testing.T) {
	for _, text := range []string{"+A\r\n+B\r\n", "?\r\n", "\r\n", "$x\r\n", "$-2\r\n", "*1\r\n*0\r\n", "$1\r\nxyz\r\n", strings.Repeat("+", replyBuffer+1)} {
		synctest.Test(t, func(t *testing.T) {
			s, server := sharedPipe(t, time.Second)
			done := s.call(t.Context(), "a")
			synctest.Wait()
			read(t, server)
			_, _ = server.Write([]byte(text))
			<-s.ended
			if got := <-done; (got.err == nil) != (text[:1] == "+" && len(text) < 10) {
				t.Errorf("%.20q: %+v", text, got)
			}
			if s.alive() {
				t.Errorf("%.20q: the connection is still used", text)
			}
		})
	}
}

// TestMisplaced: when a server says that it is the wrong one, calls under way still end there, and no other begins: the
// name of the server may lead to another by now, and reads of this one may be old.
func TestMisplaced(t *testing.T) {
	for _, words := range []string{"READONLY You can't write against a read only replica.", "MOVED 5 127.0.0.1:6379"} {
		synctest.Test(t, func(t *testing.T) {
			s, server := sharedPipe(t, time.Second)
			var all []<-chan outcome
			for _, word := range []string{"a", "b"} {
				all = append(all, s.call(t.Context(), word))
				synctest.Wait()
				read(t, server)
			}
			write(t, server, "-"+words+"\r\n")
			if got := <-all[0]; got.err != nil || !got.sent {
				t.Errorf("%s: %+v", words, got)
			}
			if got := <-s.call(t.Context(), "c"); got.sent {
				t.Errorf("%s: a call after that: %+v, want one that was not sent", words, got)
			}
			write(t, server, "+B\r\n")
			if got := <-all[1]; got != (outcome{"B", true, nil}) {
				t.Errorf("%s: the call under way: %+v", words, got)
			}
			<-s.ended
		})
	}
}

// TestReplyToWhatWasNotSent: a reply to a command that is not even written ends the connection, and the command is
// known not to be made.
func TestReplyToWhatWasNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, server := sharedPipe(t, time.Second)
		written := s.call(t.Context(), "a")
		synctest.Wait()
		waits := s.call(t.Context(), "b")
		synctest.Wait()
		write(t, server, "+A\r\n")
		if got := <-written; got != (outcome{"A", true, nil}) {
			t.Errorf("the call that was being written: %+v", got)
		}
		_, _ = server.Write([]byte("+B\r\n"))
		if got := <-waits; got.sent || !errors.Is(got.err, errDesynced) {
			t.Errorf("the call that waited: %+v, want one that was not sent", got)
		}
		<-s.ended
	})
}

// FuzzReplies: replies are the same however the bytes arrive, and no bytes make it panic.
func FuzzReplies(f *testing.F) {
	for _, text := range []string{"+OK\r\n", "-ERR no\r\n", ":5\r\n$3\r\nabc\r\n", "*2\r\n$1\r\na\r\n:1\r\n", "*-1\r\n$-1\r\n", "$5\r\nab", "*3\r\n"} {
		f.Add([]byte(text))
	}
	all := func(from io.Reader) (list []reply) {
		in := newReplies(from)
		for {
			r, err := in.next()
			if err != nil {
				return list
			}
			list = append(list, r)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		whole, bytewise := all(bytes.NewReader(text)), all(iotest.OneByteReader(bytes.NewReader(text)))
		if !reflect.DeepEqual(whole, bytewise) {
			t.Errorf("%q: %+v at once, %+v byte by byte", text, whole, bytewise)
		}
	})
}
