package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/libs/hpfeeds/hpfeedstest"
	"spamtraps.internal/libs/rig"
)

// prefetch is the window of the tests that kill: as many mails may come twice.
const prefetch = 64

// exact are the ways of a broker by which a test can count exactly: who publishes mail after its restart waits until the audience is back, and a token
// comes back only when what was before it is with the audience's kernel.
func exact() hpfeedstest.Config {
	return hpfeedstest.Config{Users: users(), Hold: map[string]int{"spam.mails": 1}, Exact: true}
}

// verdict waits until all that was sent has come, and compares.
func verdict(t *testing.T, a *audience, s *sender, kills int) {
	t.Helper()
	s.stop()
	var missing []string
	var duplicates int
	for deadline := time.Now().Add(time.Minute); ; {
		if missing, duplicates = a.account(s.accepted); len(missing) == 0 || time.Now().After(deadline) {
			break
		}
		pause(t.Context(), 50*time.Millisecond)
	}
	t.Logf("%d sent, %d lost, %d duplicates of %d kills", s.sent(), len(missing), duplicates, kills)
	if len(missing) > 0 {
		t.Errorf("%d of %d lost: %.200v", len(missing), s.sent(), missing)
	}
	if most := kills * prefetch; duplicates > most {
		t.Errorf("%d duplicates, more than %d", duplicates, most)
	}
}

// more waits until n more mails have come.
func more(t *testing.T, a *audience, n int, limit time.Duration) time.Duration {
	t.Helper()
	began, target := time.Now(), a.count()+n
	rig.Eventually(t, limit, fmt.Sprintf("%d more mails come", n), func() bool { return a.count() >= target })
	return time.Since(began)
}

func TestBridgeKilledAtRandom(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"BRIDGE_FENCE_CHANNEL=" + fenceChannel, "BRIDGE_CONFIRM=drained"} { // the broker lives, so neither loses anything
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			broker := rig.SharedBroker(t)
			feed := hpfeedstest.Start(t, exact())
			env := settings(broker.URL(), feed.Port, way, fmt.Sprint("BRIDGE_PREFETCH=", prefetch))
			a := listen(t, feed.Port, "spam.mails")
			bridge := launch(t, env)
			bridge.log.awaitReady(t, 30*time.Second)
			s := newSender(t, broker.URL())
			s.start(8, 2000)
			kills := campaign(4, 100)
			for range kills {
				more(t, a, rand.IntN(100), 30*time.Second)
				pause(t.Context(), rand.N(10*time.Millisecond)) // at any moment, not only right after a mail
				bridge.kill(t)
				bridge = launch(t, env)
			}
			more(t, a, 100, 30*time.Second)
			verdict(t, a, s, kills)
			bridge.kill(t)
		})
	}
}

func TestRabbitMQHasBadDays(t *testing.T) {
	t.Parallel()
	broker := rig.OwnBroker(t)
	feed := hpfeedstest.Start(t, exact())
	in := boot(t, settings(broker.URL(), feed.Port, "BRIDGE_FENCE_CHANNEL="+fenceChannel, fmt.Sprint("BRIDGE_PREFETCH=", prefetch), "AMQP_HEARTBEAT=2s"))
	in.log.awaitReady(t, 30*time.Second)
	broker.Ctl("eval", "mnesia:sync_log(), [dets:sync(Table) || Table <- dets:all()].") // the new queues are on the disk
	a := listen(t, feed.Port, "spam.mails")
	s := newSender(t, broker.URL())
	s.start(8, 2000)
	days := []struct {
		name        string
		often       int
		away, again func()
	}{
		{"killed", campaign(1, 20), broker.Kill, broker.Start},
		{"paused", campaign(1, 3), func() {
			broker.Pause()
			rig.Eventually(t, 10*time.Second, "the silence is noticed", func() bool { status, _ := in.log.ask(t, "/readyz"); return status != http.StatusOK })
		}, broker.Unpause},
		{"connections closed", campaign(1, 3), broker.CloseAllConnections, func() {}},
		{"queue deleted", campaign(0, 3), func() {
			s.stop()
			rig.Eventually(t, 30*time.Second, "all has come", func() bool { missing, _ := a.account(s.accepted); return len(missing) == 0 })
			deleteQueue(t, broker, "spam.hpfeeds")
		}, func() { // spam.mails takes mail as well, so a sender hears nothing of a queue that is not bound yet
			rig.Eventually(t, 10*time.Second, "it is declared and bound again", func() bool { return depth(t, broker, "spam.hpfeeds") == 0 && bound(broker, "spam.hpfeeds") })
			s.start(8, 2000)
		}},
	}
	kills := 0
	for _, day := range days {
		for range day.often {
			more(t, a, 100, 30*time.Second)
			day.away()
			day.again()
			took := more(t, a, 1, 20*time.Second)
			t.Logf("%s: mail flows %s after its return", day.name, took.Round(time.Millisecond))
			kills++
		}
	}
	more(t, a, 100, 30*time.Second)
	verdict(t, a, s, kills)
}

