package controller

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/render"
)

// Options are how the operator runs. The zero value of a field is its default
// unless the field says otherwise.
type Options struct {
	// Namespace is the operator's own: its lease and its certificate are there. Required.
	Namespace string
	// SidecarImage is what pods are given where their CartStorage names no image.
	SidecarImage string
	// SidecarImages are what a CartStorage may name beside it; empty is any.
	SidecarImages render.Images
	// Webhook is how pods are given their sidecar.
	Webhook WebhookOptions
	// LeaderElection lets several replicas run, one of which writes.
	LeaderElection bool
	// MetricsAddress and ProbeAddress are where metrics and health are served; "0" is nowhere.
	MetricsAddress, ProbeAddress string
	// Resync is how often a sidecar is asked that should have nothing new to say. One
	// minute by default.
	Resync time.Duration
	// Workers is how many CartStorages are worked on at once. 8 by default.
	Workers int
	// Logger is where log lines go.
	Logger logr.Logger
	// Fetcher asks sidecars for their report; by default over HTTP, at the address of their pod.
	Fetcher Fetcher

	// shared lets tests run several operators in one process.
	shared bool
}

// WebhookOptions are how the webhook is served.
type WebhookOptions struct {
	// Host and Port are where it listens: all addresses and 9443 by default. A negative
	// port is nowhere.
	Host string
	Port int
	// CertDir has tls.crt and tls.key, which somebody else renews. If it is empty, the
	// operator makes its own certificate.
	CertDir string
	// Configuration is the name of the MutatingWebhookConfiguration, Secret that of
	// the Secret with the certificate, and Hosts are the names by which the API server
	// calls. Required where CertDir is empty.
	Configuration, Secret string
	Hosts                 []string
	// ClientCAFile has the authorities of which callers must show a certificate. If it is empty, whoever
	// reaches the port is answered.
	ClientCAFile string
}

// Scheme knows the types of Kubernetes and our own.
func Scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(s), v1alpha1.AddToScheme(s)); err != nil {
		panic(err) // both are generated
	}
	return s
}

// New is an operator that works when it is started. It does not touch c.
func New(ctx context.Context, c *rest.Config, o Options) (ctrl.Manager, error) {
	if o.Namespace == "" {
		return nil, errors.New("the operator must know its own namespace")
	}
	if o.Resync == 0 {
		o.Resync = time.Minute
	}
	if o.Workers == 0 {
		o.Workers = 8
	}
	if o.Fetcher == nil {
		o.Fetcher = NewHTTPFetcher(askTimeout)
	}
	c = rest.CopyConfig(c)
	// The API server has priority and fairness to defend itself; a limit here would only make
	// pods wait for their new configuration.
	c.QPS = -1

	certificates := &Certificates{now: time.Now}
	var clients *clientCAs
	if o.Webhook.ClientCAFile != "" {
		var err error
		if clients, err = newClientCAs(o.Webhook.ClientCAFile); err != nil {
			return nil, err
		}
	}
	mgr, err := ctrl.NewManager(c, managerOptions(&o, certificates, clients))
	if err != nil {
		return nil, err
	}
	if err := addIndexes(ctx, mgr.GetFieldIndexer()); err != nil {
		return nil, err
	}
	r := &Reconciler{
		client: mgr.GetClient(),
		live:   mgr.GetAPIReader(),
		images: o.SidecarImages.With(o.SidecarImage),
		events: mgr.GetEventRecorder("sidecart-operator"),
		now:    time.Now,
		census: newCensus(o.Fetcher, o.Resync),
	}
	w := &workers{now: time.Now}
	if err := r.setup(mgr, w.options(o.Workers)); err != nil {
		return nil, err
	}
	if o.Webhook.Port >= 0 {
		if err := addWebhook(mgr, &o, certificates, clients, w); err != nil {
			return nil, err
		}
	}
	return mgr, mgr.AddHealthzCheck("workers", w.advance)
}

func managerOptions(o *Options, certificates *Certificates, clients *clientCAs) ctrl.Options {
	server := webhook.Options{Host: o.Webhook.Host, Port: o.Webhook.Port, CertDir: o.Webhook.CertDir}
	server.TLSOpts = append(server.TLSOpts, func(c *tls.Config) {
		c.MinVersion = tls.VersionTLS12
		// By HTTP/2 a stranger would have a megabyte buffered per connection before any of it is looked at.
		c.NextProtos = []string{"http/1.1"}
		if o.Webhook.CertDir == "" {
			c.GetCertificate = certificates.GetCertificate
		}
		if clients != nil {
			clients.configure(c)
		}
	})
	caches := cacheOptions()
	if o.Webhook.Configuration != "" {
		caches.ByObject[&admissionv1.MutatingWebhookConfiguration{}] = cache.ByObject{
			Field: fields.OneTermEqualSelector("metadata.name", o.Webhook.Configuration),
		}
	}
	return ctrl.Options{
		Scheme:                        Scheme(),
		Logger:                        o.Logger,
		Cache:                         caches,
		Metrics:                       metricsserver.Options{BindAddress: o.MetricsAddress},
		HealthProbeBindAddress:        o.ProbeAddress,
		WebhookServer:                 webhook.NewServer(server),
		LeaderElection:                o.LeaderElection,
		LeaderElectionID:              "sidecart-operator",
		LeaderElectionNamespace:       o.Namespace,
		LeaderElectionReleaseOnCancel: true, // the process ends with the manager
		Controller:                    config.Controller{SkipNameValidation: &o.shared},
	}
}

func addWebhook(mgr ctrl.Manager, o *Options, certificates *Certificates, clients *clientCAs, w *workers) error {
	injector := &Injector{
		client: mgr.GetClient(), live: mgr.GetAPIReader(),
		image: o.SidecarImage, images: o.SidecarImages.With(o.SidecarImage), misses: misses{now: time.Now},
	}
	if clients == nil {
		o.Logger.Info("the webhook answers whoever reaches its port, and so tells the names in a CartStorage to who knows that of it: --webhook-client-ca-file has it answer API servers with a certificate only")
	}
	server := mgr.GetWebhookServer()
	server.Register(InjectPath, newGuard(&webhook.Admission{Handler: injector}, clients))
	if o.Webhook.CertDir == "" {
		if o.Webhook.Configuration == "" || o.Webhook.Secret == "" || len(o.Webhook.Hosts) == 0 {
			return errors.New("to make its own certificate, the operator must know the webhook's configuration, the Secret and the names of the service")
		}
		certificates.client, certificates.live = mgr.GetClient(), mgr.GetAPIReader()
		certificates.secret = client.ObjectKey{Namespace: o.Namespace, Name: o.Webhook.Secret}
		certificates.webhook, certificates.hosts = o.Webhook.Configuration, o.Webhook.Hosts
		if err := certificates.setup(mgr, w.options(1)); err != nil {
			return err
		}
		if err := mgr.AddReadyzCheck("certificate", certificates.Ready); err != nil {
			return err
		}
	}
	return errors.Join(
		mgr.AddReadyzCheck("webhook", server.StartedChecker()),
		mgr.AddReadyzCheck("cache", func(req *http.Request) error {
			ctx, cancel := context.WithTimeout(req.Context(), time.Second)
			defer cancel()
			if !mgr.GetCache().WaitForCacheSync(ctx) {
				return fmt.Errorf("the cache is not filled yet")
			}
			return nil
		}),
	)
}
