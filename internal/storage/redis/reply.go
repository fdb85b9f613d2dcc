package redis

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
)

// reply is what the server answered to one command.
type reply struct {
	// text is a single value. list are the elements of a list; nil where the answer is none.
	text string
	list []string
	// err is the server's own error, a [goredisError].
	err error
}

// size is the length of all texts.
func (r *reply) size() int {
	n := len(r.text)
	for _, text := range r.list {
		n += len(text)
	}
	return n
}

// errDesynced says that a connection brought something else than replies of the kinds that our commands have.
var errDesynced = errors.New("unexpected bytes in place of a reply")

// replies reads replies of RESP2: errors, single values, and flat lists of them.
type replies struct {
	from io.Reader
	buf  []byte
	// buf[begin:end] was read and not taken.
	begin, end int
	ends       []int // of the elements of a list, in texts
	texts      []byte
}

const (
	// replyBuffer is how much is read at once.
	replyBuffer = 16 << 10
	// replyKept is how large a buffer may be that is kept for the next reply.
	replyKept = 64 << 10
	// replyStep is how much memory is taken for a value before any of it has come.
	replyStep = 1 << 20
	// replyMost is the longest value that Redis has, 512 MB.
	replyMost = 512 << 20
)

func newReplies(from io.Reader) *replies { return &replies{from: from, buf: make([]byte, replyBuffer)} }

// next waits for a reply. After an error the connection is of no more use.
func (r *replies) next() (reply, error) {
	head, err := r.head()
	if err != nil {
		return reply{}, err
	}
	switch head[0] {
	case '-':
		return reply{err: goredisError(head[1:])}, nil
	case '*':
		return r.elements(head)
	}
	if r.texts, err = r.value(r.texts[:0], head); err != nil {
		return reply{}, err
	}
	text := string(r.texts)
	r.tidy()
	return reply{text: text}, nil
}

// elements reads a list whose first line is head. All elements are parts of one text.
func (r *replies) elements(head []byte) (reply, error) {
	n, err := length(head)
	if err != nil {
		return reply{}, err
	}
	r.texts, r.ends = r.texts[:0], r.ends[:0]
	for range n {
		head, err := r.head()
		if err != nil {
			return reply{}, err
		}
		if r.texts, err = r.value(r.texts, head); err != nil {
			return reply{}, err
		}
		r.ends = append(r.ends, len(r.texts))
	}
	all := string(r.texts)
	list := make([]string, len(r.ends))
	from := 0
	for i, to := range r.ends {
		list[i], from = all[from:to], to
	}
	r.tidy()
	return reply{list: list}, nil
}

// tidy drops buffers that a large reply has grown.
func (r *replies) tidy() {
	if cap(r.texts) > replyKept {
		r.texts = nil
	}
	if cap(r.ends)*8 > replyKept {
		r.ends = nil
	}
}

// value appends the value whose first line is head. What Redis calls nil is empty: no command of ours gets it.
func (r *replies) value(dst, head []byte) ([]byte, error) {
	switch head[0] {
	case '+', ':':
		return append(dst, head[1:]...), nil
	case '$':
	default:
		return dst, fmt.Errorf("%w: %q", errDesynced, head[0])
	}
	n, err := length(head)
	if err != nil || n < 0 {
		return dst, err
	}
	had := min(n, r.end-r.begin)
	dst = append(dst, r.buf[r.begin:r.begin+had]...)
	r.begin += had
	for rest := n - had; rest > 0; {
		step := min(rest, replyStep)
		dst = slices.Grow(dst, step)
		got, err := io.ReadFull(r.from, dst[len(dst):len(dst)+step])
		if err != nil {
			return dst, err
		}
		dst, rest = dst[:len(dst)+got], rest-got
	}
	end, err := r.line()
	if err == nil && len(end) > 0 {
		err = errDesynced
	}
	return dst, err
}

// head reads the first line of a reply or of an element. It is valid until something else is read.
func (r *replies) head() ([]byte, error) {
	line, err := r.line()
	if err == nil && len(line) == 0 {
		err = errDesynced
	}
	return line, err
}

// line reads up to the end of a line, which is short: a length, a number, or the words of an error.
func (r *replies) line() ([]byte, error) {
	for seen := 0; ; {
		if n := bytes.IndexByte(r.buf[r.begin+seen:r.end], '\n'); n >= 0 {
			line := r.buf[r.begin : r.begin+seen+n]
			r.begin += seen + n + 1
			return bytes.TrimSuffix(line, []byte("\r")), nil
		}
		seen = r.end - r.begin
		if r.begin > 0 {
			copy(r.buf, r.buf[r.begin:r.end])
			r.begin, r.end = 0, seen
		}
		if seen == len(r.buf) {
			return nil, fmt.Errorf("%w: a line without end", errDesynced)
		}
		n, err := r.from.Read(r.buf[r.end:])
		if r.end += n; n == 0 && err != nil {
			return nil, err
		}
	}
}

// length reads the number in the first line of a reply.
func length(head []byte) (int, error) {
	n, err := strconv.Atoi(string(head[1:]))
	if err != nil || n < -1 || n > replyMost {
		return 0, fmt.Errorf("%w: length %q", errDesynced, head[1:])
	}
	return n, nil
}
