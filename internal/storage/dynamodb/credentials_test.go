package dynamodb

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/testserver"
)

// withoutEnvironment keeps the credentials of the machine away.
func withoutEnvironment(t *testing.T) {
	t.Helper()
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
}

// TestCredentials: credentials in files come first, then those of the environment; without any, the error says so.
func TestCredentials(t *testing.T) {
	withoutEnvironment(t)
	p := startProxy(t, testserver.StartDynalite(t).Endpoint)
	c := configAt(p.URL)
	signedBy := func(c Config, id string) {
		t.Helper()
		if err := openStore(t, c).Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := p.authorization(); !strings.Contains(got, "Credential="+id+"/") {
			t.Errorf("signed by %q, want %s", got, id)
		}
	}
	signedBy(c, "AKIDEXAMPLE")
	without := c
	without.AccessKeyID, without.SecretAccessKey = storage.Secret{}, storage.Secret{}
	if err := openStore(t, without).Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "credentials") {
		t.Errorf("without credentials: %v", err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDOFENV")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secretOfEnv")
	signedBy(without, "AKIDOFENV")
	signedBy(c, "AKIDEXAMPLE")
}

// TestWebIdentity: a pod's token is exchanged for credentials, again when they end.
func TestWebIdentity(t *testing.T) {
	withoutEnvironment(t)
	token := filepath.Join(t.TempDir(), "token")
	n := 0
	var failed error
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		form, parseErr := url.ParseQuery(string(body))
		if n++; err != nil || parseErr != nil || form.Get("WebIdentityToken") != fmt.Sprint("token", n) || form.Get("RoleArn") != "arn:aws:iam::1:role/shop" {
			failed = fmt.Errorf("exchange %d was asked for with %s", n, body)
		}
		ends := time.Now().Add(time.Hour)
		if n == 1 {
			ends = time.Now().Add(-time.Second)
		}
		_, _ = fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIA%d</AccessKeyId>`+
			`<SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>%s</Expiration></Credentials>`+
			`</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`, n, ends.UTC().Format(time.RFC3339))
	}))
	t.Cleanup(tokens.Close)
	t.Setenv("AWS_ENDPOINT_URL_STS", tokens.URL)
	t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", token)
	t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/shop")
	p := startProxy(t, testserver.StartDynalite(t).Endpoint)
	c := configAt(p.URL)
	c.AccessKeyID, c.SecretAccessKey = storage.Secret{}, storage.Secret{}
	d := openDriver(t, c)
	for i := range 2 {
		if err := os.WriteFile(token, fmt.Append(nil, "token", i+1), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := d.describe(t.Context()); i == 0 && code(err) != codeTableMissing {
			t.Fatal(err)
		}
		if got := p.authorization(); !strings.Contains(got, fmt.Sprintf("Credential=ASIA%d/", i+1)) {
			t.Errorf("call %d was signed by %s", i+1, got)
		}
	}
	if failed != nil {
		t.Error(failed)
	}
}
