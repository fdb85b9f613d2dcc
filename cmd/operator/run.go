package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"regexp"
	"runtime/debug"
	"syscall"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/controller"
)

// Exit codes, as the documentation of this command promises them.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// version is set by the linker.
var version string

// Run is the whole program: it does what args ask for and returns the exit code. The end of ctx stops it as gracefully
// as SIGTERM does.
func Run(ctx context.Context, args, env []string, stdout, stderr io.Writer) int {
	s := &settings{}
	environment := config.Environment(env)
	flags := s.flags(environment)
	err := flags.Parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		_, _ = fmt.Fprintf(stdout, helpText, flags.FlagUsages())
		return exitOK
	case err != nil:
		return usage(stderr, err)
	case flags.NArg() == 1 && flags.Arg(0) == "version", flags.NArg() == 0 && s.version:
		_, _ = fmt.Fprintln(stdout, "operator", versionText())
		return exitOK
	case flags.NArg() == 1 && flags.Arg(0) == "check":
		if err := check(ctx, environment["SIDECART_HTTP_URL"], stdout); err != nil {
			_, _ = fmt.Fprintf(stderr, "operator: %s\n", err)
			return exitFailed
		}
		return exitOK
	case flags.NArg() > 0:
		return usage(stderr, fmt.Errorf("%q is no command: there are check and version", flags.Arg(0)))
	}
	if err := s.check(); err != nil {
		return usage(stderr, err)
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := operate(ctx, s, environment, stderr); err != nil {
		_, _ = fmt.Fprintf(stderr, "operator: %s\n", err)
		return exitFailed
	}
	return exitOK
}

func usage(stderr io.Writer, err error) int {
	_, _ = fmt.Fprintf(stderr, "operator: %s\noperator --help says what is possible.\n", err)
	return exitUsage
}

// operate works until ctx ends.
func operate(ctx context.Context, s *settings, env map[string]string, stderr io.Writer) error {
	logger := s.logger(stderr)
	o := s.options()
	o.Logger = logr.FromSlogHandler(logger.Handler())
	log.SetLogger(o.Logger)
	klog.SetLogger(o.Logger)
	warnVariables(logger, env)

	rc, err := restConfig(s.kubeconfig)
	if err != nil {
		return err
	}
	if o.SidecarImage == "" {
		logger.Warn("no --sidecar-image: a CartStorage without spec.sidecar.image gives no sidecar")
	}
	if len(o.SidecarImages) == 0 {
		logger.Info("no --sidecar-image-allow: who may write CartStorages may have any image run in the pods of their namespace")
	}
	mgr, err := controller.New(ctx, rc, o)
	if err != nil {
		return err
	}
	logger.Info("operator starts", "version", versionText(), "namespace", o.Namespace)
	return mgr.Start(ctx)
}

// ownVariable finds the environment variable that the usage of a flag names.
var ownVariable = regexp.MustCompile(`\[(SIDECART_[A-Z_]+)\]`)

// warnVariables logs variables whose names are misspelt, without their values.
func warnVariables(logger *slog.Logger, env map[string]string) {
	var known []string
	for _, m := range ownVariable.FindAllStringSubmatch(new(settings).flags(env).FlagUsages(), -1) {
		known = append(known, m[1])
	}
	for _, v := range config.UnknownVariables(env, known) {
		logger.Warn(v.Warning(), "variable", v.Name)
	}
}

// restConfig says how to reach the API server: as a kubeconfig file says, or as a pod does.
func restConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		return rest.InClusterConfig()
	}
	return clientcmd.BuildConfigFromFlags("", kubeconfig)
}

func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "dev"
}
