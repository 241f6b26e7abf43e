// Package bench measures the chain against what its two ends can do on the same machine in the same run. Absolute rates of a
// shared machine mean nothing; the shares do. `make bench` runs it; no test does.
package bench

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"spamtraps.internal/libs/rig"
)

const (
	rounds   = 5
	mails    = 6_000
	mailSize = 10 << 10
	// behindPostfix is how many mails go through Postfix in a round: it is more than ten times slower.
	behindPostfix = 2_000
)

// BenchmarkChain prints two tables. The first: smtp-source into smtp-sink over LMTP (source), a bare amqp091 publisher with
// confirms and mandatory on one connection with as many mails in flight as there are sessions (publisher), and the chain,
// smtp-source into lmtp-collector into RabbitMQ. All three want the same cores, so a chain's limit is
// 1 / (1/source + 1/publisher). The second: the same Postfix with smtp-sink behind it, with smtp-sink and beside it a bare publisher that sends the
// broker one mail for each that the sink takes, and with the collector. Postfix wants the cores that RabbitMQ takes then, so the share of the sink
// with the publisher is the one that tells of the collector.
//
// In the first, source, sink and collector are on this machine's own loopback, and publisher and collector reach the broker in the same way, so
// that no part of the chain goes through a network that the limit does not.
//
// Rounds are interleaved, so that a neighbour's load hits all three alike; medians and ranges of the rounds are given.
func BenchmarkChain(b *testing.B) {
	s := newStage(b)
	for b.Loop() {
		s.chain()
		s.postfix()
	}
}

// stage is what is measured, and with.
type stage struct {
	b         *testing.B
	broker    *rig.Broker
	network   string         // of the broker, and of those behind Postfix
	tools     *rig.Container // Postfix's image, for smtp-source and smtp-sink, on this machine's own network
	collector *rig.Container // on the same
	pid       int            // of the collector, on this machine
	sink      string         // where smtp-sink listens
	lmtp      string         // where the collector does
	copying   string         // where one does that keeps a copy of every mail
}

func newStage(b *testing.B) *stage {
	b.Helper()
	network := rig.NewNetwork(b)
	broker := rig.OwnBroker(b, rig.WithNetwork(network))
	s := &stage{b: b, network: network, broker: broker, sink: freePort(b), lmtp: freePort(b), copying: freePort(b)}
	s.collector = s.startCollector(rig.Options{Network: "host", Env: []string{
		"AMQP_HOST=" + broker.Address(), "LMTP_LISTEN=" + s.lmtp, "ADMIN_ADDR=" + freePort(b), "MAILDIR=",
	}})
	s.pid = s.pidOf(s.collector)
	s.startCollector(rig.Options{Network: "host", Args: []string{"-v", "/data"}, Env: []string{
		"AMQP_HOST=" + broker.Address(), "LMTP_LISTEN=" + s.copying, "ADMIN_ADDR=" + freePort(b), "MAILDIR=/data/maildir", "MAILDIR_KEEP=all",
	}})
	s.tools = s.startTools(rig.Options{Network: "host"}, s.sink)
	return s
}

func (s *stage) startCollector(o rig.Options) *rig.Container {
	s.b.Helper()
	o.Env = append(o.Env, "AMQP_TLS=false", "AMQP_IDENT=collector", "AMQP_SECRET="+s.broker.UserPassword("collector"), "LOG_LEVEL=warn")
	c := rig.Run(s.b, rig.Image(s.b, "lmtp-collector"), o)
	s.healthy(c)
	return c
}

// startTools starts a container with smtp-source and a running smtp-sink.
func (s *stage) startTools(o rig.Options, sink string) *rig.Container {
	s.b.Helper()
	o.Args, o.Command = []string{"--entrypoint", "sleep"}, []string{"infinity"}
	c := rig.Run(s.b, rig.Image(s.b, "postfix"), o)
	rig.Docker(s.b, "exec", "-d", c.Name, "smtp-sink", "-L", "-u", "nobody", sink, "1000")
	return c
}

func (s *stage) healthy(c *rig.Container) {
	s.b.Helper()
	rig.Eventually(s.b, time.Minute, c.Name+" is healthy", func() bool {
		return rig.Docker(s.b, "inspect", "-f", "{{.State.Health.Status}}", c.Name) == "healthy"
	})
}

func (s *stage) pidOf(c *rig.Container) int {
	s.b.Helper()
	return int(number(s.b, rig.Docker(s.b, "inspect", "-f", "{{.State.Pid}}", c.Name)))
}

