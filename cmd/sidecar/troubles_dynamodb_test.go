package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/testserver"
)

var dynamodbTroubles = []failure{
	{"no credentials are found", func(t *testing.T) scene {
		return scene{args: []string{"--backend=dynamodb", "--dynamodb-table=carts", "--dynamodb-region=eu-central-1", "--dynamodb-endpoint=" + testserver.StartDynalite(t).Endpoint}}
	}, 2 * time.Second},
	{"the table is not there", func(t *testing.T) scene {
		d := testserver.StartDynalite(t)
		return scene{args: onDynamoDBAt(t, d.Endpoint), mend: func() { makeTable(t, d, "identifier", "instance") }}
	}, 2 * time.Second},
	{"the table has another key", func(t *testing.T) scene {
		d := testserver.StartDynalite(t)
		makeTable(t, d, "id", "range")
		return scene{args: onDynamoDBAt(t, d.Endpoint)}
	}, 2 * time.Second},
	{"the certificate is for another name", func(t *testing.T) scene {
		a := newAuthority(t)
		cert, key := a.issue(t, "dynamodb.example")
		return scene{args: onDynamoDBAt(t, behindTLS(t, testserver.StartDynalite(t), cert, key)), hide: dynamodbHost}
	}, 2 * time.Second},
	{"the certificate is of an authority that is not trusted", func(t *testing.T) scene {
		a := newAuthority(t)
		cert, key := a.issue(t, "localhost")
		return scene{args: onDynamoDBAt(t, behindTLS(t, testserver.StartDynalite(t), cert, key)), hide: dynamodbHost}
	}, 2 * time.Second},
	{"a cart is larger than an item of DynamoDB may be (400 KB)", func(t *testing.T) scene {
		return scene{args: onDynamoDBAt(t, testserver.StartDynalite(t).Endpoint, "--dynamodb-create-table"), strike: nothing, mend: nothing, large: 410 << 10, fine: true}
	}, 2 * time.Second},
	{"the server is down", func(t *testing.T) scene {
		d := testserver.StartDynalite(t)
		return scene{args: onDynamoDBAt(t, d.Endpoint, "--dynamodb-create-table"), strike: d.Kill}
	}, 2 * time.Second},
	{"the host is unreachable: packets to it are dropped", func(t *testing.T) scene {
		return scene{args: onDynamoDBAt(t, "http://"+blackHole(t))}
	}, 3 * time.Second},
	{"a connection is half-open: packets on it are dropped", func(t *testing.T) scene {
		return halfOpen(t, testserver.StartDynalite(t).Addr, func(address string) []string {
			return onDynamoDBAt(t, "http://"+address, "--dynamodb-create-table")
		})
	}, 3 * time.Second},
	{"the server is frozen (SIGSTOP)", func(t *testing.T) scene {
		d := testserver.StartDynalite(t)
		return scene{args: onDynamoDBAt(t, d.Endpoint, "--dynamodb-create-table"), strike: d.Pause, mend: d.Resume}
	}, 3 * time.Second},
}

// noAmazon makes sure that a sidecar finds only the credentials that it is given.
func noAmazon(t *testing.T) {
	t.Helper()
	for _, name := range []string{
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE",
		"AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
	} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
}

var dynamodbHost = []string{"localhost", "dynamodb"}

func onDynamoDBAt(t *testing.T, endpoint string, more ...string) []string {
	t.Helper()
	return append([]string{
		"--backend=dynamodb", "--dynamodb-table=carts", "--dynamodb-region=eu-central-1", "--dynamodb-endpoint=" + endpoint,
		"--dynamodb-access-key-id-file=" + secretFile(t, "shop"), "--dynamodb-secret-access-key-file=" + secretFile(t, "word"),
	}, more...)
}

// behindTLS puts a proxy that speaks TLS before a server, and returns its URL by the name localhost.
func behindTLS(t *testing.T, d *testserver.Dynalite, cert, key string) string {
	t.Helper()
	to, err := url.Parse(d.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(to))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // it tells of each handshake that failed
	s.StartTLS()
	t.Cleanup(s.Close)
	return strings.Replace(s.URL, "127.0.0.1", "localhost", 1)
}

// makeTable makes the table of the carts with a key of two strings.
func makeTable(t *testing.T, d *testserver.Dynalite, partition, sort string) {
	t.Helper()
	body := fmt.Sprintf(`{"TableName":"carts","BillingMode":"PAY_PER_REQUEST",
		"KeySchema":[{"AttributeName":%q,"KeyType":"HASH"},{"AttributeName":%q,"KeyType":"RANGE"}],
		"AttributeDefinitions":[{"AttributeName":%q,"AttributeType":"S"},{"AttributeName":%q,"AttributeType":"S"}]}`, partition, sort, partition, sort)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.Endpoint, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-amz-json-1.0")
	r.Header.Set("X-Amz-Target", "DynamoDB_20120810.CreateTable")
	r.Header.Set("X-Amz-Date", "20260101T000000Z")
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=shop/20260101/eu-central-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0")
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if answer, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("create table: %s %s %v", resp.Status, answer, err)
	}
}
