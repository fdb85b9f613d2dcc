package controller

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// caKey is where a Secret of type kubernetes.io/tls has the authority, as cert-manager writes it too.
const caKey = "ca.crt"

// certificateLife is how long a certificate is valid. It is renewed after two thirds of it.
const certificateLife = 90 * 24 * time.Hour

// issue makes a certificate for hosts, signed by an authority of its own. The authority's key is thrown away, so it
// never signs another one. Old is the bundle of earlier authorities. Those that are still valid stay in the new bundle,
// for replicas that do not use the new certificate yet.
func issue(hosts []string, old []byte, now time.Time) (map[string][]byte, error) {
	caPrivate, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	// The clock of the API server may be behind.
	from, to := now.Add(-time.Hour), now.Add(certificateLife)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "sidecart-webhook-ca"},
		NotBefore: from, NotAfter: to, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caPrivate.PublicKey, caPrivate)
	if err != nil {
		return nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano() + 1), Subject: pkix.Name{CommonName: "sidecart-webhook"},
		NotBefore: from, NotAfter: to, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &private.PublicKey, caPrivate)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	bundle := block("CERTIFICATE", caDER)
	for _, c := range parseBundle(old) {
		if now.Before(c.NotAfter) {
			bundle = append(bundle, block("CERTIFICATE", c.Raw)...)
		}
	}
	return map[string][]byte{
		corev1.TLSCertKey:       block("CERTIFICATE", der),
		corev1.TLSPrivateKeyKey: block("PRIVATE KEY", keyDER),
		caKey:                   bundle,
	}, nil
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// parseBundle skips everything but certificates.
func parseBundle(data []byte) (all []*x509.Certificate) {
	for {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil {
			return all
		}
		if c, err := x509.ParseCertificate(b.Bytes); err == nil {
			all = append(all, c)
		}
	}
}

// load returns the certificate of a Secret, and when to renew it. The error says why it cannot be used; the caller then
// replaces it.
func load(data map[string][]byte, hosts []string, now time.Time) (*tls.Certificate, time.Time, error) {
	pair, err := tls.X509KeyPair(data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey])
	if err != nil { // its text quotes what is in the Secret
		return nil, time.Time{}, noPair(data)
	}
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(data[caKey]) {
		return nil, time.Time{}, errors.New(caKey + " has no certificate")
	}
	for _, h := range hosts {
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: h, Roots: authorities, CurrentTime: now}); err != nil {
			return nil, time.Time{}, fmt.Errorf("for %s: %w", h, err)
		}
	}
	return &pair, renewal(pair.Leaf), nil
}

// noPair says why certificate and key do not fit together.
func noPair(data map[string][]byte) error {
	switch {
	case !hasBlock(data[corev1.TLSCertKey], "CERTIFICATE"):
		return errors.New(corev1.TLSCertKey + " has no certificate in PEM")
	case !hasBlock(data[corev1.TLSPrivateKeyKey], "PRIVATE KEY"):
		return errors.New(corev1.TLSPrivateKeyKey + " has no private key in PEM")
	}
	return fmt.Errorf("%s cannot be used, or does not match %s", corev1.TLSPrivateKeyKey, corev1.TLSCertKey)
}

// hasBlock reports whether there is a PEM block whose kind ends in kind, such as EC PRIVATE KEY.
func hasBlock(data []byte, kind string) bool {
	for {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil || strings.HasSuffix(b.Type, kind) {
			return b != nil
		}
	}
}

func renewal(c *x509.Certificate) time.Time {
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) * 2 / 3)
}

func sameCertificate(a, b *tls.Certificate) bool {
	return a != nil && b != nil && bytes.Equal(a.Leaf.Raw, b.Leaf.Raw)
}
