package render

import (
	"cmp"
	"net"
	"net/url"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/config"
)

// Config returns what the sidecars of cs run on, with locking as decided. Settings that the resource leaves out are
// those of [config.Default].
//
// The result is not validated: [ConfigMap] does that.
func Config(cs *v1alpha1.CartStorage, locking v1alpha1.LockingStatus, generation int64) *config.Config {
	spec := &cs.Spec
	c := config.Default()
	c.Generation = generation
	c.Backend = backend(&spec.Backend)
	if critical := spec.Critical(); critical != nil {
		b := backend(&v1alpha1.Backend{Type: critical.Type, DynamoDB: critical.DynamoDB, Database: critical.Database})
		c.CriticalBackend = &b
	}
	c.KeyPrefix = cmp.Or(spec.KeyPrefix, c.KeyPrefix)
	renderMove(c, cs)
	if spec.TTL != nil { // zero is for ever
		c.TTL = config.Duration(spec.TTL.Duration)
	}
	c.IdempotencyWindow = duration(c.IdempotencyWindow, spec.IdempotencyWindow)
	c.CheckoutRetention = duration(c.CheckoutRetention, spec.CheckoutRetention)
	c.AllowFlush = spec.Flush == v1alpha1.Allow
	c.Audit = config.Audit{Retention: config.Duration(spec.Audit.Retention.Duration)}
	c.AllowList = spec.List == v1alpha1.Allow
	c.Fronts.CheckoutWindow = config.Duration(spec.Fronts.CheckoutWindow.Duration)
	renderLocking(c, spec, locking)
	renderTimeouts(c, &spec.Timeouts)
	c.Limits = config.Limits{
		MaxItems:         cmp.Or(int(spec.Limits.MaxItems), c.Limits.MaxItems),
		MaxDocumentBytes: cmp.Or(int(spec.Limits.MaxDocumentBytes), c.Limits.MaxDocumentBytes),
		MaxCartBytes:     cmp.Or(int(spec.Limits.MaxCartBytes), c.Limits.MaxCartBytes),
		MaxMetadataKeys:  cmp.Or(int(spec.Limits.MaxMetadataKeys), c.Limits.MaxMetadataKeys),
		MaxQuantity:      cmp.Or(spec.Limits.MaxQuantity, c.Limits.MaxQuantity),
	}
	p := ports(cs)
	// Only for pods of an older operator, which did not put it into the pod's arguments. If both have it, the arguments
	// win.
	c.Listen = config.Listen{GRPC: local(p.GRPC), HTTP: local(p.HTTP), Admin: anywhere(p.Admin)}
	c.LogLevel = cmp.Or(config.LogLevel(spec.Sidecar.LogLevel), c.LogLevel)
	c.LogFormat = cmp.Or(config.LogFormat(spec.Sidecar.LogFormat), config.LogJSON)
	return c
}

func renderLocking(c *config.Config, spec *v1alpha1.CartStorageSpec, decided v1alpha1.LockingStatus) {
	l := &c.Locking
	l.Mode = config.LockingDisabled
	if decided.Enabled {
		l.Mode = config.LockingEnabled
	}
	l.Reason = decided.Reason
	l.WaitTimeout = duration(l.WaitTimeout, spec.Locking.WaitTimeout, spec.Locking.Timeout)
	l.LeaseDuration = duration(l.LeaseDuration, spec.Locking.LeaseDuration, spec.Locking.Timeout)
}

// RequestTimeout is how long a call of the sidecars of cs may take.
func RequestTimeout(cs *v1alpha1.CartStorage) time.Duration {
	c := config.Default()
	renderLocking(c, &cs.Spec, v1alpha1.LockingStatus{})
	renderTimeouts(c, &cs.Spec.Timeouts)
	return c.Timeouts.Request.Std()
}

func renderTimeouts(c *config.Config, t *v1alpha1.Timeouts) {
	c.Timeouts = config.Timeouts{
		Dial:    duration(c.Timeouts.Dial, t.Dial),
		Read:    duration(c.Timeouts.Read, t.Read),
		Write:   duration(c.Timeouts.Write, t.Write),
		Request: duration(config.RequestTimeout(c.Locking.WaitTimeout), t.Request),
	}
}

