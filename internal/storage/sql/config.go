package sql

import (
	"cmp"
	"crypto/tls"
	"time"

	"github.com/sidecart/sidecart/internal/storage"
)

// Config says which server to use, and how.
type Config struct {
	// URL names the server and the database. It may hold a user and a password.
	URL string
	// SecretURL is the URL if it comes from a secret file.
	SecretURL storage.Secret
	// Username and Password replace those in the URL. The zero value keeps the URL's.
	Username, Password storage.Secret
	// TLS turns TLS on, and verifies the server's name unless it says otherwise. nil leaves TLS to the URL.
	TLS *tls.Config
	// Audit says whether to keep an audit trail.
	Audit Audit
	// Prefix keeps the carts of several stores in one database apart.
	Prefix string
	// Dial bounds how long it may take to connect, Read a read, and Write each of the two round trips of a change. 0
	// leaves it to the context.
	Dial, Read, Write time.Duration
}

// Address is the URL, wherever it comes from.
func (c *Config) Address() string { return cmp.Or(c.SecretURL.Reveal(), c.URL) }

// Secrets returns what no error may quote. password is the one in the URL. parts are its other parts, such as user,
// host and database, which are secret if the URL is.
func (c *Config) Secrets(password string, parts ...string) []storage.Secret {
	secrets := []storage.Secret{c.SecretURL, c.Username, c.Password, storage.NewSecret(password, c.SecretURL.File())}
	if c.SecretURL != (storage.Secret{}) {
		for _, part := range parts {
			secrets = append(secrets, storage.NewSecret(part, c.SecretURL.File()))
		}
	}
	return secrets
}
