package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/libs/hpfeeds"
	"spamtraps.internal/libs/hpfeeds/hpfeedstest"
	"spamtraps.internal/libs/rig"
)

// benchPrefetch is the default of BRIDGE_PREFETCH, which the bare consumer has as well.
const benchPrefetch = 512

// stage is what everything is measured between: a RabbitMQ, reached without docker's own proxy, and an hpfeeds broker that reads mail and has nobody
// to give it to.
type stage struct {
	b    *testing.B
	url  string
	feed *hpfeedstest.Process
	conn *amqp091.Connection
}

func newStage(b *testing.B) *stage {
	b.Helper()
	broker := rig.OwnBroker(b)
	s := &stage{b: b, url: broker.URLAt(broker.Address()), feed: hpfeedstest.StartProcess(b, hpfeedstest.Config{Users: users()})}
	conn, err := amqp091.Dial(s.url)
	if err != nil {
		b.Fatal(err)
	}
	s.conn = conn
	b.Cleanup(func() { _ = conn.Close() })
	channel := s.channel()
	if err := channel.ExchangeDeclare("spam", amqp091.ExchangeTopic, true, false, false, false, nil); err != nil {
		b.Fatal(err)
	}
	return s
}

func (s *stage) channel() *amqp091.Channel {
	s.b.Helper()
	channel, err := s.conn.Channel()
	if err != nil {
		s.b.Fatal(err)
	}
	return channel
}

// fill puts n mails into each of these queues, which are made.
func (s *stage) fill(n, size int, queues ...string) {
	s.b.Helper()
	channel := s.channel()
	defer func() { _ = channel.Close() }()
	key := queues[0]
	for _, queue := range queues {
		_, err := channel.QueueDeclare(queue, true, false, false, false, amqp091.Table{amqp091.QueueTypeArg: "quorum"})
		if err == nil {
			err = channel.QueueBind(queue, key, "spam", false, nil)
		}
		if err != nil {
			s.b.Fatal(err)
		}
	}
	if err := channel.Confirm(false); err != nil {
		s.b.Fatal(err)
	}
	content := body("mail", size)
	var waiting []*amqp091.DeferredConfirmation
	for i := range n {
		c, err := channel.PublishWithDeferredConfirm("spam", key, false, false, amqp091.Publishing{MessageId: strconv.Itoa(i), DeliveryMode: amqp091.Persistent, Body: content})
		if err != nil {
			s.b.Fatal(err)
		}
		if waiting = append(waiting, c); len(waiting) > 256 {
			waiting[0].Wait()
			waiting = waiting[1:]
		}
	}
	for _, c := range waiting {
		c.Wait()
	}
}

func (s *stage) remove(queues ...string) {
	s.b.Helper()
	channel := s.channel()
	defer func() { _ = channel.Close() }()
	for _, queue := range queues {
		if _, err := channel.QueueDelete(queue, false, false, false); err != nil {
			s.b.Fatal(err)
		}
	}
}

