package testserver

import (
	"os"
	"path/filepath"
)

// GRPCJSVersion and ProtoLoaderVersion are the versions of @grpc/grpc-js and of @grpc/proto-loader that hack/setup.sh
// installs.
const (
	GRPCJSVersion      = "1.14.7"
	ProtoLoaderVersion = "0.8.1"
)

// GRPCJS is the folder of node's modules with a gRPC client in it, for NODE_PATH.
func GRPCJS(tb TB) string {
	tb.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		tb.Fatalf("folder of grpc-js: %v", err)
	}
	modules := filepath.Join(cache, "sidecart-grpcjs", GRPCJSVersion+"-"+ProtoLoaderVersion, "node_modules")
	if _, err := os.Stat(filepath.Join(modules, "@grpc", "grpc-js")); err != nil {
		tb.Fatalf("@grpc/grpc-js is needed for this test and was not found, run hack/setup.sh: %v", err)
	}
	return modules
}
