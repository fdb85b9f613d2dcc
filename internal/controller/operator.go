package controller

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/render"
)

// Options are how the operator runs. The zero value of a field is its default unless the field says otherwise.
type Options struct {
	// Namespace is the operator's own: its lease and its certificate are there. Required.
	Namespace string
	// Namespaces are the namespaces that it looks after; it sees no others. Empty means all.
	Namespaces []string
	// SidecarImage is the image of sidecars whose CartStorage names none.
	SidecarImage string
	// SidecarImages are the other images that a CartStorage may name. Empty means any.
	SidecarImages render.Images
	// Webhook is how pods are given their sidecar.
	Webhook WebhookOptions
	// LeaderElection lets several replicas run, one of which writes.
	LeaderElection bool
	// MetricsAddress and ProbeAddress are where metrics and health are served; "0" is nowhere.
	MetricsAddress, ProbeAddress string
	// Resync is how often a sidecar is asked while nothing changes: every 15 seconds by default. While something
	// changes, all sidecars of a CartStorage are asked every 5 seconds.
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
	// Host and Port are where it listens: all addresses and 9443 by default. A negative port is nowhere.
	Host string
	Port int
	// CertDir has tls.crt and tls.key, which somebody else renews. If it is empty, the operator makes its own
	// certificate.
	CertDir string
	// Configuration is the name of the MutatingWebhookConfiguration and of the ValidatingWebhookConfiguration, Secret
	// that of the Secret with the certificate, and Hosts are the names by which the API server calls. Required where
	// CertDir is empty.
	Configuration, Secret string
	Hosts                 []string
	// ClientCAFile has the authorities that sign the certificates of callers. If it is empty, callers need none.
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

// New returns an operator, which works once it is started. It does not change c.
func New(ctx context.Context, c *rest.Config, o Options) (ctrl.Manager, error) {
	if o.Namespace == "" {
		return nil, errors.New("the operator must know its own namespace")
	}
	if o.Resync == 0 {
		o.Resync = 15 * time.Second
	}
	if o.Workers == 0 {
		o.Workers = 8
	}
	if o.Fetcher == nil {
		o.Fetcher = NewHTTPFetcher(askTimeout)
	}
	c = rest.CopyConfig(c)
	// The API server defends itself by priority and fairness. A limit here would only make pods wait for their new
	// configuration.
	c.QPS = -1

	var clients *clientCAs // nil is anyone
	if o.Webhook.ClientCAFile != "" {
		var err error
		if clients, err = newClientCAs(o.Webhook.ClientCAFile); err != nil {
			return nil, err
		}
	}
	mgr, err := ctrl.NewManager(c, managerOptions(&o))
	if err != nil {
		return nil, err
	}
	if err := addIndexes(ctx, mgr.GetFieldIndexer()); err != nil {
		return nil, err
	}
	r := &Reconciler{
		client: mgr.GetClient(),
		live:   mgr.GetAPIReader(),
		image:  o.SidecarImage,
		images: o.SidecarImages.With(o.SidecarImage),
		events: mgr.GetEventRecorder("sidecart-operator"),
		news:   newNews(time.Now),
		now:    time.Now,
		own:    o.Namespace,
		census: newCensus(o.Fetcher, o.Resync),
	}
	w := &workers{now: time.Now}
	if err := r.setup(mgr, w.options(o.Workers)); err != nil {
		return nil, err
	}
	checks := &checks{live: map[string]healthz.Checker{"workers": func(r *http.Request) error {
		err := w.advance(r)
		if err != nil {
			o.Logger.Error(err, "workers do not advance: this replica is to be started anew")
		}
		return err
	}}, ready: map[string]healthz.Checker{}}
	if o.Webhook.Port >= 0 {
		if err := addWebhook(mgr, &o, r, clients, w, checks); err != nil {
			return nil, err
		}
	}
	return mgr, addPorts(mgr, &o, checks)
}

// checks are what the probes ask.
type checks struct{ live, ready map[string]healthz.Checker }

// addPorts serves metrics and health.
func addPorts(mgr ctrl.Manager, o *Options, c *checks) error {
	scrapes := promhttp.HandlerFor(metrics.Registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError, MaxRequestsInFlight: mostScrapes})
	metrics, probes := http.NewServeMux(), http.NewServeMux()
	metrics.Handle("/metrics", scrapes)
	for path, checks := range map[string]map[string]healthz.Checker{"/healthz": c.live, "/readyz": c.ready} {
		handler := http.StripPrefix(path, &healthz.Handler{Checks: checks})
		probes.Handle(path, handler)
		probes.Handle(path+"/", handler)
	}
	for _, port := range []struct {
		name, address string
		handler       http.Handler
	}{{"metrics", o.MetricsAddress, metrics}, {"probes", o.ProbeAddress, probes}} {
		if port.address == "0" || port.address == "" {
			continue
		}
		server, err := serve(port.name, port.address, port.handler, nil, o.Logger)
		if err != nil {
			return err
		}
		if err := mgr.Add(server); err != nil {
			return err
		}
	}
	return nil
}

