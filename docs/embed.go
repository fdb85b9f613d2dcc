// Package docs carries what the sidecar serves of its own manuals.
package docs

import _ "embed"

// OpenAPI is the OpenAPI 2.0 document of the HTTP API, as JSON. It is generated from the .proto files.
//
//go:embed openapi.json
var OpenAPI []byte
