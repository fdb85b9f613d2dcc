package redis

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// shared is a connection that many calls use at once. Each call adds its command to those that wait to be written. The
// first to find the socket idle has a goroutine write them all by one system call: a lone call waits for nobody, and no
// caller is held up by a server that does not read. Another goroutine reads the replies, which come in the order of the
// commands.
//
// There is no deadline on the socket. One timer looks after all calls: a call whose reply is overdue fails, and no
// other call begins on a connection on which one did. So a connection whose server is gone fails those that use it
// within their timeout, and nobody after them.
type shared struct {
	conn    net.Conn
	release func(*shared)
	timeout time.Duration

	mu sync.Mutex
	// out are commands that wait to be written; spare is the buffer that takes turns with it. unsent is how many
	// commands are in out.
	out, spare []byte
	unsent     int
	writing    bool
	// calls are those whose replies are to come, in order: they begin at first.
	calls []*call
	first int
	// retired says that no call may begin, and gone that the connection is closed.
	retired, gone bool
	timer         *time.Timer
	timing        bool
	idle          sync.Pool     // of calls that ended
	ended         chan struct{} // closed when the reader has ended
}

// call is one command on a shared connection.
type call struct {
	due   time.Time // when the reply is overdue
	state atomic.Int32
	done  chan struct{} // has an element when the call is answered
	reply reply
	err   error
	sent  bool // the command may have reached the server
}

// settle tells the caller what became of the call, unless the caller has gone.
func (c *call) settle(r reply, sent bool, err error) {
	if c.state.CompareAndSwap(pending, answered) {
		c.reply, c.sent, c.err = r, sent, err
		c.done <- struct{}{}
	}
}

// States of a call. Whoever moves it away from pending decides what its caller learns.
const (
	pending int32 = iota
	answered
	abandoned
)

// errRetired is the answer to a command that was not sent, since the connection takes no more.
var errRetired = errors.New("the connection takes no more commands")

const (
	// mostShared is the size up to which a command is sent. A larger one would hold up the others.
	mostShared = 64 << 10
	// mostWaiting bounds the memory of commands that wait to be written.
	mostWaiting = 4 << 20
)

// newShared takes over a connection. It calls release when the connection has ended.
func newShared(conn net.Conn, timeout time.Duration, release func(*shared)) *shared {
	s := &shared{conn: conn, release: release, timeout: timeout, ended: make(chan struct{})}
	s.idle.New = func() any { return &call{done: make(chan struct{}, 1)} }
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer, s.timing = time.AfterFunc(timeout, s.look), true
	go s.read()
	return s
}

// do sends a command and waits for its reply. sent is false if the command cannot have reached the server; the caller
// may then send it in another way.
//
// As on a connection of the driver, a call ends with the deadline of ctx, and a cancelled call still learns what became
// of its command.
func (s *shared) do(ctx context.Context, args []any) (r reply, sent bool, err error) {
	c := s.idle.Get().(*call)
	c.state.Store(pending)
	if !s.begin(c, args) {
		s.idle.Put(c)
		return reply{}, false, errRetired
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) && c.state.CompareAndSwap(pending, abandoned) {
			return reply{}, true, ctx.Err()
		}
		<-c.done
	}
	r, sent, err = c.reply, c.sent, c.err
	if err == nil { // otherwise the connection may still wait for the reply
		c.reply = reply{}
		s.idle.Put(c)
	}
	return r, sent, err
}

// begin adds a command, and has what waits written if nobody does that yet.
func (s *shared) begin(c *call, args []any) bool {
	c.due = time.Now().Add(s.timeout)
	s.mu.Lock()
	was := len(s.out)
	fits := !s.retired && was <= mostWaiting
	if fits {
		s.out, fits = appendCommand(s.out, args)
	}
	if !fits {
		s.out = s.out[:was]
		s.mu.Unlock()
		return false
	}
	s.unsent++
	s.calls = append(s.calls, c)
	if !s.timing {
		s.timing = true
		s.timer.Reset(s.timeout)
	}
	idle := !s.writing
	s.writing = true
	s.mu.Unlock()
	if idle {
		go s.write()
	}
	return true
}

// write writes until nothing waits.
func (s *shared) write() {
	runtime.Gosched() // callers that are about to add theirs do so first
	for {
		s.mu.Lock()
		if s.unsent == 0 {
			s.writing = false
			s.mu.Unlock()
			return
		}
		batch := s.out
		s.out, s.spare = s.spare[:0], nil
		s.unsent = 0
		s.mu.Unlock()
		_, err := s.conn.Write(batch)
		if err != nil {
			s.fail(err)
		}
		s.mu.Lock()
		if cap(batch) <= replyKept {
			s.spare = batch
		}
		s.mu.Unlock()
	}
}

