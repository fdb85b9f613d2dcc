//go:build unix

package memcached

import "syscall"

// ended reports whether the other end has closed the connection, which has no answer under way: something can be read,
// which is the end or an error. It sends nothing.
func (s *session) ended() bool {
	conn, ok := s.Conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return true
	}
	silent := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		silent = err == syscall.EAGAIN || err == syscall.EINTR
		return true
	})
	return err != nil || !silent
}
