// Package bench measures the chain against what its two ends can do on the same machine in the same run. Absolute rates of a
// shared machine mean nothing; the shares do. `make bench` runs it; no test does.
package bench

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
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
// 1 / (1/source + 1/publisher). The second: the same Postfix with the collector and with smtp-sink behind it.
//
// Rounds are interleaved, so that a neighbour's load hits all three alike; medians and ranges of the rounds are given.
func BenchmarkChain(b *testing.B) {
	s := newStage(b)
	for b.Loop() {
		s.chain()
		s.postfix()
	}
}

// stage is the set of containers, all in one network.
type stage struct {
	b         *testing.B
	network   string
	broker    *rig.Broker
	collector *rig.Container
	tools     *rig.Container // Postfix's image, for smtp-source and smtp-sink
	pid       int            // of the collector, on this machine
}

func newStage(b *testing.B) *stage {
	b.Helper()
	network := rig.NewNetwork(b)
	broker := rig.OwnBroker(b, rig.WithNetwork(network))
	s := &stage{b: b, network: network, broker: broker}
	s.collector = rig.Run(b, rig.Image(b, "lmtp-collector"), rig.Options{
		Network: network, Alias: "lmtp-collector",
		Env: []string{
			"AMQP_HOST=rabbitmq", "AMQP_TLS=false", "AMQP_IDENT=collector", "AMQP_SECRET=" + broker.UserPassword("collector"),
			"LOG_LEVEL=warn",
		},
	})
	s.tools = rig.Run(b, rig.Image(b, "postfix"), rig.Options{
		Network: network, Alias: "tools", Args: []string{"--entrypoint", "sleep"}, Command: []string{"infinity"},
	})
	rig.Docker(b, "exec", "-d", s.tools.Name, "smtp-sink", "-L", "-u", "nobody", ":10025", "1000")
	rig.Eventually(b, time.Minute, "the collector is ready", func() bool {
		return strings.Contains(rig.Docker(b, "inspect", "-f", "{{.State.Health.Status}}", s.collector.Name), "healthy")
	})
	pid, err := strconv.Atoi(rig.Docker(b, "inspect", "-f", "{{.State.Pid}}", s.collector.Name))
	if err != nil {
		b.Fatal(err)
	}
	s.pid = pid
	return s
}

func (s *stage) chain() {
	s.b.Helper()
	for _, sessions := range []int{8, 20, 64} {
		var source, publisher, chain, share, cpu []float64
		for range rounds {
			from := s.source(sessions, mails, "tools:10025")
			bare := s.publish(sessions)
			before := s.cpu()
			to := s.source(sessions, mails, "lmtp-collector:10024")
			used := s.cpu() - before
			s.drained(mails)
			source, publisher, chain = append(source, from), append(publisher, bare), append(chain, to)
			share = append(share, to*(1/from+1/bare))
			cpu = append(cpu, float64(used.Microseconds())/mails)
		}
		fmt.Printf("\nLMTP to confirmed, %d sessions, %d mails of %d bytes, %d rounds, median (range)\n", sessions, mails, mailSize, rounds)
		row("source, mails/s", source, "%.0f")
		row("bare publisher, mails/s", publisher, "%.0f")
		row("chain, mails/s", chain, "%.0f")
		row("chain, share of the limit", share, "%.2f")
		row("collector, CPU µs a mail", cpu, "%.0f")
		fmt.Printf("  %-28s %d MiB\n", "collector, peak RSS", s.peakRSS()>>20)
	}
}

func (s *stage) postfix() {
	s.b.Helper()
	front := map[string]*rig.Container{}
	for behind, address := range map[string]string{"sink": "tools", "collector": "lmtp-collector"} {
		port := map[string]string{"sink": "10025", "collector": "10024"}[behind]
		front[behind] = rig.Run(s.b, rig.Image(s.b, "postfix"), rig.Options{
			Network: s.network, Alias: "postfix-" + behind,
			Env: []string{"POSTFIX_LMTP=inet:" + address + ":" + port},
		})
	}
	for behind, c := range front {
		rig.Eventually(s.b, time.Minute, "Postfix in front of the "+behind+" is healthy", func() bool {
			return rig.Docker(s.b, "inspect", "-f", "{{.State.Health.Status}}", c.Name) == "healthy"
		})
	}
	rate := map[string][]float64{}
	var share []float64
	for range rounds {
		for _, behind := range []string{"sink", "collector"} {
			rate[behind] = append(rate[behind], s.throughPostfix(front[behind], "postfix-"+behind+":25"))
		}
		share = append(share, rate["collector"][len(share)]/rate["sink"][len(share)])
	}
	s.drained(rounds * behindPostfix)
	fmt.Printf("\nSMTP through Postfix, 20 sessions, %d mails of %d bytes, until its queue is empty, median (range)\n", behindPostfix, mailSize)
	row("into smtp-sink, mails/s", rate["sink"], "%.0f")
	row("into the collector, mails/s", rate["collector"], "%.0f")
	row("share", share, "%.2f")
}

// source sends count mails over LMTP or SMTP sessions that are kept open, and returns mails a second.
func (s *stage) source(sessions, count int, address string) float64 {
	s.b.Helper()
	return float64(count) / s.send("-L", sessions, count, address).Seconds()
}

func (s *stage) send(protocol string, sessions, count int, address string) time.Duration {
	s.b.Helper()
	script := fmt.Sprintf("date +%%s%%N; smtp-source %s -d -s %d -m %d -l %d -f sender@spam.example -t trap@trap.example inet:%s && date +%%s%%N",
		protocol, sessions, count, mailSize, address)
	times := strings.Fields(s.tools.Exec("sh", "-c", script))
	if len(times) != 2 {
		s.b.Fatalf("smtp-source to %s: %q", address, times)
	}
	return time.Duration(number(s.b, times[1]) - number(s.b, times[0]))
}

// throughPostfix measures from the first mail until Postfix's queue is empty.
func (s *stage) throughPostfix(postfix *rig.Container, address string) float64 {
	s.b.Helper()
	from := time.Now()
	s.send("", 20, behindPostfix, address)
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
	fmt.Printf("  %-28s "+format+" ("+format+" to "+format+")\n", what, values[len(values)/2], values[0], values[len(values)-1])
}

func number(b *testing.B, text string) int64 {
	b.Helper()
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}
