package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sidecart/sidecart/internal/cart"
)

// A message of gRPC says how long it is before it comes. grpc-go uses the length only to refuse messages over one fixed
// limit, with an error that says neither reason nor limit. It reads all others whole before it calls a handler. Here
// the length decides whether there is memory for the message, and a message over the limit is refused with TOO_LARGE.

// transportStream is a stream of grpc-go's transport. Its type is internal, its methods are not. If a new version
// renames them, every call fails, and so does every test.
type transportStream interface {
	ReadMessageHeader(header []byte) error
	Read(n int) (mem.BufferSlice, error)
	RecvCompress() string
	WriteStatus(*status.Status) error
}

// messageHeader is the length of a message's header: one byte that says whether it is compressed, and four for its
// length.
const messageHeader = 5

// receive waits for memory and reads the only message of a call into m.
func (s *service) receive(ctx context.Context, method string, a *admission, m any) error {
	stream, ok := grpc.ServerTransportStreamFromContext(ctx).(transportStream)
	if !ok {
		return errors.New("the stream of this version of grpc-go is not understood")
	}
	l := s.backends.peek()
	most, patience, budget := l.maxBodyBytes(), l.RequestTimeout+bodyGrace, l.budget

	if stream.RecvCompress() != "" {
		// Otherwise the answer would be compressed too. Both ends are on one machine, and a compressor takes a
		// megabyte.
		_ = grpc.SetSendCompressor(ctx, encoding.Identity)
	}
	// A client that stops in the middle of a message must not hold memory for ever. The error is made only when it is
	// needed: made for each call, it would cost a twentieth of a read.
	slow := func() error { return fmt.Errorf("request: %w: %s", errSlowBody, patience) }
	late := time.AfterFunc(patience, func() {
		_ = stream.WriteStatus(classify(ctx, slow()).GRPCStatus()) // this ends the read too
	})
	broken := func(err error) error {
		switch {
		case !late.Stop():
			err = slow()
		case ctx.Err() != nil:
			err = ctx.Err()
		default:
			err = cart.Invalidf("request", "broke off: %v", err)
		}
		return s.unreceived(ctx, method, err)
	}
	defer late.Stop()

	var head [messageHeader]byte
	if err := stream.ReadMessageHeader(head[:]); err != nil {
		return broken(err)
	}
	n, compressed := int64(binary.BigEndian.Uint32(head[1:])), head[0] != 0
	if n > most {
		return s.unreceived(ctx, method, overLimit("request", n, most))
	}
	needs := n
	if compressed {
		needs = most // the size is known only afterwards
	}
	if err := budget.admit(ctx, a, needs); err != nil {
		return s.unreceived(ctx, method, err)
	}
	data, err := stream.Read(int(n))
	if err != nil {
		return broken(err)
	}
	if compressed {
		data, err = decompress(stream.RecvCompress(), data, most)
		if err != nil {
			return s.unreceived(ctx, method, err)
		}
		a.arrived(int64(data.Len()))
	}
	err = messageCodec.Unmarshal(data, m)
	data.Free()
	if err != nil {
		return s.unreceived(ctx, method, cart.Invalidf("request", "is no message of this call in valid UTF-8: %v", err))
	}
	// A call has one message, and begins only after the client has closed its side.
	switch err := stream.ReadMessageHeader(head[:]); {
	case err == nil:
		return s.unreceived(ctx, method, cart.Invalidf("request", "is followed by another message: a call has one"))
	case !errors.Is(err, io.EOF):
		return broken(err)
	}
	return nil
}

// unreceived counts a call that failed before its handler.
func (s *service) unreceived(ctx context.Context, method string, err error) error {
	f := classify(ctx, err)
	s.metrics.observe(frontGRPC, method, f.code, f.reason, 0)
	s.report(ctx, method, f, err)
	return f
}

// overLimit is the error for a field that is too large.
func overLimit(field string, actual, limit int64) error {
	return cart.TooLargef(field, limit, actual, "is %d bytes, at most %d are allowed", actual, limit)
}

// decompress decompresses data, to at most most bytes, and frees data.
func decompress(name string, data mem.BufferSlice, most int64) (mem.BufferSlice, error) {
	defer data.Free()
	c := encoding.GetCompressor(name)
	if c == nil {
		return nil, cart.Invalidf("request", "is said to be compressed, and grpc-encoding does not say how")
	}
	in := data.Reader()
	defer func() { _ = in.Close() }()
	r, err := c.Decompress(in)
	if err != nil {
		return nil, cart.Invalidf("request", "is no valid %s: %v", name, err)
	}
	if r, ok := r.(io.Closer); ok {
		defer func() { _ = r.Close() }()
	}
	out, err := mem.ReadAll(io.LimitReader(r, most+1), mem.DefaultBufferPool())
	if err != nil {
		out.Free()
		return nil, cart.Invalidf("request", "is no valid %s: %v", name, err)
	}
	if int64(out.Len()) > most {
		out.Free()
		return nil, overLimit("request", most+1, most)
	}
	return out, nil
}

// outgoing is an answer with its share of the budget.
type outgoing struct {
	message   proto.Message
	admission *admission
}

// heavy turns a large answer into one that keeps its memory until it is written. A small answer gives its memory back
// at once.
func heavy(message any, a *admission) any {
	m, ok := message.(proto.Message)
	if !ok || a.work.cost == 0 {
		a.release()
		return message
	}
	return &outgoing{m, a}
}

// marshal writes the answer to a buffer that gives the memory back when gRPC frees it.
func (o *outgoing) marshal() (mem.BufferSlice, error) {
	text, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, 0, proto.Size(o.message)), o.message)
	if err != nil {
		o.admission.release()
		return nil, err
	}
	r := o.admission.answered(int64(len(text)))
	if r != nil && mem.IsBelowBufferPoolingThreshold(cap(text)) { // gRPC does not report when such a buffer is free
		r.owed.settle()
		r = nil
	}
	if r == nil {
		return mem.BufferSlice{mem.SliceBuffer(text)}, nil
	}
	return mem.BufferSlice{mem.NewBuffer(&text, r)}, nil
}
