package proxy

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/reflection"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

const (
	// maxMessageBytes lets documents over the limit in, so that they are refused with
	// TOO_LARGE and not with an error of the transport.
	maxMessageBytes = 16 << 20
	// connBuffer is the read and the write buffer of a connection. Documents are small
	// and connections are many.
	connBuffer = 8 << 10
	// streamWorkers serve streams without a new goroutine, and so without growing a
	// new stack, for each.
	streamWorkers = 4
)

// newGRPC serves the calls of s. Streams end when stopping is closed.
func newGRPC(s *service, h *health.Server, stopping <-chan struct{}) *grpc.Server {
	g := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.ReadBufferSize(connBuffer),
		grpc.WriteBufferSize(connBuffer),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.WaitForHandlers(true),
		grpc.MaxConcurrentStreams(4096),
		grpc.ForceServerCodecV2(newLenient()),
		grpc.StreamInterceptor(endStreams(stopping)),
		// Clients are on this machine: let them ask as often as they like.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	)
	g.RegisterService(s.describe(), s)
	healthpb.RegisterHealthServer(g, h)
	reflection.Register(g)
	return g
}

// streamGrace is how long a stream lives on when the sidecar stops, so that those who
// watch its health hear of it.
const streamGrace = 500 * time.Millisecond

// endStreams ends streams when stopping is closed: those of health and
// reflection last as long as their client likes, and a graceful stop waits for
// them.
func endStreams(stopping <-chan struct{}) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		ended := make(chan error, 1)
		go func() { ended <- handle(srv, stream) }()
		select {
		case err := <-ended:
			return err
		case <-stopping:
		}
		select {
		case err := <-ended:
			return err
		case <-time.After(streamGrace):
			return classify(stream.Context(), lock.ErrDraining)
		}
	}
}

// describe is the generated description of the service, with handlers that
// tell a request that cannot be read as what it is. grpc-go calls it INTERNAL, and
// does so from within its decoding, so that the codec must keep the error back.
func (s *service) describe() *grpc.ServiceDesc {
	d := pb.CartService_ServiceDesc
	d.Methods = slices.Clone(d.Methods)
	for i := range d.Methods {
		m := &d.Methods[i]
		name, handle := m.MethodName, m.Handler
		m.Handler = func(srv any, ctx context.Context, decode func(any) error, i grpc.UnaryServerInterceptor) (any, error) {
			return handle(srv, ctx, func(v any) error {
				in := incoming{message: v}
				if err := decode(&in); err != nil {
					return err // of the transport, and on its way already
				}
				if in.err != nil {
					return s.unreadable(ctx, name, in.err)
				}
				return nil
			}, i)
		}
	}
	d.Streams = slices.Clone(d.Streams)
	for i := range d.Streams {
		st := &d.Streams[i]
		name, handle := st.StreamName, st.Handler
		st.Handler = func(srv any, stream grpc.ServerStream) error {
			return handle(srv, &askedStream{stream, s, name})
		}
	}
	return &d
}

// askedStream tells a request that cannot be read as what it is.
type askedStream struct {
	grpc.ServerStream
	service *service
	name    string
}

// RecvMsg implements [grpc.ServerStream].
func (a *askedStream) RecvMsg(m any) error {
	in := incoming{message: m}
	if err := a.ServerStream.RecvMsg(&in); err != nil {
		return err
	}
	if in.err != nil {
		return a.service.unreadable(a.Context(), a.name, in.err)
	}
	return nil
}

// incoming is a request that is being read, and why it cannot be.
type incoming struct {
	message any
	err     error
}

// lenient is the codec of protobuf, which keeps the error of an incoming request for
// its handler.
type lenient struct{ encoding.CodecV2 }

func newLenient() lenient { return lenient{encoding.GetCodecV2(protocodec.Name)} }

// Unmarshal implements [encoding.CodecV2].
func (c lenient) Unmarshal(data mem.BufferSlice, v any) error {
	in, ok := v.(*incoming)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	in.err = c.CodecV2.Unmarshal(data, in.message)
	return nil
}

func (s *service) unreadable(ctx context.Context, method string, err error) error {
	f := classify(ctx, cart.Invalidf("request", "is no message of this call in valid UTF-8: %v", err))
	s.metrics.observe(frontGRPC, method, f.code, f.reason, 0)
	return f
}

// readiness makes the health service say what the sidecar's readiness is.
func readiness(h *health.Server) func(bool) {
	return func(ready bool) {
		st := healthpb.HealthCheckResponse_NOT_SERVING
		if ready {
			st = healthpb.HealthCheckResponse_SERVING
		}
		h.SetServingStatus("", st)
		h.SetServingStatus(pb.CartService_ServiceDesc.ServiceName, st)
	}
}
