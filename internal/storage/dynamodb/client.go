package dynamodb

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/smithy-go/logging"

	"github.com/sidecart/sidecart/internal/storage"
)

// maxIdle is how many connections stay open: a sidecar has a call under way for each busy cart.
const maxIdle = 64

// idleTimeout is shorter than that of every server that we know; the shortest is 5 s. If a server closes the connection
// just as a write is sent, nobody knows the outcome of the write.
const idleTimeout = 4 * time.Second

// newClient makes the client. If c has no credentials, those of the environment are used and renewed, in the order of
// Amazon's own tools: variables, web identity of the pod, shared files, container, machine.
func newClient(ctx context.Context, c Config, options ...func(*dynamodb.Options)) (*dynamodb.Client, error) {
	load := []func(*awsconfig.LoadOptions) error{awsconfig.WithRegion(c.Region), awsconfig.WithLogger(logging.Nop{})}
	if id := c.AccessKeyID.Reveal(); id != "" {
		load = append(load, awsconfig.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(id, c.SecretAccessKey.Reveal(), "")))
	}
	cfg, err := awsconfig.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, fmt.Errorf("%w: configuration of the environment: %w", storage.ErrUnavailable, err)
	}
	base := func(o *dynamodb.Options) {
		o.Credentials = credentialsOf{o.Credentials}
		// The library would repeat a write whose answer was lost, and take its own first attempt for somebody else's.
		o.Retryer = aws.NopRetryer{}
		if c.Endpoint != "" {
			o.BaseEndpoint = &c.Endpoint
		}
		if h, ok := cfg.HTTPClient.(*awshttp.BuildableClient); ok {
			o.HTTPClient = h.WithDialerOptions(func(d *net.Dialer) { d.Timeout = c.DialTimeout }).WithTransportOptions(func(t *http.Transport) {
				t.TLSHandshakeTimeout = c.DialTimeout
				t.ResponseHeaderTimeout = max(c.ReadTimeout, c.WriteTimeout)
				t.MaxIdleConns, t.MaxIdleConnsPerHost = maxIdle, maxIdle
				t.IdleConnTimeout = idleTimeout
			})
		}
	}
	return dynamodb.NewFromConfig(cfg, append([]func(*dynamodb.Options){base}, options...)...), nil
}

// credentialsOf tells that there are no credentials from an error of the server.
type credentialsOf struct{ aws.CredentialsProvider }

// Retrieve implements [aws.CredentialsProvider].
func (p credentialsOf) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c, err := p.CredentialsProvider.Retrieve(ctx)
	if err != nil && ctx.Err() == nil {
		err = &credentialsError{err}
	}
	return c, err
}

// credentialsError is returned if a request could not be signed.
type credentialsError struct{ error }

func (e *credentialsError) Error() string {
	return "there are no credentials: name accessKeyIdFile and secretAccessKeyFile, or give the pod a role: " + e.error.Error()
}

func (e *credentialsError) Unwrap() error { return e.error }