func managerOptions(o *Options) ctrl.Options {
	caches := cacheOptions(o.Namespaces)
	if o.Webhook.Configuration != "" {
		ours := cache.ByObject{Field: fields.OneTermEqualSelector("metadata.name", o.Webhook.Configuration)}
		caches.ByObject[&admissionv1.MutatingWebhookConfiguration{}] = ours
		caches.ByObject[&admissionv1.ValidatingWebhookConfiguration{}] = ours
	}
	return ctrl.Options{
		Scheme:                        Scheme(),
		Logger:                        o.Logger,
		Cache:                         caches,
		Metrics:                       metricsserver.Options{BindAddress: "0"}, // see addPorts
		LeaderElection:                o.LeaderElection,
		LeaderElectionID:              "sidecart-operator",
		LeaderElectionNamespace:       o.Namespace,
		LeaderElectionReleaseOnCancel: true, // the process ends with the manager
		Controller:                    config.Controller{SkipNameValidation: &o.shared},
	}
}

func addWebhook(mgr ctrl.Manager, o *Options, r *Reconciler, clients *clientCAs, w *workers, checks *checks) error {
	if clients == nil {
		o.Logger.Info("the webhook answers every caller that reaches its port, and tells it names in a CartStorage: set --webhook-client-ca-file, and only API servers with a certificate are answered")
	}
	secure, err := addCertificate(mgr, o, w, checks)
	if err != nil {
		return err
	}
	if clients != nil {
		clients.configure(secure)
	}
	// Its informer starts with the manager, so that no pod waits for it.
	if _, err := mgr.GetCache().GetInformer(context.Background(), &corev1.LimitRange{}, cache.BlockUntilSynced(false)); err != nil {
		return err
	}
	injector := &Injector{
		client: mgr.GetClient(), live: mgr.GetAPIReader(),
		image: o.SidecarImage, images: o.SidecarImages.With(o.SidecarImage), misses: misses{now: time.Now}, namespaces: o.Namespaces,
	}
	// This server is never started. It is here because only it can count and time the calls.
	mux := http.NewServeMux()
	hooks := webhook.NewServer(webhook.Options{WebhookMux: mux})
	pods := newGuard(&webhook.Admission{Handler: injector}, clients)
	hooks.Register(InjectPath, pods)
	hooks.Register(MovePath, pods.beside(&webhook.Admission{Handler: &Filler{o.Namespaces}}))
	hooks.Register(ReviewPath, pods.beside(&webhook.Admission{Handler: &Reviewer{r, o.Namespaces}}))
	address := net.JoinHostPort(o.Webhook.Host, strconv.Itoa(cmp.Or(o.Webhook.Port, webhook.DefaultPort)))
	server, err := serve("webhook", address, mux, secure, o.Logger)
	if err != nil {
		return err
	}
	var listening atomic.Bool
	server.Server.BaseContext = func(net.Listener) context.Context {
		listening.Store(true)
		return context.Background()
	}
	checks.ready["webhook"] = func(*http.Request) error {
		if !listening.Load() {
			return errors.New("the webhook is not served yet")
		}
		return nil
	}
	checks.ready["cache"] = func(req *http.Request) error {
		ctx, cancel := context.WithTimeout(req.Context(), time.Second)
		defer cancel()
		if !mgr.GetCache().WaitForCacheSync(ctx) {
			return fmt.Errorf("the cache is not filled yet")
		}
		return nil
	}
	return mgr.Add(server)
}

// addCertificate gives the webhook its certificate, and makes the certificate here unless somebody else does.
func addCertificate(mgr ctrl.Manager, o *Options, w *workers, checks *checks) (*tls.Config, error) {
	// With HTTP/2, a megabyte per connection would be buffered for a stranger before any of it is looked at.
	secure := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if o.Webhook.CertDir != "" {
		watcher, err := certwatcher.New(filepath.Join(o.Webhook.CertDir, corev1.TLSCertKey), filepath.Join(o.Webhook.CertDir, corev1.TLSPrivateKeyKey))
		if err != nil {
			return nil, err
		}
		secure.GetCertificate = watcher.GetCertificate
		return secure, mgr.Add(watcher)
	}
	if o.Webhook.Configuration == "" || o.Webhook.Secret == "" || len(o.Webhook.Hosts) == 0 {
		return nil, errors.New("to make its own certificate, the operator must know the webhook's configuration, the Secret and the names of the service")
	}
	certificates := &Certificates{
		client: mgr.GetClient(), live: mgr.GetAPIReader(), now: time.Now,
		secret:  client.ObjectKey{Namespace: o.Namespace, Name: o.Webhook.Secret},
		webhook: o.Webhook.Configuration, hosts: o.Webhook.Hosts,
	}
	secure.GetCertificate = certificates.GetCertificate
	checks.ready["certificate"] = certificates.Ready
	return secure, certificates.setup(mgr, w.options(1))
}
