package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
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

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"spamtraps.internal/libs/amqp"
	"spamtraps.internal/libs/daemon"
	"spamtraps.internal/libs/hpfeeds"
	"spamtraps.internal/libs/hpfeeds/hpfeedstest"
	"spamtraps.internal/libs/rig"
	"spamtraps.internal/libs/secret"
)

// program is the path of the program, for the tests that kill it.
var program string

func TestMain(m *testing.M) {
	hpfeedstest.Main()
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	_ = flag.Set("test.parallel", "4") // they wait for brokers and not for cores; -parallel overrules it
	_ = os.Setenv("GOMEMLIMIT", "off") // one process is many bridges here
	dir, err := os.MkdirTemp("", "hpfeeds-bridge")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	program = filepath.Join(dir, "hpfeeds-bridge")
	if out, err := exec.CommandContext(context.Background(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v: %s", err, out)
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

// campaign returns how often something is tried: a few times, or often when CAMPAIGN=full.
func campaign(few, often int) int {
	if os.Getenv("CAMPAIGN") == "full" {
		return often
	}
	return few
}

const (
	fenceChannel = "bridge.fence"
	password     = "open sesame"
)

// users are those of the hpfeeds brokers of the tests: a bridge that has all rights, one that has none to a fence, and a reader.
func users() map[string]hpfeedstest.User {
	return map[string]hpfeedstest.User{
		"writer":   {Secret: password, Publish: []string{"spam.mails", "spam.copies", fenceChannel}, Subscribe: []string{fenceChannel}},
		"no-fence": {Secret: password, Publish: []string{"spam.mails", "spam.copies"}},
		"reader":   {Secret: password, Subscribe: []string{"spam.mails", "spam.copies"}},
	}
}

// settings are those of a bridge from the RabbitMQ at url to the hpfeeds broker at port.
func settings(url string, port int, env ...string) []string {
	return append([]string{
		"AMQP_URL=" + url,
		"HPFEEDS_HOST=127.0.0.1", "HPFEEDS_PORT=" + strconv.Itoa(port), "HPFEEDS_SECRET=" + password,
		"ADMIN_ADDR=127.0.0.1:0", "SENSOR=sensor-1", "SHUTDOWN_TIMEOUT=10s",
	}, env...)
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

// ask gets a page of the admin port.
func (c *console) ask(t testing.TB, page string) (int, string) {
	t.Helper()
	rig.Eventually(t, 30*time.Second, "the admin port is open", func() bool { return len(c.events(t, "listening")) > 0 })
	addr := c.events(t, "listening")[0]["addr"]
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, fmt.Sprintf("http://%s%s", addr, page), http.NoBody)
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

// awaitReady waits until /readyz says 200, and returns its text.
func (c *console) awaitReady(t testing.TB, limit time.Duration) string {
	t.Helper()
	var text string
	rig.Eventually(t, limit, "the bridge is ready", func() bool {
		var status int
		status, text = c.ask(t, "/readyz")
		return status == http.StatusOK
	})
	return text
}

// process is a bridge that can be killed.
type process struct {
	cmd *exec.Cmd
	log *console
}

// launch starts the program with these settings, and does not wait.
func launch(t testing.TB, env []string) *process {
	t.Helper()
	p := &process{cmd: exec.CommandContext(context.Background(), program), log: new(console)}
	p.cmd.Env = env
	p.cmd.Stderr = p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	return p
}

// kill ends it as a power cut would.
func (p *process) kill(t testing.TB) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Wait() // "signal: killed"
}

// rss is how much memory it has right now, and peak the most that it has had, in bytes.
func (p *process) rss(t testing.TB, line string) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), line+":")
	var kib int
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// inside is a bridge that runs in the test's own process, where the race detector sees it.
type inside struct {
	t       testing.TB
	log     *console
	signals chan os.Signal
	code    chan int
	once    sync.Once
}

func boot(t testing.TB, env []string, args ...string) *inside {
	t.Helper()
	in := &inside{t: t, log: new(console), signals: make(chan os.Signal, 1), code: make(chan int, 1)}
	process := daemon.Process{Args: args, Env: env, Stdout: io.Discard, Stderr: in.log, Signals: in.signals}
	go func() { in.code <- daemon.Main(service(), process) }()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log:\n%.30000s", in.log)
		}
		in.stop()
		if strings.Contains(in.log.String(), password) {
			t.Error("the secret is in the log")
		}
	})
	return in
}

func (in *inside) stop() {
	in.once.Do(func() {
		in.signals <- syscall.SIGTERM
		if code := <-in.code; code != daemon.ExitOK {
			in.t.Errorf("exit code %d\n%s", code, in.log)
		}
	})
}

// audience subscribes to channels at an hpfeeds broker, again whenever it has to, and keeps what comes.
type audience struct {
	mu     sync.Mutex
	bodies map[string][][]byte // by channel
	copies map[string]int      // by what comes before the first line end; of spam.mails
}

