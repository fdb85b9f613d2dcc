package proxy

import (
	"log/slog"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage/memory"
	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

// BenchmarkAddItem is a small change over gRPC, with all that a front adds to it.
func BenchmarkAddItem(b *testing.B) {
	store := memory.New()
	defer store.Close()
	o := lock.Options{WaitTimeout: 5 * time.Second, LeaseDuration: 5 * time.Second, TTL: time.Hour, Limits: cart.DefaultLimits()}
	s, err := Start(Options{GRPC: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)}, Backend{
		Coordinator: lock.New(store, o), Ping: store.Ping, Name: "Memory", Mode: "auto", Limits: o.Limits, RequestTimeout: 6 * time.Second,
	})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Shutdown(b.Context())
	conn, err := grpc.NewClient("passthrough:"+s.Addr("grpc"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	carts := pb.NewCartServiceClient(conn)
	in := &pb.PutItemsRequest{Identifier: "u1", Instance: "default", Items: []byte(`{"sku-1":{"id":"sku-1","quantity":1}}`)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := carts.PutItems(b.Context(), in); err != nil {
			b.Fatal(err)
		}
	}
}
