package storage_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/sidecart/sidecart/internal/storage"
)

// However a secret is printed, its file is named and its content is not.
func TestSecretPrintsAsItsFile(t *testing.T) {
	secret := storage.NewSecret("s3cret-word", "/s/password")
	type hidden struct{ inner storage.Secret }
	type shown struct{ Inner storage.Secret }
	texts := map[string]string{"String": secret.String(), "Sprint": fmt.Sprint(secret, &secret, []any{secret})}
	for _, verb := range []string{"v", "+v", "#v", "s", "q", "x", "X", "d", "t", "20s", "-5q", "T%[1]v"} {
		texts["%"+verb] = fmt.Sprintf("%"+verb, secret)
	}
	for name, format := range map[string]string{"%v": "%v", "%+v": "%+v", "%#v": "%#v"} {
		texts["exported field, "+name] = fmt.Sprintf(format, shown{secret})
	}
	for name, handler := range map[string]func(*bytes.Buffer) slog.Handler{
		"text log": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		"JSON log": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		var log bytes.Buffer
		slog.New(handler(&log)).Info("x", "secret", secret, "in", shown{secret})
		texts[name] = log.String()
	}
	raw, err := json.Marshal(map[string]any{"a": secret, "b": shown{secret}})
	if err != nil {
		t.Fatal(err)
	}
	texts["JSON"] = string(raw)
	for name, text := range texts {
		if strings.Contains(text, "s3cret") || !strings.Contains(text, "/s/password") {
			t.Errorf("%s: %s", name, text)
		}
	}
	// fmt calls no methods in unexported fields: what it finds there must be no text.
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		if text := fmt.Sprintf(format, hidden{secret}); strings.Contains(text, "s3cret") || strings.Contains(text, fmt.Sprintf("%x", "s3cret")) {
			t.Errorf("unexported field, %s: %s", format, text)
		}
	}
	if secret.Reveal() != "s3cret-word" {
		t.Errorf("Reveal() = %q", secret.Reveal())
	}
}

func TestNoSecret(t *testing.T) {
	for _, s := range []storage.Secret{{}, storage.NewSecret("", "/s/empty")} {
		if s.Reveal() != "" || s.String() != "" || s != (storage.Secret{}) {
			t.Errorf("%#v reveals %q", s, s.Reveal())
		}
	}
}

func TestHide(t *testing.T) {
	cause := errors.New("cause")
	for name, tc := range map[string]struct{ secret, text, want string }{
		"whole":              {"s3cret-word", "NOPERM User s3cret-word has no permissions", "NOPERM User (content of f) has no permissions"},
		"twice":              {"s3cret-word", "s3cret-word, s3cret-word", "(content of f), (content of f)"},
		"cut off":            {"s3cret-word", "beginning with: 's3cret-", "beginning with: '(content of f)"},
		"from the middle":    {"s3cret-word", "near 3cret-wo!", "near (content of f)!"},
		"five bytes":         {"s3cret-word", "s3cre", "s3cre"},
		"overlapping":        {"abcdefghabcdef", "xabcdefabcdefgh", "x(content of f)"},
		"lines":              {"one secret\r\nline", "ERR 'one secret  line'", "ERR '(content of f)'"},
		"quoted":             {"a\tsecret\n", `dial "a\tsecret\n"`, `dial "(content of f)"`},
		"quoted, ASCII":      {"geheimüber", `x geheim\u00fcber`, `x (content of f)`},
		"short":              {"app", "User app may not apply, app_x app", "User (content of f) may not apply, app_x (content of f)"},
		"short, not a whole": {"app", "ap", "ap"},
		"none":               {"", "User default", "User default"},
		"absent":             {"s3cret-word", "connection refused", "connection refused"},
		"not through a rune": {"geheim\xc3", "geheimü", "(content of f)\uFFFD"},
	} {
		t.Run(name, func(t *testing.T) {
			err := storage.Hide(fmt.Errorf("%s: %w", tc.text, cause), storage.NewSecret(tc.secret, "f"))
			if got := strings.TrimSuffix(err.Error(), ": cause"); got != tc.want {
				t.Errorf("got %q\nwant %q", got, tc.want)
			}
			if !errors.Is(err, cause) {
				t.Error("the cause is lost")
			}
			if text := fmt.Sprintf("%+v %#v", err, err); len(tc.secret) >= 6 && strings.Contains(tc.text, tc.secret) && strings.Contains(text, tc.secret) {
				t.Errorf("the cause is printed: %s", text)
			}
		})
	}
	if storage.Hide(nil, storage.NewSecret("x", "f")) != nil {
		t.Error("nil became an error")
	}
	if storage.Hide(cause) != cause {
		t.Error("an error without secrets became another one")
	}
}
