#!/bin/sh
# Makes the Go code beside the .proto files and docs/openapi.json anew.
set -eu
cd "$(dirname "$0")/.."
go tool -modfile=tools/buf/go.mod buf generate
go tool -modfile=tools/buf/go.mod buf generate --template buf.gen.shops.yaml
mv docs/openapi.swagger.json docs/openapi.json # the plugin chooses the name
