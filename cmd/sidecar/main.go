package main

import (
	"context"
	"io"
	"os"

	"google.golang.org/grpc/grpclog"
)

func main() {
	// To gRPC and its gateway a client that goes away is an error, in lines that are not of our log and that strangers
	// could fill a disk with.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	os.Exit(Run(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