// freePort returns an address of this machine's loopback where nobody listens now.
func freePort(b *testing.B) string {
	b.Helper()
	listener, err := new(net.ListenConfig).Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

func (s *stage) chain() {
	s.b.Helper()
	for _, sessions := range []int{8, 20, 64} {
		var source, publisher, chain, share, cpu, client, times, copying []float64
		for range rounds {
			from := s.source(sessions, mails, s.sink)
			mine := ownCPU(s.b)
			bare := s.publish(sessions)
			mine = ownCPU(s.b) - mine
			before := s.cpu()
			to := s.source(sessions, mails, s.lmtp)
			used := s.cpu() - before
			s.drained(mails)
			kept := s.source(sessions, mails, s.copying)
			s.drained(mails)
			source, publisher, chain = append(source, from), append(publisher, bare), append(chain, to)
			share = append(share, to*(1/from+1/bare))
			cpu = append(cpu, float64(used.Microseconds())/mails)
			client = append(client, float64(mine.Microseconds())/mails)
			times = append(times, float64(used)/float64(mine))
			copying = append(copying, kept*(1/from+1/bare))
		}
		fmt.Printf("\nLMTP to confirmed, %d sessions, %d mails of %d bytes, %d rounds, median (range)\n", sessions, mails, mailSize, rounds)
		row("source, mails/s", source, "%.0f")
		row("bare publisher, mails/s", publisher, "%.0f")
		row("chain, mails/s", chain, "%.0f")
		row("chain, share of the limit", share, "%.2f")
		row("with MAILDIR_KEEP=all, share", copying, "%.2f")
		row("bare publisher, CPU µs a mail", client, "%.0f")
		row("collector, CPU µs a mail", cpu, "%.0f")
		row("collector, times the publisher", times, "%.1f")
		fmt.Printf("  %-32s %d MiB\n", "collector, peak RSS", s.peakRSS()>>20)
	}
}

func (s *stage) postfix() {
	s.b.Helper()
	s.startCollector(rig.Options{Network: s.network, Alias: "lmtp-collector", Env: []string{"AMQP_HOST=rabbitmq"}})
	tools := s.startTools(rig.Options{Network: s.network, Alias: "tools"}, ":10025")
	shadow := s.startShadow(tools, ":10026")
	front := map[string]*rig.Container{}
	for behind, address := range map[string]string{"sink": "tools:10025", "sink and publisher": "tools:10026", "collector": "lmtp-collector:10024"} {
		front[behind] = rig.Run(s.b, rig.Image(s.b, "postfix"), rig.Options{
			Network: s.network, Alias: alias(behind),
			Env: []string{"POSTFIX_LMTP=inet:" + address},
		})
	}
	for _, c := range front {
		s.healthy(c)
	}
	rate := map[string][]float64{}
	var share, fair []float64
	for round := range rounds {
		for _, behind := range []string{"sink", "sink and publisher", "collector"} {
			rate[behind] = append(rate[behind], s.throughPostfix(tools, front[behind], alias(behind)+":25"))
		}
		shadow.await((round + 1) * behindPostfix)
		share = append(share, rate["collector"][round]/rate["sink"][round])
		fair = append(fair, rate["collector"][round]/rate["sink and publisher"][round])
	}
	s.drained(2 * rounds * behindPostfix)
	fmt.Printf("\nSMTP through Postfix, 20 sessions, %d mails of %d bytes, until its queue is empty, median (range)\n", behindPostfix, mailSize)
	row("into smtp-sink, mails/s", rate["sink"], "%.0f")
	row("and a bare publisher beside it", rate["sink and publisher"], "%.0f")
	row("into the collector, mails/s", rate["collector"], "%.0f")
	row("share of the sink", share, "%.2f")
	row("share of sink and publisher", fair, "%.2f")
}

// alias is the name of the Postfix in front of something.
func alias(behind string) string { return "postfix-" + strings.ReplaceAll(behind, " ", "-") }

// source sends count mails over LMTP or SMTP sessions that are kept open, and returns mails a second.
func (s *stage) source(sessions, count int, address string) float64 {
	s.b.Helper()
	return float64(count) / s.send(s.tools, "-L", sessions, count, address).Seconds()
}

func (s *stage) send(tools *rig.Container, protocol string, sessions, count int, address string) time.Duration {
	s.b.Helper()
	script := fmt.Sprintf("date +%%s%%N; smtp-source %s -d -s %d -m %d -l %d -f sender@spam.example -t trap@trap.example inet:%s && date +%%s%%N",
		protocol, sessions, count, mailSize, address)
	times := strings.Fields(tools.Exec("sh", "-c", script))
	if len(times) != 2 {
		s.b.Fatalf("smtp-source to %s: %q", address, times)
	}
	return time.Duration(number(s.b, times[1]) - number(s.b, times[0]))
}

// throughPostfix measures from the first mail until Postfix's queue is empty.
func (s *stage) throughPostfix(tools, postfix *rig.Container, address string) float64 {
	s.b.Helper()
	from := time.Now()
	s.send(tools, "", 20, behindPostfix, address)
	rig.Eventually(s.b, 5*time.Minute, "Postfix's queue is empty", func() bool {
		return postfix.Exec("sh", "-c", "find $(postconf -h queue_directory)/incoming $(postconf -h queue_directory)/active "+
			"$(postconf -h queue_directory)/deferred -type f | wc -l") == "0"
	})
	return behindPostfix / time.Since(from).Seconds()
}

// drained checks that the queue holds the mails of the round, confirmed as they were, and empties it.
func (s *stage) drained(want int) {
	s.b.Helper()
	if got := purge(s.b, s.broker, "spam.mails"); got != want {
		s.b.Fatalf("%d mails were sent, spam.mails had %d", want, got)
	}
}

// ownCPU is what this process has used so far, user and system.
func ownCPU(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// cpu is what the collector has used so far, user and system, in ticks of 10 ms.
func (s *stage) cpu() time.Duration {
	s.b.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.pid))
	if err != nil {
		s.b.Fatal(err)
	}
	// proc(5): fields 14 and 15, counted from behind the command's closing parenthesis, which is field 2.
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	return time.Duration(number(s.b, fields[11])+number(s.b, fields[12])) * 10 * time.Millisecond
}

func (s *stage) peakRSS() int64 {
	s.b.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	if err != nil {
		s.b.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if kib, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			return number(s.b, strings.TrimSuffix(strings.TrimSpace(kib), " kB")) << 10
		}
	}
	s.b.Fatal("no VmHWM in /proc/PID/status")
	return 0
}

func row(what string, values []float64, format string) {
	slices.Sort(values)
	fmt.Printf("  %-32s "+format+" ("+format+" to "+format+")\n", what, values[len(values)/2], values[0], values[len(values)-1])
}

func number(b *testing.B, text string) int64 {
	b.Helper()
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}
