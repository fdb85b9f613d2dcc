package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sidecart/sidecart/internal/controller"
	"github.com/sidecart/sidecart/internal/render"
)

// settings are the command line.
type settings struct {
	kubeconfig, namespace, sidecarImage string
	leaderElect                         bool
	metricsAddress, probeAddress        string
	webhookPort                         int
	webhookCertDir, webhookClientCA     string
	sidecarImages                       []string
	namespaces                          []string
	webhookConfiguration                string
	webhookSecret, webhookService       string
	resync                              time.Duration
	workers                             int
	logLevel, logFormat                 string
	version                             bool
}

const helpText = `Operator gives pods a sidecar with a cart store, and keeps its configuration true.

Usage:
  operator [flags]   run until SIGTERM or SIGINT
  operator check     put, read and remove a cart by the sidecar of this pod, at
                     SIDECART_HTTP_URL; what helm test runs
  operator version   say the version, as --version does

A pod asks for a sidecar by the label sidecart.dev/inject, whose value is the name
of a CartStorage in its namespace.

Flags:
%s
Exit codes:
  0  stopped gracefully
  1  running or the check failed, or another replica became leader
  2  the command line is wrong
`

func (s *settings) flags(env map[string]string) *pflag.FlagSet {
	f := pflag.NewFlagSet("operator", pflag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	f.SortFlags = false
	f.StringVar(&s.sidecarImage, "sidecar-image", env["SIDECART_SIDECAR_IMAGE"], "`image` of the sidecar where a CartStorage names none [SIDECART_SIDECAR_IMAGE]")
	f.StringSliceVar(&s.sidecarImages, "sidecar-image-allow", list(env["SIDECART_SIDECAR_IMAGE_ALLOW"]), "`images` that a CartStorage may name beside that one: with tag or digest this one, without any of it, and a beginning that ends in / or * all that begin so; none given is any image [SIDECART_SIDECAR_IMAGE_ALLOW]")
	f.StringVar(&s.namespace, "namespace", cmp.Or(env["POD_NAMESPACE"], "sidecart-system"), "`namespace` of the operator, with its lease and certificate [POD_NAMESPACE]")
	f.StringSliceVar(&s.namespaces, "namespaces", list(env["SIDECART_NAMESPACES"]), "`names` of the namespaces to keep, where the operator has Roles in place of ClusterRoles; none given is all [SIDECART_NAMESPACES]")
	f.StringVar(&s.kubeconfig, "kubeconfig", env["KUBECONFIG"], "`file` that says how to reach the API server; without it as pods do [KUBECONFIG]")
	f.BoolVar(&s.leaderElect, "leader-elect", true, "let one of several replicas write; all serve the webhook")
	f.StringVar(&s.metricsAddress, "metrics-address", ":8080", "`address` of /metrics; 0 for none")
	f.StringVar(&s.probeAddress, "probe-address", ":8081", "`address` of /healthz and /readyz; 0 for none")
	f.IntVar(&s.webhookPort, "webhook-port", 9443, "`port` of the webhook")
	f.StringVar(&s.webhookConfiguration, "webhook-configuration", "sidecart", "`name` of the MutatingWebhookConfiguration and of the ValidatingWebhookConfiguration")
	f.StringVar(&s.webhookService, "webhook-service", "sidecart-operator", "`name` of the Service in front of the webhook")
	f.StringVar(&s.webhookSecret, "webhook-secret", "sidecart-webhook-certificate", "`name` of the Secret where the operator keeps the webhook's certificate")
	f.StringVar(&s.webhookCertDir, "webhook-cert-dir", "", "`folder` with tls.crt and tls.key that somebody else renews, such as cert-manager; the operator then makes none")
	f.StringVar(&s.webhookClientCA, "webhook-client-ca-file", "", "`file` with the authorities of which callers of the webhook must show a certificate; without it every caller is answered")
	f.DurationVar(&s.resync, "resync", 15*time.Second, "how often to ask sidecars that should have nothing new to say")
	f.IntVar(&s.workers, "workers", 8, "how many CartStorages to work on at once")
	f.StringVar(&s.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&s.logFormat, "log-format", "json", "json or text")
	f.BoolVar(&s.version, "version", false, "say the version")
	return f
}

// check returns everything that is wrong.
func (s *settings) check() error {
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	names := []struct{ flag, value string }{
		{"namespace", s.namespace}, {"webhook-configuration", s.webhookConfiguration}, {"webhook-service", s.webhookService}, {"webhook-secret", s.webhookSecret},
	}
	for _, n := range names {
		if p := validation.IsDNS1123Subdomain(n.value); len(p) > 0 {
			refuse("--%s: %q is no name of a Kubernetes object: %s", n.flag, n.value, p[0])
		}
	}
	for _, n := range s.namespaces {
		if p := validation.IsDNS1123Label(n); len(p) > 0 {
			refuse("--namespaces: %q is no name of a namespace: %s", n, p[0])
		}
	}
	for _, a := range []struct{ flag, value string }{{"metrics-address", s.metricsAddress}, {"probe-address", s.probeAddress}} {
		if _, _, err := net.SplitHostPort(a.value); err != nil && a.value != "0" {
			refuse("--%s: %q is no address: write for example :8080, or 0 for none", a.flag, a.value)
		}
	}
	if _, err := render.ParseImages(s.sidecarImages); err != nil {
		refuse("--sidecar-image-allow: %w", err)
	}
	if s.webhookPort < 1 || s.webhookPort > 65535 {
		refuse("--webhook-port: %d is no port: write 1 to 65535", s.webhookPort)
	}
	if s.resync < time.Second {
		refuse("--resync: %s is too often: write 1s or more", s.resync)
	}
	if s.workers < 1 || s.workers > 256 {
		refuse("--workers: %d is out of range: write 1 to 256", s.workers)
	}
	if err := new(slog.Level).UnmarshalText([]byte(s.logLevel)); err != nil {
		refuse("--log-level: %q is not a log level: write debug, info, warn or error", s.logLevel)
	}
	if s.logFormat != "json" && s.logFormat != "text" {
		refuse("--log-format: %q is not a log format: write json or text", s.logFormat)
	}
	return errors.Join(errs...)
}

// options are the operator's options.
func (s *settings) options() controller.Options {
	service := s.webhookService + "." + s.namespace + ".svc"
	images, _ := render.ParseImages(s.sidecarImages) // they were checked
	return controller.Options{
		Namespace:      s.namespace,
		Namespaces:     s.namespaces,
		SidecarImage:   s.sidecarImage,
		SidecarImages:  images,
		LeaderElection: s.leaderElect,
		MetricsAddress: s.metricsAddress,
		ProbeAddress:   s.probeAddress,
		Resync:         s.resync,
		Workers:        s.workers,
		Webhook: controller.WebhookOptions{
			Port:          s.webhookPort,
			CertDir:       s.webhookCertDir,
			ClientCAFile:  s.webhookClientCA,
			Configuration: s.webhookConfiguration,
			Secret:        s.webhookSecret,
			Hosts:         []string{service},
		},
	}
}

func (s *settings) logger(w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(s.logLevel)) // it was checked
	o := &slog.HandlerOptions{Level: level}
	if s.logFormat == "text" {
		return slog.New(slog.NewTextHandler(w, o))
	}
	return slog.New(slog.NewJSONHandler(w, o))
}

// list is the elements of a value of the environment.
func list(value string) []string {
	return strings.FieldsFunc(value, func(r rune) bool { return r == ',' })
}