// listen returns when the subscription has been sent.
func listen(t testing.TB, port int, channels ...string) *audience {
	t.Helper()
	a := &audience{bodies: map[string][][]byte{}, copies: map[string]int{}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	subscribed := make(chan struct{})
	var once sync.Once
	cfg := hpfeeds.Defaults()
	cfg.Host, cfg.Port, cfg.Ident, cfg.Secret = "127.0.0.1", port, "reader", secret.New(password)
	wg.Go(func() {
		for ctx.Err() == nil {
			conn, err := hpfeeds.Dial(ctx, cfg, hpfeeds.Options{})
			if err != nil {
				pause(ctx, 10*time.Millisecond)
				continue
			}
			_ = conn.Subscribe(channels...)
			once.Do(func() { close(subscribed) })
			for {
				m, err := conn.Receive(ctx)
				if err != nil {
					break
				}
				a.note(m)
			}
			_ = conn.Close()
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	<-subscribed
	return a
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (a *audience) note(m hpfeeds.Message) {
	a.mu.Lock()
	defer a.mu.Unlock()
	id, _, _ := bytes.Cut(m.Payload, []byte("\r\n"))
	if m.Channel == "spam.mails" {
		a.copies[string(id)]++
	}
	if len(m.Payload) < 1<<16 {
		a.bodies[m.Channel] = append(a.bodies[m.Channel], m.Payload)
	}
}

func (a *audience) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.copies)
}

// got returns what has come over a channel.
func (a *audience) got(channel string) [][]byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.bodies[channel]
}

// account counts which of the mails never came, and how many came more than once.
func (a *audience) account(accepted map[string]bool) (missing []string, duplicates int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id := range accepted {
		if a.copies[id] == 0 {
			missing = append(missing, id)
		}
	}
	for _, n := range a.copies {
		duplicates += n - 1
	}
	return missing, duplicates
}

// holds is how many mails the bridge has and has not acknowledged.
func (c *console) holds(t testing.TB) int {
	t.Helper()
	return int(c.metric(t, "spamtraps_amqp_unacked"))
}

// sender publishes mails to RabbitMQ.
type sender struct {
	*amqp.Publisher
	t    testing.TB
	halt context.CancelFunc
	wg   sync.WaitGroup

	mu       sync.Mutex
	accepted map[string]bool
	number   int
}

func newSender(t testing.TB, url string) *sender {
	t.Helper()
	cfg := amqp.Defaults()
	cfg.URL, cfg.Queue = secret.New(url), ""
	s := &sender{Publisher: amqp.NewPublisher(cfg, zerolog.Nop(), prometheus.NewRegistry()), t: t, accepted: map[string]bool{}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { _ = s.Run(ctx); close(ended) }()
	t.Cleanup(func() { s.stop(); cancel(); <-ended })
	rig.Eventually(t, 30*time.Second, "mail can be sent", func() bool { return s.Ready() == nil })
	return s
}

// body begins with the mail's own name.
func body(id string, size int) []byte {
	head := id + "\r\n"
	return append([]byte(head), bytes.Repeat([]byte("x"), max(0, size-len(head)))...)
}

// send sends one mail until the broker has it.
func (s *sender) send(ctx context.Context, id string, content []byte) {
	m := amqp091.Publishing{MessageId: id, DeliveryMode: amqp091.Persistent, Body: content}
	for ctx.Err() == nil {
		if err := s.Publish(ctx, m); err == nil {
			s.mu.Lock()
			s.accepted[id] = true
			s.mu.Unlock()
			return
		}
		pause(ctx, 5*time.Millisecond)
	}
}

// many sends n mails at once and returns when the broker has them.
func (s *sender) many(n, size int) {
	s.t.Helper()
	var wg sync.WaitGroup
	room := make(chan struct{}, 200)
	for range n {
		room <- struct{}{}
		wg.Go(func() {
			id := s.next()
			s.send(context.Background(), id, body(id, size))
			<-room
		})
	}
	wg.Wait()
}

func (s *sender) next() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.number++
	return fmt.Sprintf("mail-%d", s.number)
}

// start sends mails from several goroutines until stop.
func (s *sender) start(workers, size int) {
	ctx, cancel := context.WithCancel(context.Background())
	s.halt = cancel
	for range workers {
		s.wg.Go(func() {
			for ctx.Err() == nil {
				id := s.next()
				s.send(ctx, id, body(id, size))
				pause(ctx, time.Millisecond)
			}
		})
	}
}

func (s *sender) stop() {
	if s.halt != nil {
		s.halt()
	}
	s.wg.Wait()
}

// sent returns how many mails the broker has.
func (s *sender) sent() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.accepted)
}

// depth is how many messages wait in a queue, those that somebody holds not among them; -1 when there is no such queue.
func depth(t testing.TB, b *rig.Broker, queue string) int {
	t.Helper()
	conn, err := amqp091.Dial(b.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	channel, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	found, err := channel.QueueDeclarePassive(queue, true, false, false, false, nil)
	var refusal *amqp091.Error
	switch {
	case errors.As(err, &refusal) && refusal.Code == amqp091.NotFound:
		return -1
	case err != nil:
		t.Fatal(err)
	}
	return found.Messages
}
