package hpfeedstest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"spamtraps.internal/libs/hpfeeds"
	"spamtraps.internal/libs/secret"
)

// TB is what is used of a test.
type TB interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Cleanup(f func())
	TempDir() string
}

// Running is a broker or a script that listens on a port of loopback's until the test ends.
type Running struct {
	*Broker // nil for a script
	Host    string
	Port    int
}

// Config returns how a user connects to it.
func (r *Running) Config(ident, password string, channels ...string) hpfeeds.Config {
	return configFor(r.Port, ident, password, channels)
}

func configFor(port int, ident, password string, channels []string) hpfeeds.Config {
	cfg := hpfeeds.Defaults()
	cfg.Host, cfg.Port, cfg.Ident, cfg.Secret = "127.0.0.1", port, ident, secret.New(password)
	if len(channels) > 0 {
		cfg.Channels = channels
	}
	return cfg
}

// Start starts a broker within the process.
func Start(t TB, cfg Config) *Running {
	t.Helper()
	listener := listen(t)
	broker := New(cfg)
	ended := make(chan error, 1)
	go func() { ended <- broker.Serve(listener) }()
	t.Cleanup(func() {
		_ = broker.Close()
		if err := <-ended; err != nil {
			t.Fatalf("hpfeeds broker: %v", err)
		}
	})
	return &Running{Broker: broker, Host: "127.0.0.1", Port: port(listener)}
}

func listen(t TB) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it does not wait
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

func port(listener net.Listener) int { return listener.Addr().(*net.TCPAddr).Port }

// Process is a broker in a process of its own, so that it can be killed. The test binary itself is that process: its TestMain calls Main first.
type Process struct {
	Port int

	t       TB
	folder  string
	command *exec.Cmd
	exited  chan struct{}
}

// settings are what a process can be told of Config.
type settings struct {
	Port      int
	Users     map[string]User
	Manners   Manners
	MaxFrame  int
	Hold      map[string]int
	Exact     bool
	SlowLimit time.Duration
}

const processVariable = "SPAMTRAPS_HPFEEDSTEST"

// Main is the broker, and does not return, in a process that StartProcess has started; in any other it does nothing.
func Main() {
	path := os.Getenv(processVariable)
	if path == "" {
		return
	}
	fmt.Fprintln(os.Stderr, "hpfeedstest:", serveProcess(path))
	os.Exit(1)
}

func serveProcess(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var s settings
	if err := json.Unmarshal(raw, &s); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port))) //nolint:noctx // it does not wait
	if err != nil {
		return err
	}
	go func() { // it does not outlive the tests
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	return New(Config{Users: s.Users, Manners: s.Manners, MaxFrame: s.MaxFrame, Hold: s.Hold, Exact: s.Exact, SlowLimit: s.SlowLimit}).Serve(listener)
}

// StartProcess starts a broker in a process of its own; it is killed when the test ends. Of cfg it takes Users, with their secrets, Manners,
// MaxFrame, Hold, Exact and SlowLimit.
func StartProcess(t TB, cfg Config) *Process {
	t.Helper()
	p := &Process{Port: steadyPort(t), t: t, folder: t.TempDir()}
	raw, err := json.Marshal(settings{
		Port: p.Port, Users: cfg.Users, Manners: cfg.Manners, MaxFrame: cfg.MaxFrame, Hold: cfg.Hold, Exact: cfg.Exact, SlowLimit: cfg.SlowLimit,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.path(), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	p.Start()
	t.Cleanup(p.Kill)
	return p
}

// steadyPort returns a port that nobody listens on, and that stays free while the process is dead: the kernel gives outgoing connections, and
// listeners at port 0, ports from 32768 on.
func steadyPort(t TB) int {
	t.Helper()
	for range 100 {
		n := 10_000 + rand.IntN(22_000)
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(n))) //nolint:noctx // it does not wait
		if err == nil {
			_ = listener.Close()
			return n
		}
	}
	t.Fatal("no port is free")
	return 0
}

func (p *Process) path() string { return filepath.Join(p.folder, "broker.json") }

// Config returns how a user connects to it.
func (p *Process) Config(ident, password string, channels ...string) hpfeeds.Config {
	return configFor(p.Port, ident, password, channels)
}

// Start starts the process again after Kill, on the same port, and returns when it greets.
func (p *Process) Start() {
	p.t.Helper()
	program, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	p.command = exec.Command(program) //nolint:noctx // Kill ends it
	p.command.Env = append(os.Environ(), processVariable+"="+p.path())
	p.command.Stdout, p.command.Stderr = os.Stderr, os.Stderr
	if _, err := p.command.StdinPipe(); err != nil { // its end tells the broker that the tests are gone
		p.t.Fatal(err)
	}
	if err := p.command.Start(); err != nil {
		p.t.Fatal(err)
	}
	exited := make(chan struct{})
	p.exited = exited
	command := p.command
	go func() {
		_ = command.Wait()
		close(exited)
	}()
	if err := p.await(); err != nil {
		p.t.Fatal(err)
	}
}

// await waits until the broker greets.
func (p *Process) await() error {
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		select {
		case <-p.exited:
			return errors.New("the hpfeeds broker has ended by itself")
		default:
		}
		if p.greets() {
			return nil
		}
		time.Sleep(5 * time.Millisecond) // another process: there is nothing to wait for
	}
	return errors.New("the hpfeeds broker does not greet")
}

func (p *Process) greets() bool {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p.Port)), time.Second) //nolint:noctx // it is short
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	f, err := hpfeeds.NewReader(conn, 0).Next()
	return err == nil && f.Op == hpfeeds.OpInfo
}

// Signal sends the process a signal: SIGSTOP and SIGCONT freeze it and let it go on. After SIGSTOP it returns when all of it stands still.
func (p *Process) Signal(signal syscall.Signal) {
	p.t.Helper()
	if err := p.command.Process.Signal(signal); err != nil {
		p.t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); signal == syscall.SIGSTOP && !p.stopped(); time.Sleep(time.Millisecond) { // another process: there is nothing to wait for
		if time.Now().After(deadline) {
			p.t.Fatal("the hpfeeds broker does not stop")
		}
	}
}

// stopped tells whether every thread of the process is in the state T (proc(5)).
func (p *Process) stopped() bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.command.Process.Pid))
	for _, thread := range threads {
		stat, err := os.ReadFile(thread)
		if _, state, _ := strings.Cut(string(stat), ") "); err != nil || !strings.HasPrefix(state, "T") {
			return false
		}
	}
	return len(threads) > 0
}

// Kill kills the process (SIGKILL) and returns when it is gone. What its kernel has taken for subscribers still reaches them.
func (p *Process) Kill() {
	_ = p.command.Process.Kill()
	<-p.exited
}