// bareConsumer empties a queue with nothing but amqp091, an acknowledgement for each mail, and returns mails a second.
func (s *stage) bareConsumer(queue string, n int) float64 {
	s.b.Helper()
	conn, err := amqp091.Dial(s.url)
	if err != nil {
		s.b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	channel, err := conn.Channel()
	if err == nil {
		err = channel.Qos(benchPrefetch, 0, false)
	}
	if err != nil {
		s.b.Fatal(err)
	}
	began := time.Now()
	deliveries, err := channel.Consume(queue, "", false, false, false, false, nil)
	if err != nil {
		s.b.Fatal(err)
	}
	for range n {
		d := <-deliveries
		if err := d.Ack(false); err != nil {
			s.b.Fatal(err)
		}
	}
	return float64(n) / time.Since(began).Seconds()
}

// bareWriter writes n frames to the hpfeeds broker over a connection of its own, and returns messages a second, until the broker has processed them.
func (s *stage) bareWriter(n, size int) float64 {
	s.b.Helper()
	cfg := s.feed.Config("writer", password)
	echo, err := hpfeeds.Dial(context.Background(), cfg, hpfeeds.Options{})
	if err != nil {
		s.b.Fatal(err)
	}
	defer func() { _ = echo.Close() }()
	if err := echo.Subscribe(fenceChannel); err != nil {
		s.b.Fatal(err)
	}
	conn, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", cfg.Address())
	if err != nil {
		s.b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	in := hpfeeds.NewReader(conn, 0)
	if _, err := in.Next(); err != nil {
		s.b.Fatal(err)
	}
	nonce, err := in.Body()
	if err != nil {
		s.b.Fatal(err)
	}
	write := func(b []byte) {
		if _, err := conn.Write(b); err != nil {
			s.b.Fatal(err)
		}
	}
	write(hpfeeds.AppendAuth(nil, "writer", nonce, password))
	write(hpfeeds.AppendPublish(nil, "writer", fenceChannel, 0)) // both connections are there
	if _, err := echo.Receive(context.Background()); err != nil {
		s.b.Fatal(err)
	}
	frame := append(hpfeeds.AppendPublish(nil, "writer", "spam.mails", size), body("mail", size)...)
	began := time.Now()
	for range n {
		write(frame)
	}
	write(hpfeeds.AppendPublish(nil, "writer", fenceChannel, 0))
	if _, err := echo.Receive(context.Background()); err != nil {
		s.b.Fatal(err)
	}
	return float64(n) / time.Since(began).Seconds()
}

// figures are of one run of a bridge.
type figures struct {
	rate float64       // mails a second
	cpu  time.Duration // of the bridge, a mail
	top  int           // bytes of RSS at the most
}

// bridge empties a queue of n mails with the program itself.
func (s *stage) bridge(queue string, n int, env ...string) figures {
	s.b.Helper()
	p := launch(s.b, settings(s.url, s.feed.Port, append(env, "BRIDGE_QUEUE="+queue, "AMQP_ROUTING_KEY="+queue, "LOG_LEVEL=warn", fmt.Sprint("BRIDGE_PREFETCH=", benchPrefetch))...))
	defer p.kill(s.b)
	confirmed := func() int { return int(p.confirmed(s.b)) }
	var first int
	rig.Eventually(s.b, time.Minute, "mail flows", func() bool { first = confirmed(); return first > 0 })
	began, cpu := time.Now(), p.cpu(s.b)
	for last := first; last < n; last = confirmed() {
		if time.Since(began) > 5*time.Minute {
			s.b.Fatalf("%d of %d mails after five minutes", last, n)
		}
		pause(context.Background(), 5*time.Millisecond)
	}
	took := time.Since(began)
	if first >= n*9/10 {
		s.b.Fatalf("%d of %d mails had passed at the first look", first, n)
	}
	return figures{
		rate: float64(n-first) / took.Seconds(), cpu: (p.cpu(s.b) - cpu) / time.Duration(n-first), top: p.rss(s.b, "VmHWM"),
	}
}

var port sync.Map // of a process's admin, by the process

// confirmed asks the bridge how many mails are confirmed. With LOG_LEVEL=warn it does not log where it listens, so its settings say so.
func (p *process) confirmed(b *testing.B) float64 {
	b.Helper()
	at, _ := port.Load(p)
	if at == nil {
		at = listening(p.cmd.Process.Pid)
		if at == "" {
			return 0
		}
		port.Store(p, at)
	}
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, fmt.Sprintf("http://%s/metrics", at), http.NoBody)
	if err != nil {
		b.Fatal(err)
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0
	}
	defer func() { _ = response.Body.Close() }()
	text, _ := io.ReadAll(response.Body)
	_, rest, found := strings.Cut(string(text), "\nspamtraps_bridge_confirmed_total ")
	if !found {
		return 0
	}
	line, _, _ := strings.Cut(rest, "\n")
	n, _ := strconv.ParseFloat(line, 64)
	return n
}

// listening returns the address of the one port that a process listens at.
func listening(pid int) string {
	sockets := map[string]bool{}
	fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	for _, fd := range fds {
		target, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name()))
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			sockets[strings.TrimSuffix(inode, "]")] = true
		}
	}
	table, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", pid))
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) > 9 && fields[3] == "0A" && sockets[fields[9]] { // LISTEN
			_, hex, _ := strings.Cut(fields[1], ":")
			number, _ := strconv.ParseUint(hex, 16, 16)
			return fmt.Sprintf("127.0.0.1:%d", number)
		}
	}
	return ""
}

// cpu is the processor time that a process has used.
func (p *process) cpu(b *testing.B) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond // clock ticks
}

func median(values []float64) (middle, least, most float64) {
	slices.Sort(values)
	return values[len(values)/2], values[0], values[len(values)-1]
}