// bound tells whether a queue that is there gets mail.
func bound(b *rig.Broker, queue string) bool {
	var bindings []struct{ Source string }
	b.API(http.MethodGet, "/api/queues/"+url.PathEscape(b.VHost)+"/"+queue+"/bindings", nil, &bindings)
	for _, binding := range bindings {
		if binding.Source == "spam" {
			return true
		}
	}
	return false
}

func deleteQueue(t *testing.T, b *rig.Broker, queue string) {
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
	if _, err := channel.QueueDelete(queue, false, false, false); err != nil {
		t.Fatal(err)
	}
}

// killing is a way for the hpfeeds broker to die under load.
type killing struct {
	name   string
	often  int
	before func(t *testing.T, in *inside, feed *hpfeedstest.Process)
}

var killings = []killing{
	{"killed", campaign(3, 20), func(t *testing.T, _ *inside, _ *hpfeedstest.Process) {
		t.Helper()
		pause(t.Context(), rand.N(10*time.Millisecond))
	}},
	// As a broker that is overloaded: it stands still until nothing moves any more, so that its machine's buffers are full.
	{"stopped, then killed", campaign(1, 5), func(t *testing.T, in *inside, feed *hpfeedstest.Process) {
		t.Helper()
		feed.Signal(syscall.SIGSTOP)
		for last := -1.; last != in.log.metric(t, "spamtraps_bridge_confirmed_total"); pause(t.Context(), 500*time.Millisecond) {
			last = in.log.metric(t, "spamtraps_bridge_confirmed_total")
		}
	}},
}

// die has the broker die, and come back.
func (k *killing) die(t *testing.T, in *inside, feed *hpfeedstest.Process, a *audience) {
	t.Helper()
	for range k.often {
		more(t, a, 300, 30*time.Second)
		k.before(t, in, feed)
		feed.Kill()
		feed.Start()
		if took := more(t, a, 1, 20*time.Second); took > 5*time.Second {
			t.Errorf("%s: mail flows %s after the broker's return", k.name, took)
		}
	}
	more(t, a, 300, 30*time.Second)
}

// With a fence a broker that is killed loses nothing that was acknowledged.
func TestHpfeedsBrokerKilledWithFence(t *testing.T) {
	t.Parallel()
	broker := rig.SharedBroker(t)
	feed := hpfeedstest.StartProcess(t, exact())
	in := boot(t, settings(broker.URL(), feed.Port, "BRIDGE_FENCE_CHANNEL="+fenceChannel, fmt.Sprint("BRIDGE_PREFETCH=", prefetch)))
	in.log.awaitReady(t, 30*time.Second)
	a := listen(t, feed.Port, "spam.mails")
	s := newSender(t, broker.URL())
	s.start(16, 10_000)
	kills := 0
	for _, k := range killings {
		k.die(t, in, feed, a)
		kills += k.often
	}
	verdict(t, a, s, kills)
}

