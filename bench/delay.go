package main

import (
	"context"
	"net"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// delayProxy passes TCP through and holds every chunk back for the same time, each way.
//
// A Go timer is not precise enough for that: an idle runtime sleeps in epoll_wait, whose unit is a millisecond. As the
// delay is the same for all, chunks leave in the order in which they came, so that one thread serves all connections
// and sleeps by clock_nanosleep.
type delayProxy struct {
	addr     string
	target   string
	oneWay   atomic.Int64 // nanoseconds
	listener net.Listener
	queue    chan chunk
}

// chunk is what one read brought; no data means that the sender has closed.
type chunk struct {
	due  int64
	to   *net.TCPConn
	data []byte
}

func startDelayProxy(target string) (*delayProxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &delayProxy{addr: l.Addr().String(), target: target, listener: l, queue: make(chan chunk, 1024)}
	go p.accept()
	go p.deliver()
	return p, nil
}

func (p *delayProxy) close() { p.listener.Close() }

func (p *delayProxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := new(net.Dialer).DialContext(context.Background(), "tcp", p.target)
		if err != nil {
			client.Close()
			continue
		}
		go p.pump(client.(*net.TCPConn), server.(*net.TCPConn))
		go p.pump(server.(*net.TCPConn), client.(*net.TCPConn))
	}
}

func (p *delayProxy) pump(from, to *net.TCPConn) {
	for {
		buf := make([]byte, 16<<10)
		n, err := from.Read(buf)
		due := monotonic() + p.oneWay.Load()
		if n > 0 {
			p.queue <- chunk{due, to, buf[:n]}
		}
		if err != nil {
			p.queue <- chunk{due, to, nil}
			return
		}
	}
}

func (p *delayProxy) deliver() {
	runtime.LockOSThread()
	// By default the kernel may be late by 50 µs, to gather wake-ups.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	for c := range p.queue {
		sleepUntil(c.due)
		if c.data == nil {
			_ = c.to.CloseWrite()
			continue
		}
		_, _ = c.to.Write(c.data) // a receiver that has gone closes the other way too
	}
}

func monotonic() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return t.Nano()
}

func sleepUntil(due int64) {
	t := unix.NsecToTimespec(due)
	for unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &t, nil) == unix.EINTR {
		continue
	}
}

// calibrate sets the delay so that a round trip through the proxy takes longer than one past it by want, which includes
// what the proxy itself costs. ping makes one round trip.
func (p *delayProxy) calibrate(want time.Duration, direct, through func() error) (time.Duration, error) {
	base, err := medianOf(201, direct)
	if err != nil {
		return 0, err
	}
	p.oneWay.Store(int64(want) / 2)
	var added time.Duration
	for range 4 {
		d, err := medianOf(201, through)
		if err != nil {
			return 0, err
		}
		added = d - base
		p.oneWay.Add(int64(want-added) / 2)
	}
	d, err := medianOf(201, through)
	return d - base, err
}

func medianOf(n int, f func() error) (time.Duration, error) {
	ds := make([]time.Duration, n)
	for i := range ds {
		start := time.Now()
		if err := f(); err != nil {
			return 0, err
		}
		ds[i] = time.Since(start)
	}
	return quantile(ds, 0.5), nil
}
