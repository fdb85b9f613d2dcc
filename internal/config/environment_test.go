package config_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sidecart/sidecart/internal/config"
)

func TestUnknownVariables(t *testing.T) {
	known := []string{"SIDECART_CONFIG", "SIDECART_LOCKING", "SIDECART_TTL", "SIDECART_REDIS_PASSWORD_FILE", "SIDECART_REDIS_ADDRESS", "SIDECART_LOG_LEVEL"}
	for name, want := range map[string]string{
		"SIDECART_LOKING":          "SIDECART_LOCKING",
		"SIDECART_LOCKINGS":        "SIDECART_LOCKING",
		"SIDECART_REDIS_ADDRESSES": "SIDECART_REDIS_ADDRESS",
		"SIDECART_REDIS_PASSWORD":  "SIDECART_REDIS_PASSWORD_FILE",
		"SIDECART_LOGLEVEL":        "SIDECART_LOG_LEVEL",
		"SIDECART_TTL_SECONDS":     "SIDECART_TTL",
		"SIDECART_COLOUR":          "",
		"SIDECART_":                "",
		"SIDECART_PORTS":           "",
		"SIDECART_locking":         "SIDECART_LOCKING",
		"SIDECART_HTTP_PORT":       "",
	} {
		got := config.UnknownVariables(map[string]string{name: "x", "SIDECART_TTL": "1h"}, known)
		if d := cmp.Diff([]config.UnknownVariable{{Name: name, Nearest: want}}, got); d != "" {
			t.Error(d)
		}
	}
	several := config.UnknownVariables(map[string]string{"SIDECART_B": "x", "SIDECART_A": "x"}, nil)
	if d := cmp.Diff([]config.UnknownVariable{{Name: "SIDECART_A"}, {Name: "SIDECART_B"}}, several); d != "" {
		t.Error(d)
	}
}

// Variables that Kubernetes sets for Services or the injection sets for the app, variables of others and empty ones are
// not reported as mistakes.
func TestKnownVariables(t *testing.T) {
	for _, name := range []string{
		"SIDECART_TTL", "SIDECART_HTTP_URL", "SIDECART_GRPC_TARGET",
		"SIDECART_SERVICE_HOST", "SIDECART_SERVICE_PORT", "SIDECART_SERVICE_PORT_HTTP",
		"SIDECART_PORT_7421_TCP", "SIDECART_PORT_7421_TCP_PROTO", "SIDECART_PORT_7421_TCP_PORT", "SIDECART_PORT_7421_TCP_ADDR",
		"SIDECART_OPERATOR_SERVICE_HOST", "SIDECART_OPERATOR_SERVICE_PORT_WEBHOOK", "SIDECART_OPERATOR_PORT_443_TCP", "SIDECART_OPERATOR_PORT",
		"CART_CACHE_LOCKING", "CART_SERVICE_HOST", "SIDECARTS", "HOME",
	} {
		if got := config.UnknownVariables(map[string]string{name: "tcp://10.0.0.1:7421"}, []string{"SIDECART_TTL"}); got != nil {
			t.Errorf("%v", got)
		}
	}
	if got := config.UnknownVariables(map[string]string{"SIDECART_COLOUR": ""}, nil); got != nil {
		t.Errorf("empty: %v", got)
	}
}

// TestEnvironment: a value may hold an equals sign, be empty or missing, and the last variable of a name counts.
func TestEnvironment(t *testing.T) {
	got := config.Environment([]string{"A=1", "URL=host?x=y", "EMPTY=", "BARE", "A=2"})
	want := map[string]string{"A": "2", "URL": "host?x=y", "EMPTY": "", "BARE": ""}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