// Without one what the broker's machine had got and the broker had not is lost with each kill. The test says how many; docs/flow.md does too.
func TestHpfeedsBrokerKilledWithoutFence(t *testing.T) {
	t.Parallel()
	broker := rig.SharedBroker(t)
	feed := hpfeedstest.StartProcess(t, exact())
	in := boot(t, settings(broker.URL(), feed.Port, fmt.Sprint("BRIDGE_PREFETCH=", prefetch)))
	in.log.awaitReady(t, 30*time.Second)
	a := listen(t, feed.Port, "spam.mails")
	s := newSender(t, broker.URL())
	const size = 10_000
	most := 2*prefetch + buffers(t)/size
	lost, duplicates, kills := 0, 0, 0
	for _, k := range killings {
		before, sent := lost, s.sent()
		s.start(16, size)
		k.die(t, in, feed, a)
		s.stop()
		kills += k.often
		rig.Eventually(t, time.Minute, "nothing is left", func() bool { return depth(t, broker, "spam.hpfeeds") == 0 && in.log.holds(t) == 0 })
		var missing []string
		for waits := -1; waits != a.count(); pause(t.Context(), 500*time.Millisecond) { // until nothing comes any more
			waits = a.count()
		}
		missing, duplicates = a.account(s.accepted)
		lost = len(missing)
		t.Logf("%s: %d sent, %d lost of %d kills: %.1f lost a kill", k.name, s.sent()-sent, lost-before, k.often, float64(lost-before)/float64(k.often))
		if lost-before > k.often*most {
			t.Errorf("%s: %d lost of %d kills, more than the kernel's buffers and two windows", k.name, lost-before, k.often)
		}
	}
	if lost == 0 {
		t.Error("nothing was lost of a broker that was killed with its buffers full: then there would be no need for a fence")
	}
	if most := kills * prefetch; duplicates > most {
		t.Errorf("%d duplicates, more than %d", duplicates, most)
	}
}