// duration returns the first that is set.
func duration(otherwise config.Duration, settings ...metav1.Duration) config.Duration {
	for _, s := range settings {
		if s.Duration != 0 {
			return config.Duration(s.Duration)
		}
	}
	return otherwise
}

func backend(b *v1alpha1.Backend) config.Backend {
	c := config.Backend{Type: config.BackendType(b.Type)}
	switch b.Type {
	case v1alpha1.BackendRedis:
		if b.Redis != nil {
			c.Redis = redis(b.Redis)
		}
	case v1alpha1.BackendMemcached:
		if b.Memcached != nil {
			c.Memcached = &config.Memcached{Addresses: addresses(b.Memcached.Addresses)}
		}
	case v1alpha1.BackendDynamoDB:
		if b.DynamoDB != nil {
			c.DynamoDB = dynamodb(b.DynamoDB)
		}
	case v1alpha1.BackendDatabase:
		if b.Database != nil {
			c.Database = database(b.Database)
		}
	case v1alpha1.BackendFile:
		c.File = &config.File{Directory: dataDirectory + "/carts"}
	case v1alpha1.BackendMemory:
		c.Memory = &config.Memory{}
	}
	return c
}

func redis(r *v1alpha1.RedisBackend) *config.Redis {
	c := &config.Redis{
		Addresses:  addresses(r.Addresses),
		Mode:       config.RedisMode(cmp.Or(r.Mode, v1alpha1.RedisStandalone)),
		MasterName: r.MasterName,
		Database:   int(r.Database),
		Namespace:  r.Namespace,

		MinReplicas: int(r.MinReplicas),
	}
	c.UsernameFile, c.PasswordFile = redisFiles(r.CredentialsSecretRef)
	c.SentinelUsernameFile, c.SentinelPasswordFile = redisFiles(r.SentinelCredentialsSecretRef)
	if t := r.TLS; t.On() {
		c.TLS = config.TLS{Enabled: true, ServerName: t.ServerName, InsecureSkipVerify: t.InsecureSkipVerify}
		c.TLS.CAFile, c.TLS.CertFile, c.TLS.KeyFile = tlsFiles(t.CASecretRef, t.CertificateSecretRef)
	}
	return c
}

func dynamodb(d *v1alpha1.DynamoDBBackend) *config.DynamoDB {
	c := &config.DynamoDB{TableName: d.TableName, Region: d.Region, Endpoint: d.Endpoint, CreateTable: d.CreateTable}
	if ref := d.CredentialsSecretRef; ref != nil {
		id, secret := awsKeys(ref)
		c.AccessKeyIDFile, c.SecretAccessKeyFile = secretFile(ref.Name, id), secretFile(ref.Name, secret)
	}
	return c
}

func database(d *v1alpha1.DatabaseBackend) *config.Database {
	if d.Dialect == v1alpha1.SQLite {
		return &config.Database{URL: "sqlite:" + dataDirectory + "/carts.db"}
	}
	c := &config.Database{}
	if ref := d.CredentialsSecretRef; ref != nil {
		user, password := databaseKeys(ref)
		c.UsernameFile, c.PasswordFile = secretFile(ref.Name, user), secretFile(ref.Name, password)
	}
	if ref := d.URLSecretRef; ref != nil {
		c.URLFile = secretFile(ref.Name, urlKey(ref))
		return c
	}
	u := url.URL{Scheme: "postgres", Host: d.Host, Path: "/" + d.Name}
	defaultPort := int32(5432)
	if d.Dialect == v1alpha1.MySQL {
		u.Scheme, defaultPort = "mysql", 3306
	}
	u.Host = net.JoinHostPort(d.Host, strconv.Itoa(int(cmp.Or(d.Port, defaultPort))))
	c.URL = config.URL(u.String())
	if t := d.TLS; t.On() {
		c.TLS = config.TLS{Enabled: true, InsecureSkipVerify: t.InsecureSkipVerify}
		c.TLS.CAFile, c.TLS.CertFile, c.TLS.KeyFile = tlsFiles(t.CASecretRef, t.CertificateSecretRef)
	}
	return c
}

func addresses(in []v1alpha1.Address) []string {
	out := make([]string, len(in))
	for i, a := range in {
		out[i] = string(a)
	}
	return out
}
