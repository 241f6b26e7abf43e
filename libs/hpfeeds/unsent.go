package hpfeeds

import (
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tune makes a TCP connection notice a peer that is gone. Small frames go out at once (TCP_NODELAY is on by default).
func tune(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3})
	_ = control(tcp, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(writeSilence.Milliseconds()))
	})
}

// errNoSocket is Unsent's answer on something else than a socket.
var errNoSocket = errors.New("the connection is no socket of the kernel's")

// unacknowledged returns how many bytes the kernel holds that the peer's kernel has not acknowledged (tcp(7), SIOCOUTQ).
func unacknowledged(conn net.Conn) (n int, err error) {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return 0, errNoSocket
	}
	err = control(socket, func(fd int) (err error) {
		n, err = unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		return err
	})
	return n, err
}

func control(conn syscall.Conn, do func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = do(int(fd)) }); err != nil {
		return err
	}
	return failed
}
