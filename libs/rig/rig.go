// Package rig gives tests the real servers: it starts the project's own images in containers by the docker command line, and
// hurts them on request. It needs the standard library and a Docker engine, and never skips: a test whose server does not
// start fails with what docker said.
//
// The shared broker serves every test that only wants a vhost of its own. A test that kills, pauses or starves a server has
// a container of its own, which goes when the test ends. Whatever a killed test run left behind goes at the next start.
package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// label marks every container of the rig; its value is the pid of the test process that owns it, or "shared".
	label = "spamtraps.rig"
	// dockerTimeout bounds one call of the docker command line. Starting a broker is waited for elsewhere.
	dockerTimeout = 2 * time.Minute
)

// Docker runs the docker command line and returns its standard output without surrounding space. A failure ends the test.
func Docker(t testing.TB, args ...string) string {
	t.Helper()
	out, err := docker(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func docker(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), dockerTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", args...)
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return "", errors.New("docker is not installed: run `make deps`")
		}
		return "", fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(problem.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// Eventually looks at an outside condition every 20 ms until it holds, and fails the test with what when limit has passed.
// It is for other processes only; what happens inside this one is waited for by channel.
func Eventually(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	if !waitFor(limit, ok) {
		t.Fatalf("after %v still not: %s", limit, what)
	}
}

func waitFor(limit time.Duration, ok func() bool) bool {
	for deadline := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		if ok() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

// Root returns the top folder of the repository: the nearest one upwards that holds go.work.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir
		}
	}
	t.Fatal("no go.work above the test's folder: the rig runs inside the repository only")
	return ""
}

// Image returns the name of one of the project's own images ("rabbitmq", "postfix", "lmtp-collector", …) as Compose uses
// it, after building it when it is not there. An image that is there is taken as it is: `make images` renews them, and
// `make test` begins with that.
func Image(t testing.TB, name string) string {
	t.Helper()
	prefix, version := os.Getenv("SPAMTRAPS_IMAGE_PREFIX"), os.Getenv("SPAMTRAPS_VERSION")
	if prefix == "" {
		prefix = "spamtraps"
	}
	if version == "" {
		version = "dev"
	}
	ref := prefix + "/" + name + ":" + version
	unlock := lock(t)
	defer unlock()
	if _, err := docker("image", "inspect", ref); err == nil {
		return ref
	}
	build := exec.CommandContext(t.Context(), filepath.Join(Root(t), "tools", "images.sh"), name)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build image %s: %v\n%s", ref, err, out)
	}
	return ref
}

// lock keeps two test processes from starting or removing the same container at once. `go test` runs packages side by side.
func lock(t testing.TB) (unlock func()) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(os.TempDir(), "spamtraps-rig.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatalf("lock %s: %v", f.Name(), err)
	}
	return func() { _ = f.Close() }
}

// freePort asks the kernel for a TCP port on loopback that nobody listens on. Somebody may take it before it is used:
// callers try again.
func freePort() (int, error) {
	l, err := listen("127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func listen(address string) (net.Listener, error) {
	return new(net.ListenConfig).Listen(context.Background(), "tcp", address)
}

func dial(address string, timeout time.Duration) (net.Conn, error) {
	return (&net.Dialer{Timeout: timeout}).DialContext(context.Background(), "tcp", address)
}
