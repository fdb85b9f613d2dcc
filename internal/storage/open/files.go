package open

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/storage"
)

// maxFileBytes bounds what is read of a secret file. It is five times the size of a bundle of all public CAs.
const maxFileBytes = 1 << 20

// reader reads the files that a configuration names and gathers what is wrong with them, by the path of the field.
type reader struct{ problems config.Problems }

func (r *reader) problem(path, format string, args ...any) {
	r.problems = append(r.problems, config.Problem{Path: path, Message: fmt.Sprintf(format, args...)})
}

// bytes returns the content of a file, or nil if no file is named or it cannot be read.
func (r *reader) bytes(path, file string) []byte {
	if file == "" {
		return nil
	}
	raw, err := readFile(file)
	if err != nil {
		r.problem(path, "%s", err)
		return nil
	}
	if len(raw) == 0 {
		r.problem(path, "%s is empty", file)
	}
	return raw
}

// secret is the content of a file without the one newline that editors leave at its end.
func (r *reader) secret(path, file string) storage.Secret {
	s := string(r.bytes(path, file))
	if cut, ok := strings.CutSuffix(s, "\n"); ok {
		s = strings.TrimSuffix(cut, "\r")
	}
	return storage.NewSecret(s, file)
}

// tls returns the configuration of TLS, or nil for plain connections.
func (r *reader) tls(path string, t config.TLS) *tls.Config {
	if !t.Active() {
		return nil
	}
	c := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         t.ServerName,
		InsecureSkipVerify: t.InsecureSkipVerify, //nolint:gosec // the configuration asks for it
	}
	if ca := r.bytes(path+".caFile", t.CAFile); ca != nil {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(ca) {
			r.problem(path+".caFile", "%s holds no certificate in PEM", t.CAFile)
		}
	}
	cert, key := r.bytes(path+".certFile", t.CertFile), r.bytes(path+".keyFile", t.KeyFile)
	if cert != nil && key != nil {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			r.noPair(path, t, cert, key)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c
}

// noPair says why a certificate and a key do not fit together. It uses words of its own, since those of the library
// quote the files.
func (r *reader) noPair(path string, t config.TLS, cert, key []byte) {
	leaf := firstBlock(cert, func(kind string) bool { return kind == "CERTIFICATE" })
	if leaf == nil {
		r.problem(path+".certFile", "%s holds no certificate in PEM", t.CertFile)
		return
	}
	if _, err := x509.ParseCertificate(leaf); err != nil {
		r.problem(path+".certFile", "%s holds a certificate that cannot be read", t.CertFile)
		return
	}
	private := firstBlock(key, func(kind string) bool { return kind == "PRIVATE KEY" || strings.HasSuffix(kind, " PRIVATE KEY") })
	if private == nil {
		r.problem(path+".keyFile", "%s holds no private key in PEM", t.KeyFile)
		return
	}
	r.problem(path+".certFile", "%s and %s are no pair: the private key cannot be used, or is not that of the certificate", t.CertFile, t.KeyFile)
}

// firstBlock returns the content of the first PEM block of a kind, or nil if there is none.
func firstBlock(data []byte, is func(kind string) bool) []byte {
	for {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil {
			return nil
		}
		if is(b.Type) {
			return b.Bytes
		}
	}
}

// readFile reads a whole small file. The error names it.
func readFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	raw, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err == nil && len(raw) > maxFileBytes {
		err = fmt.Errorf("read %s: is over %d bytes long", file, maxFileBytes)
	}
	return raw, err
}