// buffers is the most that this machine's kernel holds of one connection, in bytes (tcp(7)).
func buffers(t *testing.T) int {
	t.Helper()
	sum := 0
	for _, name := range []string{"tcp_rmem", "tcp_wmem"} {
		text, err := os.ReadFile("/proc/sys/net/ipv4/" + name)
		if err != nil {
			t.Fatal(err)
		}
		fields := strings.Fields(string(text))
		n, err := strconv.Atoi(fields[2])
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// A broker that is stopped in the middle takes nothing, and nothing is acknowledged, until it goes on.
func TestHpfeedsBrokerFrozen(t *testing.T) {
	t.Parallel()
	broker := rig.SharedBroker(t)
	feed := hpfeedstest.StartProcess(t, exact())
	in := boot(t, settings(broker.URL(), feed.Port, "BRIDGE_FENCE_CHANNEL="+fenceChannel, fmt.Sprint("BRIDGE_PREFETCH=", prefetch)))
	in.log.awaitReady(t, 30*time.Second)
	a := listen(t, feed.Port, "spam.mails")
	s := newSender(t, broker.URL())
	s.many(50, 100)
	more(t, a, 0, time.Second)
	rig.Eventually(t, 10*time.Second, "all have come", func() bool { return a.count() == 50 })
	feed.Signal(syscall.SIGSTOP)
	s.many(200, 50_000)
	if n := depth(t, broker, "spam.hpfeeds"); n < 200-prefetch {
		t.Errorf("%d mails of 200 are in the queue", n)
	}
	feed.Signal(syscall.SIGCONT)
	verdict(t, a, s, 1)
}

// takers are scripts whose kernel takes mails that they do not read, and that say nothing against it in time, or may not on a machine that is busy: drained
// cannot know. What it does with a no that comes in time, TestDrainedHearsANo tells.
var takers = []string{
	"chan-error", "chan-error-keepopen", "close-after-1", "close-mid-frame", "never-reads", "oversize-error", "rst-after-3", "slow-read", "unsolicited-publish",
}

// Whatever a broker does, memory stays within bounds and the queue keeps what nobody has taken.
func TestBrokersThatMisbehave(t *testing.T) {
	t.Parallel()
	const mails, size = 60, 50_000
	type subject struct {
		name, queue string
		script      *hpfeedstest.Script
		bridge      *process
		idle        int
	}
	for _, mode := range []string{"fence", "drained"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			broker := rig.SharedBroker(t)
			var subjects []*subject
			for i, name := range hpfeedstest.Scripts() {
				script, at := hpfeedstest.StartScript(t, name)
				x := &subject{name: name, queue: fmt.Sprintf("spam.hp.%s.%d", mode, i), script: script}
				env := []string{"BRIDGE_QUEUE=" + x.queue, "AMQP_QUEUE_TYPE=classic"} // thirty queues share one copy of each mail
				if mode == "fence" {
					env = append(env, "BRIDGE_CONFIRM=fence", "BRIDGE_FENCE_CHANNEL="+fenceChannel)
				}
				x.bridge = launch(t, settings(broker.URL(), at.Port, env...))
				subjects = append(subjects, x)
			}
			for _, x := range subjects {
				rig.Eventually(t, time.Minute, x.name+" has a queue", func() bool { return depth(t, broker, x.queue) == 0 })
				x.idle = x.bridge.rss(t, "VmRSS")
			}
			newSender(t, broker.URL()).many(mails, size)
			for _, x := range subjects {
				rig.Eventually(t, time.Minute, x.name+" is visited", func() bool { return x.script.Visits() > 0 })
			}
			pause(t.Context(), time.Duration(campaign(5, 60))*time.Second) // nothing but time may pass
			for _, x := range subjects {
				peak, left := x.bridge.rss(t, "VmHWM"), depth(t, broker, x.queue)
				if peak > x.idle+64<<20 {
					t.Errorf("%s: grew from %d to %d MiB", x.name, x.idle>>20, peak>>20)
				}
				taken := int(x.script.Messages())
				if mode == "drained" && slices.Contains(takers, x.name) {
					taken = mails
				}
				if mode == "fence" {
					taken = 0
				}
				if left < mails-taken {
					t.Errorf("%s: %d of %d mails are left in the queue, and it has read %d", x.name, left, mails, x.script.Messages())
				}
				if strings.Contains(x.bridge.log.String(), "panic") {
					t.Errorf("%s: %s", x.name, x.bridge.log)
				}
				x.bridge.kill(t)
			}
		})
	}
}

// 200 mails of 1 MiB, and a broker that takes them slowly.
func TestMemoryUnderLargeMails(t *testing.T) {
	t.Parallel()
	broker := rig.SharedBroker(t)
	feed := hpfeedstest.Start(t, exact())
	const memory = 32 << 20
	bridge := launch(t, settings(broker.URL(), feed.Port, "BRIDGE_FENCE_CHANNEL="+fenceChannel, fmt.Sprint("BRIDGE_MEMORY=", memory)))
	bridge.log.awaitReady(t, 30*time.Second)
	idle := bridge.rss(t, "VmRSS")
	s := newSender(t, broker.URL())
	const mails = 200
	s.many(mails, 1_000_000)
	a := listen(t, feed.Port, "spam.mails")
	rig.Eventually(t, 2*time.Minute, "all have come", func() bool { return a.count() == mails })
	peak := bridge.rss(t, "VmHWM")
	t.Logf("idle %d MiB, peak %d MiB with BRIDGE_MEMORY=%d MiB", idle>>20, peak>>20, memory>>20)
	if idle > 40<<20 {
		t.Errorf("%d MiB idle", idle>>20)
	}
	if peak > memory+64<<20 {
		t.Errorf("%d MiB at the peak", peak>>20)
	}
	bridge.kill(t)
}