// BenchmarkBridge measures both ways of confirming against the limit of a chain on one machine: 1 / (1/bare consumer + 1/bare writer).
func BenchmarkBridge(b *testing.B) {
	s := newStage(b)
	const rounds, mails, size = 5, 20_000, 10 << 10
	var consumers, writers, drained, fence, shareDrained, shareFence, cpuDrained, cpuFence []float64
	for range rounds {
		s.fill(mails, size, "spam.hp.consumer", "spam.hp.drained", "spam.hp.fence")
		consumer, writer := s.bareConsumer("spam.hp.consumer", mails), s.bareWriter(mails, size)
		limit := 1 / (1/consumer + 1/writer)
		d := s.bridge("spam.hp.drained", mails)
		f := s.bridge("spam.hp.fence", mails, "BRIDGE_FENCE_CHANNEL="+fenceChannel)
		s.remove("spam.hp.consumer", "spam.hp.drained", "spam.hp.fence")
		consumers, writers = append(consumers, consumer), append(writers, writer)
		drained, fence = append(drained, d.rate), append(fence, f.rate)
		shareDrained, shareFence = append(shareDrained, d.rate/limit), append(shareFence, f.rate/limit)
		cpuDrained, cpuFence = append(cpuDrained, float64(d.cpu.Microseconds())), append(cpuFence, float64(f.cpu.Microseconds()))
		b.Logf("consumer %.0f, writer %.0f, limit %.0f; drained %.0f (%.2f, %s), fence %.0f (%.2f, %s); peak RSS %d and %d MiB",
			consumer, writer, limit, d.rate, d.rate/limit, d.cpu, f.rate, f.rate/limit, f.cpu, d.top>>20, f.top>>20)
	}
	for _, line := range []struct {
		name   string
		values []float64
	}{
		{"consumer/s", consumers},
		{"writer/s", writers},
		{"drained/s", drained},
		{"fence/s", fence},
		{"drained-share", shareDrained},
		{"fence-share", shareFence},
		{"drained-µs-CPU", cpuDrained},
		{"fence-µs-CPU", cpuFence},
	} {
		middle, least, most := median(line.values)
		b.ReportMetric(middle, line.name)
		b.Logf("%s: %.2f (%.2f to %.2f)", line.name, middle, least, most)
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkGrowth measures what a mail costs with few and with many in the queue. The bridge stands still (SIGSTOP) while they are put there, as often as it
// takes for 100,000 to pass.
func BenchmarkGrowth(b *testing.B) {
	s := newStage(b)
	const queue, all = "spam.hp.growth", 100_000
	s.fill(0, 0, queue)
	p := launch(b, settings(s.url, s.feed.Port, "BRIDGE_QUEUE="+queue, "AMQP_ROUTING_KEY="+queue, "LOG_LEVEL=warn", "BRIDGE_FENCE_CHANNEL="+fenceChannel,
		fmt.Sprint("BRIDGE_PREFETCH=", benchPrefetch), "AMQP_HEARTBEAT=5m"))
	defer p.kill(b)
	passed := 0
	for _, mails := range []int{1_000, 10_000, 100_000} {
		var took, cpu time.Duration
		for range all / mails {
			p.signal(b, syscall.SIGSTOP)
			s.fill(mails, 2<<10, queue)
			passed += mails
			began, used := time.Now(), p.cpu(b)
			p.signal(b, syscall.SIGCONT)
			for int(p.confirmed(b)) < passed {
				if time.Since(began) > 5*time.Minute {
					b.Fatalf("%.0f of %d mails after five minutes", p.confirmed(b), passed)
				}
				pause(context.Background(), 5*time.Millisecond)
			}
			took, cpu = took+time.Since(began), cpu+p.cpu(b)-used
		}
		b.Logf("%d in the queue: %.0f mails/s, %s of CPU a mail, peak RSS %d MiB", mails, all/took.Seconds(), cpu/all, p.rss(b, "VmHWM")>>20)
		b.ReportMetric(all/took.Seconds(), fmt.Sprintf("%d-in-queue/s", mails))
		b.ReportMetric(float64((cpu/all).Nanoseconds())/1e3, fmt.Sprintf("%d-in-queue-µs-CPU", mails))
	}
	b.ReportMetric(0, "ns/op")
}

func (p *process) signal(b *testing.B, signal os.Signal) {
	b.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		b.Fatal(err)
	}
}
