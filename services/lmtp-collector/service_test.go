package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"go.uber.org/goleak"

	"spamtraps.internal/libs/daemon"
	"spamtraps.internal/libs/envelope"
	"spamtraps.internal/libs/rig"
	"spamtraps.internal/lmtp-collector/internal/lmtptest"
)

// program is the path of the program, for the tests that kill it.
var program string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "lmtp-collector")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	program = filepath.Join(dir, "lmtp-collector")
	if out, err := exec.CommandContext(context.Background(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v: %s", err, out)
		return 1
	}
	if err := flag.Set("test.parallel", "8"); err != nil { // the tests that are parallel mostly wait, however few cores there are
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if code := m.Run(); code != 0 {
		return code
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// settings are those of a collector that publishes to the broker at url and listens on socket.
func settings(url, socket string) []string {
	return []string{
		"AMQP_URL=" + url,
		"LMTP_LISTEN=unix:" + socket, "ADMIN_ADDR=127.0.0.1:0", "SENSOR=sensor-1", "SHUTDOWN_TIMEOUT=10s",
	}
}

// console is what a program writes, readable while it does.
type console struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all.Write(p)
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all.String()
}

// events returns the logged events with this message.
func (c *console) events(t testing.TB, message string) []map[string]any {
	t.Helper()
	var found []map[string]any
	for line := range strings.Lines(c.String()) {
		if !strings.Contains(line, message) {
			continue
		}
		var event map[string]any
		if err := json.Unmarshal([]byte(line), &event); err == nil && event["message"] == message {
			found = append(found, event)
		}
	}
	return found
}

// process is a collector that can be killed.
type process struct {
	cmd *exec.Cmd
	log *console
}

// launch starts the program with these settings, and returns when it takes connections.
func launch(t testing.TB, env []string) *process {
	t.Helper()
	p := &process{cmd: exec.CommandContext(context.Background(), program), log: new(console)}
	p.cmd.Env = env
	p.cmd.Stderr = p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	rig.Eventually(t, 30*time.Second, "the collector listens", func() bool { return len(p.log.events(t, "listening for mail")) > 0 })
	return p
}

// awaitConnected waits until it has been connected to the broker for the first time.
func (p *process) awaitConnected(t testing.TB) {
	t.Helper()
	rig.Eventually(t, 30*time.Second, "the collector is connected", func() bool { return len(p.log.events(t, "amqp: connected")) > 0 })
}

// kill ends it as a power cut would.
func (p *process) kill(t testing.TB) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Wait() // "signal: killed"
}

// terminate sends SIGTERM.
func (p *process) terminate(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

// exit waits for the end and returns the exit code.
func (p *process) exit() int {
	_ = p.cmd.Wait() // the exit code says it
	return p.cmd.ProcessState.ExitCode()
}

// inside is a collector that runs in the test's own process, where the race detector sees it.
type inside struct {
	socket  string
	log     *console
	signals chan os.Signal
	code    chan int
}

func boot(t *testing.T, url string, env ...string) *inside {
	t.Helper()
	in := &inside{socket: filepath.Join(t.TempDir(), "lmtp"), log: new(console), signals: make(chan os.Signal, 1), code: make(chan int, 1)}
	process := daemon.Process{
		Env: append(settings(url, in.socket), env...), Stdout: io.Discard, Stderr: in.log, Signals: in.signals,
	}
	go func() { in.code <- daemon.Main(service, process) }()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log:\n%s", in.log)
		}
		in.signals <- syscall.SIGTERM
		if code := <-in.code; code != daemon.ExitOK {
			t.Errorf("exit code %d\n%s", code, in.log)
		}
	})
	rig.Eventually(t, 30*time.Second, "the collector takes mail", func() bool { return takesMail(in.socket) })
	return in
}

// takesMail tells whether MAIL is answered 250.
func takesMail(socket string) bool {
	c, err := hello(socket)
	if err != nil {
		return false
	}
	defer func() { _ = c.Close() }()
	reply, err := c.Ask("MAIL FROM:<>")
	return err == nil && strings.HasPrefix(reply, "250 ")
}

func hello(socket string) (*lmtptest.Client, error) {
	c, err := lmtptest.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	if _, err := c.Ask("LHLO mta.example"); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// readiness returns what /readyz says, its status and its text.
func (c *console) readiness(t testing.TB) (int, string) {
	t.Helper()
	return c.ask(t, "/readyz")
}

// metric returns the value of one metric, named with its labels; zero when there is none yet.
func (c *console) metric(t testing.TB, name string) float64 {
	t.Helper()
	_, text := c.ask(t, "/metrics")
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	return 0
}

// ask gets a page of the admin port.
func (c *console) ask(t testing.TB, page string) (int, string) {
	t.Helper()
	addr := c.events(t, "listening")[0]["addr"]
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://%s%s", addr, page), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// peakRSS is the most memory that a running process has had, in bytes.
func (p *process) peakRSS(t testing.TB) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	var kib int
	if _, err := fmt.Sscan(peak, &kib); err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// mail is one that came out of the queue.
type mail struct {
	*envelope.Envelope
	body []byte
}

// drain empties the backlog queue, which the collector has bound before it published anything.
func drain(t *testing.T, broker *rig.Broker) []mail {
	t.Helper()
	conn, err := amqp091.Dial(broker.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	channel, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	queue, err := channel.QueueDeclarePassive("spam.mails", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	deliveries, err := channel.Consume("spam.mails", "drain", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	mails := make([]mail, 0, queue.Messages)
	for range queue.Messages {
		select {
		case delivery := <-deliveries:
			mails = append(mails, received(t, delivery))
		case <-time.After(time.Minute):
			t.Fatalf("%d of %d mails came out of the queue", len(mails), queue.Messages)
		}
	}
	if err := channel.Cancel("drain", false); err != nil {
		t.Fatal(err)
	}
	for delivery := range deliveries { // there should be none
		mails = append(mails, received(t, delivery))
	}
	return mails
}

func received(t *testing.T, delivery amqp091.Delivery) mail {
	t.Helper()
	e, err := envelope.Parse(&delivery)
	if err != nil {
		t.Fatal(err)
	}
	return mail{e, delivery.Body}
}
