package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// blackHole is an address whose queue of connections is full, so that the kernel drops requests for another.
func blackHole(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(name.(*syscall.SockaddrInet4).Port))
	for range 10 {
		c, err := net.DialTimeout("tcp", address, 200*time.Millisecond)
		if err != nil {
			return address
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Fatal("the queue of connections does not fill up")
	return ""
}

// halfOpen puts a proxy before a server, which then passes nothing on and closes nothing.
func halfOpen(t *testing.T, server string, args func(address string) []string) scene {
	t.Helper()
	p := toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), "server", "127.0.0.1:0", server)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return scene{
		args: args(p.Listen),
		strike: func() { // with timeout 0 nothing passes, and nothing is closed
			if _, err := p.Toxics.AddToxicJson(strings.NewReader(`{"name":"drop","type":"timeout","stream":"upstream","attributes":{"timeout":0}}`)); err != nil {
				t.Error(err)
			}
		},
		mend: func() {
			if err := p.Toxics.RemoveToxic(t.Context(), "drop"); err != nil {
				t.Error(err)
			}
		},
	}
}

// smallDisk is a disk of 2 MB.
func smallDisk(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	mountDisk(t, folder, "size=2m")
	return folder
}

// mountDisk mounts a disk on a folder, and unmounts it at the end of the test.
func mountDisk(t *testing.T, folder, options string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, options); err != nil {
		t.Fatalf("mount, which only root may: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(folder, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
}

// readOnly makes the disk of a folder read-only, or lets it be written to again.
func readOnly(t *testing.T, folder string, on bool) {
	t.Helper()
	flags := uintptr(syscall.MS_REMOUNT)
	if on {
		flags |= syscall.MS_RDONLY
	}
	if err := syscall.Mount("tmpfs", folder, "tmpfs", flags, ""); err != nil {
		t.Fatalf("remount: %v", err)
	}
}

// fill leaves no room on the disk of a folder.
func fill(t *testing.T, folder string) {
	t.Helper()
	f, err := os.Create(filler(folder))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	// It writes ever smaller pieces, since a disk refuses a large one whole.
	for _, size := range []int{1 << 20, 4 << 10} {
		for err = nil; err == nil; _, err = f.Write(bytes.Repeat([]byte("x"), size)) {
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("the disk is not full: %v", err)
		}
	}
}

// empty makes room again.
func empty(t *testing.T, folder string) {
	t.Helper()
	if err := os.Remove(filler(folder)); err != nil {
		t.Error(err)
	}
}

func filler(folder string) string { return filepath.Join(folder, "filler") }

// guests are connections that take up the places of a server. Each says hello, and was let in once it is answered.
func guests(t *testing.T, address string, n int, hello string) (leave func()) {
	t.Helper()
	var all []net.Conn
	for range n {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := fmt.Fprint(c, hello); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return func() {
		for _, c := range all {
			_ = c.Close()
		}
	}
}
