// Command forward is a TCP proxy, as a pod has one beside its app to reach a database: it listens on the first argument
// and connects each caller to the second.
package main

import (
	"io"
	"log/slog"
	"net"
	"os"
)

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	l, err := net.Listen("tcp", os.Args[1])
	for err == nil {
		var near net.Conn
		if near, err = l.Accept(); err == nil {
			go join(log, near, os.Args[2])
		}
	}
	log.Error("ended", "error", err)
	os.Exit(1)
}

// join copies both ways until either side ends.
func join(log *slog.Logger, near net.Conn, address string) {
	defer near.Close()
	far, err := net.Dial("tcp", address)
	if err != nil {
		log.Error("no connection", "error", err)
		return
	}
	defer far.Close()
	ended := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		go func() {
			_, _ = io.Copy(way[0], way[1])
			ended <- struct{}{}
		}()
	}
	<-ended
}
