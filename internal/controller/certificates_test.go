package controller

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecart/sidecart/internal/envtest"
)

// replica is one operator's part in the certificate.
func replica(c client.Client, namespace, webhook string, clock *time.Time) *Certificates {
	return &Certificates{
		client: c, live: c, secret: client.ObjectKey{Namespace: namespace, Name: "certificate"}, webhook: webhook,
		hosts: []string{"sidecart-operator.shop.svc", "127.0.0.1"}, now: func() time.Time { return *clock },
	}
}

func (c *Certificates) round(t *testing.T) time.Duration {
	t.Helper()
	for {
		result, err := c.Reconcile(t.Context(), ctrl.Request{})
		if err != nil {
			t.Fatal(err)
		}
		if result.RequeueAfter != askSoonest { // another replica was faster
			return result.RequeueAfter
		}
	}
}

// trusted reports whether the API server accepts what the replica shows.
func trusted(t *testing.T, c client.Client, webhook string, r *Certificates) error {
	t.Helper()
	hook := &admissionv1.MutatingWebhookConfiguration{}
	if err := c.Get(t.Context(), client.ObjectKey{Name: webhook}, hook); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(hook.Webhooks[0].ClientConfig.CABundle)
	shown, err := r.GetCertificate(&tls.ClientHelloInfo{})
	if err != nil {
		return err
	}
	_, err = shown.Leaf.Verify(x509.VerifyOptions{DNSName: "sidecart-operator.shop.svc", Roots: roots, CurrentTime: r.now()})
	return err
}

// Two replicas make one certificate and renew it once, and never show one that the API server does not trust.
func TestCertificates(t *testing.T) {
	cluster := envtest.Start(t)
	c := asAdmin(t, cluster)
	namespace := cluster.Namespace(t)
	url := "https://127.0.0.1:1/inject"
	hook := &admissionv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	none := admissionv1.SideEffectClassNone
	hook.Webhooks = []admissionv1.MutatingWebhook{{
		Name: "inject.sidecart.dev", ClientConfig: admissionv1.WebhookClientConfig{URL: &url}, SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
		ObjectSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"nothing": "has-this"}},
	}}
	if err := c.Create(t.Context(), hook); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Delete(context.Background(), hook) })

	clock := time.Now().Truncate(time.Second)
	a, b := replica(c, namespace, namespace, &clock), replica(c, namespace, namespace, &clock)
	check := func(when string) {
		t.Helper()
		for _, r := range []*Certificates{a, b} {
			if err := trusted(t, c, namespace, r); err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
	}
	if _, err := a.GetCertificate(nil); err == nil || a.Ready(nil) == nil {
		t.Error("a replica without a certificate is ready")
	}
	// Both at once.
	done := make(chan struct{})
	go func() { defer close(done); a.round(t) }()
	b.round(t)
	<-done
	check("first")
	if !sameCertificate(a.shown, b.shown) {
		t.Error("the replicas have made two certificates")
	}
	first := a.shown

	// Somebody, such as a package manager, writes an empty bundle over it.
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(hook), hook); err != nil {
		t.Fatal(err)
	}
	hook.Webhooks[0].ClientConfig.CABundle = nil
	if err := c.Update(t.Context(), hook); err != nil {
		t.Fatal(err)
	}
	a.round(t)
	check("bundle repaired")

	// Time to renew. The new one waits until API servers know its authority; the other replica goes on with the old
	// one, which is still trusted.
	clock = clock.Add(certificateLife*2/3 + time.Hour)
	if next := a.round(t); next != bundleSpread {
		t.Errorf("looks again after %s, want %s", next, bundleSpread)
	}
	check("renewed, not shown")
	if !sameCertificate(a.shown, first) {
		t.Error("the new certificate is shown before API servers know of it")
	}
	clock = clock.Add(bundleSpread)
	a.round(t)
	check("one replica has changed over")
	if sameCertificate(a.shown, first) {
		t.Error("the new certificate is not shown")
	}
	b.round(t)
	clock = clock.Add(bundleSpread)
	b.round(t)
	check("both have changed over")
	if !sameCertificate(a.shown, b.shown) {
		t.Error("the replicas show different certificates")
	}

	// Old authorities leave the bundle when they have expired.
	for range 3 {
		clock = clock.Add(certificateLife * 2 / 3)
		a.round(t)
		b.round(t)
		clock = clock.Add(bundleSpread)
		a.round(t)
		b.round(t)
		check("later")
	}
	secret := &corev1.Secret{}
	if err := c.Get(t.Context(), a.secret, secret); err != nil {
		t.Fatal(err)
	}
	if n := len(parseBundle(secret.Data[caKey])); n != 2 {
		t.Errorf("the bundle has %d authorities, want the present one and the one before", n)
	}

	// A Secret that a person broke is made anew.
	secret.Data[corev1.TLSPrivateKeyKey] = []byte("nonsense")
	if err := c.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	a.round(t)
	if err := c.Get(t.Context(), a.secret, secret); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(secret.Data[corev1.TLSPrivateKeyKey], []byte("nonsense")) || secret.Type != corev1.SecretTypeTLS {
		t.Error("the broken Secret was not made anew")
	}
	check("after repair")
}

