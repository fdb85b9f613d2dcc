package charts

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// With cert-manager the operator shows the mounted certificate, and later the one that replaces it. It writes neither a
// Secret nor the webhook's configuration.
func TestCertManager(t *testing.T) {
	c := cluster(t)
	r := &release{t: t, c: c, kubeconfig: kubeconfig(t, c), namespace: c.Namespace(t)}
	values := "testdata/cert-manager.values.yaml"
	r.must("install", "sidecart", chart, "--values", values, "--take-ownership")
	defer r.must("uninstall", "sidecart")

	args := arguments(t, "--values", values)
	if !slices.Contains(args, "--webhook-cert-dir=/var/run/sidecart/webhook") {
		t.Fatalf("the operator is not told where its certificate is: %q", args)
	}
	host := hostOfCertificate(t, values, r.namespace)
	dir := t.TempDir()
	mount(t, dir, host, 1)
	o := startOperator(t, r, append(args, "--webhook-cert-dir", dir)...)
	o.shows(host, 1)
	mount(t, dir, host, 2)
	o.shows(host, 2)
	o.stop()
	if got := r.bundle(); len(got) != 0 {
		t.Errorf("the operator wrote the authority that is cert-manager's to write: %q", got)
	}
	err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: r.namespace, Name: "sidecart-webhook-certificate"}, &corev1.Secret{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("the operator made a certificate of its own: %v", err)
	}
}

// hostOfCertificate is the name in the Certificate, which must be that by which the API server calls.
func hostOfCertificate(t *testing.T, values, namespace string) string {
	t.Helper()
	for _, o := range objects(t, template(t, "--namespace", namespace, "--values", values)) {
		if o.GetKind() == "Certificate" && o.GetName() == "sidecart-webhook" {
			names, _, err := unstructured.NestedStringSlice(o.Object, "spec", "dnsNames")
			if want := []string{"sidecart-operator." + namespace + ".svc"}; err != nil || !slices.Equal(names, want) {
				t.Errorf("the certificate is for %q, want %q", names, want)
			}
			return names[0]
		}
	}
	t.Fatal("there is no Certificate")
	return ""
}

// mount writes a certificate as the kubelet does: both files change at one instant.
func mount(t *testing.T, dir, host string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(serial), DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	version, err := os.MkdirTemp(dir, "..version")
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"tls.crt": {Type: "CERTIFICATE", Bytes: der},
		"tls.key": {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(filepath.Join(version, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		link := filepath.Join(dir, name)
		if _, err := os.Lstat(link); err != nil {
			if err := os.Symlink(filepath.Join("..data", name), link); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Symlink(filepath.Base(version), filepath.Join(dir, "..next")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "..next"), filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
}

// shows waits until the operator shows the certificate with this serial.
func (o operator) shows(host string, serial int64) {
	o.t.Helper()
	dialer := &tls.Dialer{Config: &tls.Config{ServerName: host, InsecureSkipVerify: true}} // it is looked at below
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		got, err := peer(o.t.Context(), dialer, o.webhook)
		if err == nil && got.SerialNumber.Int64() == serial && got.VerifyHostname(host) == nil {
			return
		}
		if time.Now().After(deadline) {
			o.t.Fatalf("certificate %d is not shown: %v\n%s", serial, err, o.log.String())
		}
	}
}

func peer(ctx context.Context, d *tls.Dialer, address string) (*x509.Certificate, error) {
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}
