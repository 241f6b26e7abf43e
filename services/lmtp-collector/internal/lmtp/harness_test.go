package lmtp_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"spamtraps.internal/libs/envelope"
	"spamtraps.internal/lmtp-collector/internal/lmtp"
	"spamtraps.internal/lmtp-collector/internal/lmtptest"
	"spamtraps.internal/lmtp-collector/internal/spool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a Taker that remembers, and fails as it is told.
type memory struct {
	mu      sync.Mutex
	mails   []amqp091.Publishing
	ready   error
	publish func(context.Context, amqp091.Publishing) error // nil: takes everything
}

func (m *memory) Ready() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ready
}

func (m *memory) setReady(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ready = err
}

func (m *memory) Take(ctx context.Context, mail amqp091.Publishing) (spool.Held, error) {
	if m.publish != nil {
		if err := m.publish(ctx, mail); err != nil {
			return spool.Nowhere, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mails = append(m.mails, mail)
	return spool.Broker, nil
}

func (m *memory) taken() []amqp091.Publishing {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mails
}

// last returns the envelope of the mail that was taken last.
func (m *memory) last(t *testing.T) *envelope.Envelope {
	t.Helper()
	mails := m.taken()
	if len(mails) == 0 {
		t.Fatal("no mail was taken")
	}
	return parse(t, mails[len(mails)-1])
}

func parse(t *testing.T, m amqp091.Publishing) *envelope.Envelope {
	t.Helper()
	mail, err := envelope.Parse(&amqp091.Delivery{
		Headers: m.Headers, ContentType: m.ContentType, DeliveryMode: m.DeliveryMode, MessageId: m.MessageId,
		Timestamp: m.Timestamp, Type: m.Type, AppId: m.AppId, Body: m.Body,
	})
	if err != nil {
		t.Fatalf("the envelope cannot be read: %v", err)
	}
	return mail
}

// logBuffer is a log that can be read while it is written.
type logBuffer struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}

// running is a server that a test talks to.
type running struct {
	*lmtp.Server
	network, address string
	log              *logBuffer
	metrics          *prometheus.Registry
	stop             context.CancelFunc
	stopped          chan struct{}
}

// start runs a server until the test ends. change may alter the defaults.
func start(t *testing.T, taker lmtp.Taker, change func(*lmtp.Config)) *running {
	t.Helper()
	return startWithGrace(t, taker, change, time.Minute)
}

// startWithGrace is start for a server that gives what is in flight so long when it is stopped.
func startWithGrace(t *testing.T, taker lmtp.Taker, change func(*lmtp.Config), grace time.Duration) *running {
	t.Helper()
	cfg := lmtp.Defaults()
	cfg.Listen = "127.0.0.1:0"
	cfg.MaxMessageBytes = 1 << 20
	if change != nil {
		change(&cfg)
	}
	cfg.Validate(func(name, problem string) { t.Fatalf("%s %s", name, problem) })
	listener, err := lmtp.Listen(t.Context(), cfg.Listen)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{
		network: listener.Addr().Network(), address: listener.Addr().String(),
		log: &logBuffer{}, metrics: prometheus.NewRegistry(), stop: cancel, stopped: make(chan struct{}),
	}
	identity := lmtp.Identity{App: "lmtp-collector/test", Collector: "lmtp-collector", Sensor: "sensor-1"}
	r.Server = lmtp.NewServer(cfg, identity, taker, zerolog.New(r.log), r.metrics)
	go func() {
		defer close(r.stopped)
		if err := r.Serve(ctx, listener, grace); err != nil {
			t.Errorf("Serve: %v", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-r.stopped
	})
	return r
}

// counted returns the value of one counter or gauge, summed over its labels.
func (r *running) counted(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	families, err := r.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, metric := range family.GetMetric() {
			if len(labels) == 0 || metric.GetLabel()[0].GetValue() == labels[0] {
				sum += metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
			}
		}
		return sum
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// client is an lmtptest.Client whose failures fail the test.
type client struct {
	*lmtptest.Client
	t *testing.T
}

func (r *running) dial(t *testing.T) *client {
	t.Helper()
	conn, err := lmtptest.Dial(r.network, r.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &client{conn, t}
}

// hello returns a client that has said LHLO.
func (r *running) hello(t *testing.T) *client {
	t.Helper()
	c := r.dial(t)
	c.say("LHLO mta.example\r\n", "250")
	return c
}

// say sends text and checks the codes of the replies that follow: "250", or with the enhanced code, "250 2.0.0".
// It returns the last reply.
func (c *client) say(text string, want ...string) string {
	c.t.Helper()
	if err := c.Send(text); err != nil {
		c.t.Fatalf("send %.60q: %v", text, err)
	}
	var reply string
	for _, code := range want {
		reply = c.expect(code)
	}
	return reply
}

func (c *client) expect(code string) string {
	c.t.Helper()
	reply, err := c.Reply()
	if err != nil {
		c.t.Fatalf("want %s, got %v", code, err)
	}
	if !strings.HasPrefix(reply, code) {
		c.t.Fatalf("got %q, want %s", reply, code)
	}
	for _, word := range []string{"trap", "sensor", "amqp", "rabbit", "broker"} {
		if strings.Contains(strings.ToLower(reply), word) {
			c.t.Errorf("the reply %q says what this is", reply)
		}
	}
	return reply
}

// expectEnd checks that the server has closed the connection. Bytes of ours that it left unread make it a reset.
func (c *client) expectEnd() {
	c.t.Helper()
	var reset net.Error
	reply, err := c.Reply()
	if err == nil || (!errors.Is(err, io.EOF) && (!errors.As(err, &reset) || reset.Timeout())) {
		c.t.Fatalf("got %q, %v, want the end of the connection", reply, err)
	}
}

// await waits until an event that another goroutine makes visible only by its effect.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}