func TestCertificateReasons(t *testing.T) {
	now := time.Now()
	hosts := []string{"a.svc"}
	good, err := issue(hosts, nil, now)
	if err != nil {
		t.Fatal(err)
	}
	other, err := issue(hosts, nil, now)
	if err != nil {
		t.Fatal(err)
	}
	with := func(key string, value []byte) map[string][]byte {
		m := map[string][]byte{}
		for k, v := range good {
			m[k] = v
		}
		m[key] = value
		return m
	}
	for _, r := range []struct {
		name string
		data map[string][]byte
		at   time.Time
		host string
		want string // "" for a good one
	}{
		{"good", good, now, "a.svc", ""},
		{"good to the end", good, now.Add(certificateLife - time.Minute), "a.svc", ""},
		{"nothing", nil, now, "a.svc", "PEM"},
		{"no authority", with(caKey, nil), now, "a.svc", "ca.crt has no certificate"},
		{"another authority", with(caKey, other[caKey]), now, "a.svc", "unknown authority"},
		{"another key", with(corev1.TLSPrivateKeyKey, other[corev1.TLSPrivateKeyKey]), now, "a.svc", "does not match"},
		{"another kind of key", with(corev1.TLSPrivateKeyKey, block("HUSH HUSH", []byte("x"))), now, "a.svc", "tls.key has no private key in PEM"},
		{"another kind of certificate", with(corev1.TLSCertKey, block("HUSH HUSH", []byte("x"))), now, "a.svc", "tls.crt has no certificate in PEM"},
		{"expired", good, now.Add(certificateLife + time.Minute), "a.svc", "expired"},
		{"another host", good, now, "b.svc", "for b.svc"},
	} {
		_, _, err := load(r.data, []string{r.host}, r.at)
		if r.want == "" && err != nil || r.want != "" && (err == nil || !strings.Contains(err.Error(), r.want)) {
			t.Errorf("%s: error is %v, want %q", r.name, err, r.want)
		}
		if err != nil && strings.Contains(err.Error(), "HUSH") {
			t.Errorf("%s: the error quotes the Secret: %v", r.name, err)
		}
	}
}

// If somebody else fills the folder with a certificate, the operator shows that one and makes none.
func TestMountedCertificate(t *testing.T) {
	cluster := envtest.Start(t)
	namespace := cluster.Namespace(t)
	mounted, err := issue([]string{"127.0.0.1"}, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
		if err := os.WriteFile(filepath.Join(dir, name), mounted[name], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	port := freePort(t)
	ctx, cancel := context.WithCancel(t.Context())
	mgr, err := New(ctx, cluster.Config, Options{
		Namespace: namespace, MetricsAddress: "0", ProbeAddress: "0", Logger: logr.Discard(), shared: true,
		Webhook: WebhookOptions{Host: "127.0.0.1", Port: port, CertDir: dir, Configuration: "sidecart", Secret: "certificate"},
	})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(mounted[caKey])
	w := &world{t: t}
	w.eventually(func() string {
		conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), &tls.Config{RootCAs: roots})
		if err != nil {
			return err.Error()
		}
		return message(conn.Close())
	})
	var secrets corev1.SecretList
	if err := cluster.Client.List(t.Context(), &secrets, client.InNamespace(namespace)); err != nil || len(secrets.Items) > 0 {
		t.Errorf("Secrets %v, error %v", secrets.Items, err)
	}
}
