package varint

import (
	"encoding/binary"
	"math"
	"testing"
)

func TestReader(t *testing.T) {
	b := binary.AppendUvarint(nil, math.MaxUint64)
	b = binary.AppendVarint(b, math.MinInt64)
	b = AppendText(b, "a mug")
	b = AppendText(b, "")
	b = append(b, 1, 2, 3)
	r := NewReader(b)
	if n, i, s, e, raw := r.Uint(), r.Int(), r.Text(), r.Text(), r.Take(3); n != math.MaxUint64 || i != math.MinInt64 || s != "a mug" || e != "" || string(raw) != "\x01\x02\x03" {
		t.Errorf("read %d, %d, %q, %q, %v", n, i, s, e, raw)
	}
	if r.Failed() || r.Len() != 0 {
		t.Errorf("failed: %t, %d bytes left", r.Failed(), r.Len())
	}
}

// What is not there makes the reader fail, and it reads nothing more, however much stood behind it.
func TestReaderFails(t *testing.T) {
	for name, read := range map[string]func(r *Reader) bool{
		"a number that does not end":   func(r *Reader) bool { return r.Uint() == 0 },
		"an integer that does not end": func(r *Reader) bool { return r.Int() == 0 },
		"more bytes than there are":    func(r *Reader) bool { return r.Take(12) == nil },
		"bytes without end":            func(r *Reader) bool { return r.Take(math.MaxUint64) == nil },
		"a text of no length":          func(r *Reader) bool { return r.Text() == "" },
		"a failure of the caller":      func(r *Reader) bool { r.Fail(); return true },
	} {
		r := NewReader([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"))
		if !read(&r) || !r.Failed() || r.Len() != 0 {
			t.Errorf("%s: failed %t, %d bytes left", name, r.Failed(), r.Len())
		}
		if n, b, s := r.Int(), r.Take(0), r.Text(); n != 0 || b != nil || s != "" {
			t.Errorf("%s: afterwards it reads %d, %v, %q", name, n, b, s)
		}
	}
	r := NewReader(AppendText(nil, "short")[:3])
	if s := r.Text(); s != "" || !r.Failed() {
		t.Errorf("a text that is cut off is %q, failed %t", s, r.Failed())
	}
}
