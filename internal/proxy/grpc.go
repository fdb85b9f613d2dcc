package proxy

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip" // requests may be compressed
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/tap"

	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/proto/hipstershop"
	"github.com/sidecart/sidecart/proto/oteldemo"
	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

const (
	// maxControlBytes bounds messages of health and reflection. Those of carts are bounded by the limits of carts.
	maxControlBytes = 64 << 10
	// connBuffer is the read and the write buffer of a connection. Documents are small and connections are many.
	connBuffer = 8 << 10
	// streamWindow is how much of a message is received before it is admitted to the budget.
	streamWindow = 64 << 10
	// connStreams is how many calls and streams one connection carries at once.
	connStreams = 250
	// streamWorkers serve streams, so that each does not need a new goroutine with a stack that must grow.
	streamWorkers = 4
	// handshakeTimeout is how long a client may take to show that it speaks HTTP/2.
	handshakeTimeout = 10 * time.Second
	// maxStreams bounds long streams: held leases, watched health.
	maxStreams = 1000
)

// newGRPC serves the calls of s. Streams end when stopping is closed.
func newGRPC(s *service, h *health.Server, stopping <-chan struct{}) *grpc.Server {
	g := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxControlBytes),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.ReadBufferSize(connBuffer),
		grpc.WriteBufferSize(connBuffer),
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(4*streamWindow),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.WaitForHandlers(true),
		grpc.MaxConcurrentStreams(connStreams),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.ForceServerCodecV2(codecV2{messageCodec}),
		grpc.InTapHandle(s.screen),
		grpc.StreamInterceptor(s.endStreams(stopping)),
		// A client that hangs must not keep the memory of its answers for ever.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 15 * time.Second}),
		// Clients are on this machine, so they may send keepalives often.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	)
	g.RegisterService(s.describe(pb.CartService_ServiceDesc), s)
	g.RegisterService(s.describe(hipstershop.CartService_ServiceDesc), hipsterFront{service: s})
	g.RegisterService(s.describe(oteldemo.CartService_ServiceDesc), otelFront{service: s})
	healthpb.RegisterHealthServer(g, h)
	reflection.Register(g)
	return g
}

// screen refuses a call by its metadata, before anything is set up for it.
func (s *service) screen(ctx context.Context, info *tap.Info) (context.Context, error) {
	err := checkMetadata(info.Header)
	if p, ok := peer.FromContext(ctx); ok && overLoopback(p.Addr) && err == nil {
		err = checkAuthority(info.Header)
	}
	if err != nil {
		return ctx, s.unreceived(ctx, shortName(info.FullMethodName), err)
	}
	return ctx, nil
}

// streamGrace is how long streams live on when the sidecar stops, so that watchers of its health are told.
const streamGrace = 500 * time.Millisecond

// endStreams bounds how many streams there are, and ends them when stopping is closed. Streams of health and reflection
// last as long as the client likes, and a graceful stop would wait for them.
func (s *service) endStreams(stopping <-chan struct{}) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		if err := s.openStream(); err != nil {
			return s.unreceived(stream.Context(), shortName(info.FullMethod), err)
		}
		ended := make(chan error, 1)
		go func() {
			defer s.streams.Add(-1)
			ended <- handle(srv, stream)
		}()
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

// openStream counts a stream in s.streams. The caller must count it out when it ends.
func (s *service) openStream() error {
	if s.streams.Add(1) > maxStreams {
		s.streams.Add(-1)
		return errStreams
	}
	return nil
}

// services are the cart services that gRPC serves.
var services = []*grpc.ServiceDesc{&pb.CartService_ServiceDesc, &hipstershop.CartService_ServiceDesc, &oteldemo.CartService_ServiceDesc}

// describe returns the generated description of a service with other handlers. They receive their message by
// [service.receive], and their answers hold memory of the budget until they are written.
func (s *service) describe(d grpc.ServiceDesc) *grpc.ServiceDesc {
	d.Methods = slices.Clone(d.Methods)
	for i := range d.Methods {
		m := &d.Methods[i]
		name, handle := m.MethodName, m.Handler
		m.Handler = func(srv any, ctx context.Context, _ func(any) error, i grpc.UnaryServerInterceptor) (any, error) {
			a := &admission{}
			answer, err := handle(srv, context.WithValue(ctx, admissionKey{}, a), func(v any) error {
				return s.receive(ctx, name, a, v)
			}, i)
			if err != nil {
				a.release()
				return nil, err
			}
			return heavy(answer, a), nil
		}
	}
	d.Streams = slices.Clone(d.Streams)
	for i := range d.Streams {
		st := &d.Streams[i]
		name, handle := st.StreamName, st.Handler
		st.Handler = func(srv any, stream grpc.ServerStream) error {
			a := &admission{}
			defer a.release()
			return handle(srv, &askedStream{stream, context.WithValue(stream.Context(), admissionKey{}, a), s, name, a})
		}
	}
	return &d
}

// askedStream is a stream of the service.
type askedStream struct {
	grpc.ServerStream
	ctx       context.Context
	service   *service
	name      string
	admission *admission
}

// Context implements [grpc.ServerStream].
func (a *askedStream) Context() context.Context { return a.ctx }

// RecvMsg implements [grpc.ServerStream].
func (a *askedStream) RecvMsg(m any) error {
	return a.service.receive(a.ServerStream.Context(), a.name, a.admission, m)
}

// SendMsg implements [grpc.ServerStream].
func (a *askedStream) SendMsg(m any) error {
	return a.ServerStream.SendMsg(heavy(m, a.admission))
}

var messageCodec = encoding.GetCodecV2(protocodec.Name)

// codecV2 is the codec of protobuf. It also marshals answers that hold memory of the budget.
type codecV2 struct{ encoding.CodecV2 }

// Marshal implements [encoding.CodecV2].
func (c codecV2) Marshal(v any) (mem.BufferSlice, error) {
	if o, ok := v.(*outgoing); ok {
		return o.marshal()
	}
	return c.CodecV2.Marshal(v)
}

// readiness makes the health service report the sidecar's readiness.
func readiness(h *health.Server) func(bool) {
	return func(ready bool) {
		st := healthpb.HealthCheckResponse_NOT_SERVING
		if ready {
			st = healthpb.HealthCheckResponse_SERVING
		}
		h.SetServingStatus("", st)
		for _, d := range services {
			h.SetServingStatus(d.ServiceName, st)
		}
	}
}
