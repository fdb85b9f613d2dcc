package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks to stop, a second one ends the process.
	context.AfterFunc(ctx, stop)
	err := Run(ctx, os.Args[1:], os.Getenv, os.Stdin, os.Stdout)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "shop:", err)
		os.Exit(1)
	}
}

const usage = `A small shop that keeps its carts in the Sidecart sidecar beside it.

Usage:
  shop [serve] [--address :8080]       serve the shop
  shop load [flags]                    add items and keep account of what was acknowledged
  shop check [FILE...]                 compare accounts, from files or standard input, with the carts
  shop add CART ITEM [QUANTITY]        add an item to a cart
  shop show CART                       print a cart
  shop init                            note in the sidecar that this pod starts; for an init container

SIDECART_HTTP_URL is the address of the sidecar (default http://127.0.0.1:7421).
"shop load --help" and so on list the flags of one command.
`

// Run runs one command until it is done or the context ends. An error says why it failed.
func Run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout io.Writer) error {
	url := getenv("SIDECART_HTTP_URL")
	if url == "" {
		url = "http://127.0.0.1:7421"
	}
	carts := newCarts(strings.TrimRight(url, "/"))
	defer carts.client.CloseIdleConnections()
	command := "serve"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		command, args = args[0], args[1:]
	}
	if len(args) > 0 && (args[0] == "-h" || args[0] == "--help") && command == "serve" {
		command = "help"
	}
	switch command {
	case "serve":
		return runServe(ctx, carts, args, stdout)
	case "load":
		return runLoad(ctx, carts, args, stdout)
	case "check":
		return runCheck(ctx, carts, args, stdin, stdout)
	case "add":
		return runAdd(ctx, carts, args, stdout)
	case "show":
		return runShow(ctx, carts, args, stdout)
	case "init":
		return runInit(ctx, carts, stdout)
	case "help":
		_, err := io.WriteString(stdout, usage)
		return err
	}
	return fmt.Errorf("no command is called %q; see shop help", command)
}

// parse reads the flags of a command, and prints them to stdout if help is wanted.
func parse(flags *flag.FlagSet, args []string, stdout io.Writer) error {
	flags.SetOutput(io.Discard) // main prints the error
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		flags.SetOutput(stdout)
		flags.PrintDefaults()
	}
	return err
}

func runAdd(ctx context.Context, carts *carts, args []string, stdout io.Writer) error {
	if len(args) != 2 && len(args) != 3 {
		return errors.New("add: give a cart, an item and, if it is not 1, a quantity")
	}
	item := item{ID: args[1], Quantity: 1}
	if len(args) == 3 {
		if _, err := fmt.Sscanf(args[2], "%d", &item.Quantity); err != nil || item.Quantity < 1 {
			return fmt.Errorf("add: the quantity must be a whole number from 1, not %q", args[2])
		}
	}
	raw, err := carts.add(ctx, "", args[0], item)
	if err == nil {
		fmt.Fprintf(stdout, "%s\n", raw)
	}
	return err
}

func runShow(ctx context.Context, carts *carts, args []string, stdout io.Writer) error {
	if len(args) != 1 {
		return errors.New("show: give a cart")
	}
	raw, err := carts.do(ctx, "", "GET", cartPath(args[0]), nil)
	if err == nil {
		fmt.Fprintf(stdout, "%s\n", raw)
	}
	return err
}

// runInit is for an init container. It fails if no sidecar serves yet: it is there to show that one does.
func runInit(ctx context.Context, carts *carts, stdout io.Writer) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	value := map[string]any{"value": map[string]string{"pod": host, "at": time.Now().UTC().Format(time.RFC3339)}}
	raw, err := carts.do(ctx, "", "PUT", cartPath("shop")+"/metadata/lastStart", value)
	if err == nil {
		fmt.Fprintf(stdout, "%s\n", raw)
	}
	return err
}
