package testserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// Authority issues certificates, to servers and to clients.
type Authority struct {
	tb    TB
	cert  *x509.Certificate
	key   *ecdsa.PrivateKey
	hosts atomic.Int32
}

// NewAuthority makes an authority that nobody trusts yet: see [Authority.Pool].
func NewAuthority(tb TB) *Authority {
	tb.Helper()
	a := &Authority{tb: tb}
	a.cert, a.key = a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true})
	return a
}

// Pool trusts this authority and no other.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// Issue makes a certificate and its key, in PEM. Its names are DNS names and IP addresses.
func (a *Authority) Issue(names ...string) (cert, key []byte) {
	a.tb.Helper()
	template := &x509.Certificate{Subject: pkix.Name{CommonName: names[0]}}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	signed, private := a.sign(template)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.tb.Fatalf("key: %v", err)
	}
	return inPEM("CERTIFICATE", signed.Raw), inPEM("PRIVATE KEY", pkcs8)
}

func inPEM(kind string, raw []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw})
}

// sign makes a certificate and its key. The first one signs itself.
func (a *Authority) sign(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.tb.Fatalf("key: %v", err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.tb.Fatalf("certificate: %v", err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		a.tb.Fatalf("certificate: %v", err)
	}
	return cert, key
}

// Secure makes a Redis speak TLS too, with a certificate for names, to clients that have one of the same authority.
// Without names, each server gets a loopback address of its own and a certificate for that address only. The servers
// speak TLS to each other as well.
func (a *Authority) Secure(names ...string) RedisOption {
	return func(s *redisSetup) {
		valid := names
		if len(valid) == 0 {
			s.host = fmt.Sprintf("127.0.0.%d", 1+a.hosts.Add(1))
			s.args = append(s.args, "--replica-announce-ip", s.host, "--cluster-announce-ip", s.host)
			valid = []string{s.host}
		}
		dir := a.tb.TempDir()
		cert, key := a.Issue(valid...)
		s.tls = []string{"--tls-replication", "yes", "--tls-cluster", "yes"}
		for file, content := range map[string][]byte{"cert": cert, "key": key, "ca-cert": inPEM("CERTIFICATE", a.cert.Raw)} {
			path := filepath.Join(dir, file)
			if err := os.WriteFile(path, content, 0o600); err != nil {
				a.tb.Fatalf("%v", err)
			}
			s.tls = append(s.tls, "--tls-"+file+"-file", path)
		}
	}
}
