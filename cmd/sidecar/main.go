package main

import (
	"context"
	"io"
	"os"

	"google.golang.org/grpc/grpclog"
)

func main() {
	// gRPC and its gateway log each client that goes away as an error, outside of our log. With such lines, strangers
	// could fill a disk.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	os.Exit(Run(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
