package render

import (
	"cmp"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// ConfigFile is the key of a [ConfigMap] with the configuration, and the name of the mounted file.
const ConfigFile = "config.yaml"

// LastGoodFile is the key, and the name of the file, of the configuration that sidecars have accepted last.
const LastGoodFile = "lastgood.yaml"

// Where the sidecar finds its files.
const (
	configDirectory = "/etc/sidecart"
	dataDirectory   = "/var/lib/sidecart"
	secretDirectory = "secrets"
)

// secretFile is where a key of a secret is mounted. The name of the secret is part of the path, so that a sidecar whose
// pod still mounts another secret refuses the configuration, and does not go on with the wrong password.
func secretFile(secret, key string) string {
	return configDirectory + "/" + secretPath(secret, key)
}

func secretPath(secret, key string) string { return secretDirectory + "/" + secret + "/" + key }

func redisFiles(ref *v1alpha1.RedisCredentials) (username, password string) {
	if ref == nil {
		return "", ""
	}
	if ref.UsernameKey != "" {
		username = secretFile(ref.Name, ref.UsernameKey)
	}
	return username, secretFile(ref.Name, passwordKey(ref.PasswordKey))
}

func tlsFiles(ca *v1alpha1.CASecretRef, certificate *v1alpha1.CertificateSecretRef) (caFile, certFile, keyFile string) {
	if ca != nil {
		caFile = secretFile(ca.Name, caKey(ca))
	}
	if certificate != nil {
		certFile = secretFile(certificate.Name, corev1.TLSCertKey)
		keyFile = secretFile(certificate.Name, corev1.TLSPrivateKeyKey)
	}
	return caFile, certFile, keyFile
}

func passwordKey(key string) string            { return cmp.Or(key, "password") }
func caKey(ref *v1alpha1.CASecretRef) string   { return cmp.Or(ref.Key, "ca.crt") }
func urlKey(ref *v1alpha1.URLSecretRef) string { return cmp.Or(ref.Key, "url") }

func databaseKeys(ref *v1alpha1.DatabaseCredentials) (username, password string) {
	return cmp.Or(ref.UsernameKey, "username"), passwordKey(ref.PasswordKey)
}

func awsKeys(ref *v1alpha1.AWSCredentials) (id, secret string) {
	return cmp.Or(ref.AccessKeyIDKey, "AWS_ACCESS_KEY_ID"), cmp.Or(ref.SecretAccessKeyKey, "AWS_SECRET_ACCESS_KEY")
}

// secretKeys are the keys of each secret that the configuration of cs names.
type secretKeys map[string]map[string]bool

func (s secretKeys) add(secret string, keys ...string) {
	if s[secret] == nil {
		s[secret] = map[string]bool{}
	}
	for _, k := range keys {
		s[secret][k] = true
	}
}

func (s secretKeys) redis(ref *v1alpha1.RedisCredentials) {
	if ref == nil {
		return
	}
	if ref.UsernameKey != "" {
		s.add(ref.Name, ref.UsernameKey)
	}
	s.add(ref.Name, passwordKey(ref.PasswordKey))
}

func (s secretKeys) tls(ca *v1alpha1.CASecretRef, certificate *v1alpha1.CertificateSecretRef) {
	if ca != nil {
		s.add(ca.Name, caKey(ca))
	}
	if certificate != nil {
		s.add(certificate.Name, corev1.TLSCertKey, corev1.TLSPrivateKeyKey)
	}
}

func (s secretKeys) dynamodb(d *v1alpha1.DynamoDBBackend) {
	if d != nil && d.CredentialsSecretRef != nil {
		id, secret := awsKeys(d.CredentialsSecretRef)
		s.add(d.CredentialsSecretRef.Name, id, secret)
	}
}

func (s secretKeys) database(d *v1alpha1.DatabaseBackend) {
	if d == nil {
		return
	}
	if ref := d.CredentialsSecretRef; ref != nil {
		user, password := databaseKeys(ref)
		s.add(ref.Name, user, password)
	}
	if ref := d.URLSecretRef; ref != nil {
		s.add(ref.Name, urlKey(ref))
	}
	if t := d.TLS; t != nil {
		s.tls(t.CASecretRef, t.CertificateSecretRef)
	}
}

func (s secretKeys) backend(b *v1alpha1.Backend) {
	if r := b.Redis; r != nil {
		s.redis(r.CredentialsSecretRef)
		s.redis(r.SentinelCredentialsSecretRef)
		if r.TLS != nil {
			s.tls(r.TLS.CASecretRef, r.TLS.CertificateSecretRef)
		}
	}
	s.dynamodb(b.DynamoDB)
	s.database(b.Database)
}

// secrets are all secrets that the configuration of cs names, as sources of a projected volume, sorted.
func secrets(cs *v1alpha1.CartStorage) []corev1.VolumeProjection {
	keys := secretKeys{}
	keys.backend(&cs.Spec.Backend)
	if m := cs.Spec.MoveFrom; m != nil {
		keys.backend(&m.Backend)
	}
	if c := cs.Spec.Critical(); c != nil {
		keys.dynamodb(c.DynamoDB)
		keys.database(c.Database)
	}
	var sources []corev1.VolumeProjection
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		p := &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: name}}
		for _, key := range slices.Sorted(maps.Keys(keys[name])) {
			p.Items = append(p.Items, corev1.KeyToPath{Key: key, Path: secretPath(name, key)})
		}
		sources = append(sources, corev1.VolumeProjection{Secret: p})
	}
	return sources
}