// read reads replies until the connection ends.
func (s *shared) read() {
	defer close(s.ended)
	in := newReplies(s.conn)
	for {
		r, err := in.next()
		if err != nil {
			s.fail(err)
			return
		}
		c, drained := s.take(isMisplaced(r.err))
		if c == nil {
			s.fail(errDesynced)
			return
		}
		c.settle(r, true, nil)
		if drained {
			s.fail(errRetired)
			return
		}
	}
}

// take removes the call whose reply came; nil if none was due. retire says that no other shall begin. drained says that
// none is left and none will begin.
func (s *shared) take(retire bool) (c *call, drained bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first >= len(s.calls)-s.unsent {
		return nil, false
	}
	s.retired = s.retired || retire
	c, s.calls[s.first] = s.calls[s.first], nil
	switch s.first++; {
	case s.first == len(s.calls):
		s.calls, s.first = s.calls[:0], 0
	case s.first >= 64 && s.first*2 >= len(s.calls):
		n := copy(s.calls, s.calls[s.first:])
		clear(s.calls[n:])
		s.calls, s.first = s.calls[:n], 0
	}
	return c, s.retired && len(s.calls) == 0
}

// isMisplaced reports whether the server says that it is not the one to ask. A new connection may lead to another
// server, as names and sentinels go.
func isMisplaced(err error) bool {
	return err != nil && (goredis.HasErrorPrefix(err, "READONLY ") || goredis.HasErrorPrefix(err, "MOVED "))
}

// look fails calls whose replies are overdue.
func (s *shared) look() {
	late := &net.OpError{Op: "read", Net: s.conn.RemoteAddr().Network(), Addr: s.conn.RemoteAddr(), Err: os.ErrDeadlineExceeded}
	now := time.Now()
	s.mu.Lock()
	var next time.Time // when the first call is due of those that are not overdue
	for _, c := range s.calls[s.first:] {
		if c.due.After(now) {
			next = c.due
			break
		}
		s.retired = true
		c.settle(reply{}, true, late)
	}
	s.timing = !next.IsZero()
	if s.timing {
		s.timer.Reset(next.Sub(now))
	}
	over := s.retired && !s.timing
	s.mu.Unlock()
	if over {
		s.fail(late)
	}
}

// fail closes the connection and ends its calls. What became of the commands that were sent is unknown.
func (s *shared) fail(err error) {
	s.mu.Lock()
	if s.gone {
		s.mu.Unlock()
		return
	}
	s.gone, s.retired = true, true
	s.timer.Stop()
	left, unsent := s.calls[s.first:], s.unsent
	s.calls, s.first, s.out, s.unsent = nil, 0, nil, 0
	s.mu.Unlock()
	_ = s.conn.Close()
	for i, c := range left {
		c.settle(reply{}, i < len(left)-unsent, err)
	}
	s.release(s)
}

// alive reports whether calls may begin.
func (s *shared) alive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.retired
}

// appendCommand appends a command as RESP has it. It returns false where it leaves the command to the driver: one that
// is too large to be shared, or has an argument of another type.
func appendCommand(dst []byte, args []any) ([]byte, bool) {
	most := len(dst) + mostShared
	dst = appendLength(dst, '*', len(args))
	var number [20]byte
	for _, arg := range args {
		var text []byte
		switch v := arg.(type) {
		case string:
			if len(dst)+len(v) > most {
				return dst, false
			}
			dst = append(append(appendLength(dst, '$', len(v)), v...), '\r', '\n')
			continue
		case []byte:
			text = v
		case int:
			text = strconv.AppendInt(number[:0], int64(v), 10)
		case int64:
			text = strconv.AppendInt(number[:0], v, 10)
		case uint64:
			text = strconv.AppendUint(number[:0], v, 10)
		default:
			return dst, false
		}
		if len(dst)+len(text) > most {
			return dst, false
		}
		dst = append(append(appendLength(dst, '$', len(text)), text...), '\r', '\n')
	}
	return dst, len(dst) <= most
}

func appendLength(dst []byte, kind byte, n int) []byte {
	return append(strconv.AppendInt(append(dst, kind), int64(n), 10), '\r', '\n')
}
