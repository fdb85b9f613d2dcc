// Command forward is a TCP proxy, as a pod has one beside its app to reach a database: it listens on the first argument and
// connects each caller to the second.
package main

import (
	"io"
	"log/slog"
	"net"
	"os"
)

func main() {
	l, err := net.Listen("tcp", os.Args[1])
	for err == nil {
		var near net.Conn
		if near, err = l.Accept(); err == nil {
			go join(near, os.Args[2])
		}
	}
	slog.Error("ended", "error", err)
	os.Exit(1)
}

// join copies both ways until either side ends.
func join(near net.Conn, address string) {
	defer near.Close()
	far, err := net.Dial("tcp", address)
	if err != nil {
		slog.Error("no connection", "error", err)
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
