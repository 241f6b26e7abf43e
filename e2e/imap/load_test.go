package imap

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"spamtraps.internal/e2e/imap/hostile"
	"spamtraps.internal/libs/rig"
)

// window is how many mails may come twice after one crash: those on their way to the broker or not yet marked (AMQP_IN_FLIGHT).
const window = 256

// honest is a server on which nothing goes wrong.
func honest(mails int) hostile.Scenario {
	return hostile.Scenario{Setup: func(s *hostile.Server) { s.Fill("INBOX", 1, mails) }, Want: hostile.Want{Faults: -1}}
}

// While the broker is away nothing is fetched, neither once nor in a loop, and all mail stays unseen.
func TestBrokerAway(t *testing.T) {
	t.Parallel()
	broker := rig.SharedBroker(t)
	way := rig.NewProxy(t, fmt.Sprintf("%s:%d", broker.Host, broker.Port))
	way.Refuse()
	p := startPlay(t, "away", honest(6))
	arrived := newSink(t, broker)
	collector := launch(t, racing(t), settings(t, broker.URLAt(way.Addr()), mailboxes(t, p.mailbox()), "AMQP_CONFIRM_TIMEOUT=5s"))
	quiet := func(when string) {
		t.Helper()
		rig.Eventually(t, 30*time.Second, "/readyz tells that the broker is away", func() bool {
			status, text := collector.get("/readyz")
			return status == 503 && strings.Contains(text, "amqp")
		})
		before := p.server.Asked("UID FETCH .*BODY")
		<-time.After(3 * time.Second) // in which a loop would go round
		if n := p.server.Asked("UID FETCH .*BODY") - before; n > 0 {
			t.Errorf("%s: %d FETCHes", when, n)
		}
	}
	quiet("from the start")
	if taken := p.server.Taken(); len(taken) > 0 {
		t.Errorf("marked before anything was published: %v", taken)
	}
	way.Accept()
	rig.Eventually(t, time.Minute, "all mail arrives", func() bool { return p.waiting(arrived) == "" })
	way.Refuse()
	way.Reset()
	quiet("later")
	late := p.server.Arrive("INBOX")
	quiet("when mail arrives")
	if flags := p.server.FlagsOf("INBOX", late); flags != "" {
		t.Errorf("mail %d is marked %s", late, flags)
	}
	way.Accept()
	rig.Eventually(t, time.Minute, "the last mail arrives", func() bool { return len(arrived.of("away")) == 7 && p.server.FlagsOf("INBOX", late) != "" })
	arrived.check()
}

// A queue that takes no more: a mail that is refused is not marked. (A quorum queue takes more than its limit until the publisher is told.)
func TestRefusedByTheQueue(t *testing.T) {
	t.Parallel()
	broker := rig.SharedBroker(t)
	const mails, room = 1000, 3
	declareFull(t, broker, room)
	p := startPlay(t, "full", honest(mails))
	collector := launch(t, racing(t), settings(t, broker.URL(), mailboxes(t, p.mailbox())))
	rig.Eventually(t, time.Minute, "the queue refuses", func() bool { return strings.Contains(collector.log.String(), "nack") })
	<-time.After(2 * time.Second) // in which more would be marked
	marked := p.server.Taken()
	if len(marked) == mails {
		t.Error("all mails were marked, although the queue refuses")
	}
	arrived := newSink(t, broker) // makes room, so that the rest comes
	rig.Eventually(t, 2*time.Minute, "all mail arrives", func() bool { return p.waiting(arrived) == "" })
	came := arrived.of("full")
	for key := range marked {
		if _, there := came[origin{"full", key.Folder, key.UIDValidity, key.UID}]; !there {
			t.Errorf("mail %d was marked and never in the queue", key.UID)
		}
	}
	t.Logf("%d of %d mails were marked before there was room", len(marked), mails)
	arrived.check()
}

// A server that is slow takes nothing from those that are fast.
func TestSlowServerBesideFastOnes(t *testing.T) {
	t.Parallel()
	broker := rig.SharedBroker(t)
	slow := hostile.Scenarios()["slow"]
	slow.Setup = func(s *hostile.Server) { s.Fill("INBOX", 1, 2000) }
	plays := []*play{startPlay(t, "slow", slow)}
	boxes := []mailbox{plays[0].mailbox()}
	for i := range 20 {
		p := startPlay(t, fmt.Sprintf("fast-%d", i), honest(50))
		plays, boxes = append(plays, p), append(boxes, p.mailbox())
	}
	arrived := newSink(t, broker)
	launch(t, racing(t), settings(t, broker.URL(), mailboxes(t, boxes...)))
	for _, p := range plays[1:] {
		rig.Eventually(t, time.Minute, p.name+" is done", func() bool { return p.waiting(arrived) == "" })
	}
	if plays[0].waiting(arrived) == "" {
		t.Error("the slow server was not slow")
	}
	rig.Eventually(t, time.Minute, "the slow one goes on", func() bool { return len(arrived.of("slow")) > 0 })
	arrived.check()
}

// The collector is stopped before and after each command of a mailbox's life. With the next start nothing is lost, nothing is marked that was not
// published, and no mail comes more than once more.
func TestStoppedAtEachStep(t *testing.T) {
	t.Parallel()
	broker := rig.SharedBroker(t)
	arrived := newSink(t, broker)
	for _, name := range []string{"seen", "delete", "move", "no-move", "no-uidplus", "store-no"} {
		scenario, there := hostile.Scenarios()[name]
		if !there {
			scenario = honest(6)
		}
		t.Run(name, func(t *testing.T) {
			stride := campaign(5, 1)
			for step := 1 + rand.IntN(stride); stopAt(t, broker, arrived, name, scenario, step); step += stride {
			}
		})
	}
	arrived.check()
}

// stopAt does that for one step. It returns false when there is no such step.
func stopAt(t *testing.T, broker *rig.Broker, arrived *sink, name string, scenario hostile.Scenario, step int) bool {
	t.Helper()
	p := startPlay(t, fmt.Sprintf("%s-%d", name, step), scenario)
	reached, killed := make(chan struct{}), make(chan struct{})
	p.server.OnStep(func(n int) {
		if n == step {
			close(reached)
			<-killed
		}
	})
	env := settings(t, broker.URL(), mailboxes(t, p.mailbox()))
	first := launch(t, program(t), env)
	played := false
	rig.Eventually(t, time.Minute, "the step comes, or the scenario is over", func() bool {
		select {
		case <-reached:
			return true
		default:
			played = p.waiting(arrived) == "" && p.server.Asked("IDLE") > 0
			return played
		}
	})
	first.kill()
	close(killed)
	if played {
		return false
	}
	p.server.OnStep(nil)
	launch(t, program(t), env)
	rig.Eventually(t, time.Minute, fmt.Sprintf("%s is over", p.name), func() bool { return p.waiting(arrived) == "" })
	mails := arrived.of(p.name)
	for key, what := range p.server.Taken() {
		if _, there := mails[origin{p.name, key.Folder, key.UIDValidity, key.UID}]; !there {
			t.Errorf("step %d: mail %d was %s and never published", step, key.UID, what)
		}
	}
	for from, mail := range mails {
		key := hostile.Key{Folder: from.folder, UIDValidity: from.uidValidity, UID: from.uid}
		if mail.copies > 2 || mail.sha256 != hashOf(p.server.Body(key)) {
			t.Errorf("step %d: mail %d: %d copies", step, from.uid, mail.copies)
		}
	}
	return true
}

// feeder puts mails into some mailboxes without end, except while it is paused.
type feeder struct {
	mu        sync.Mutex
	delivered int
}

func (f *feeder) feed(d *rig.Dovecot, users []string, count int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	first := f.delivered
	f.delivered += count
	d.Import(users[rand.IntN(len(users))], "INBOX", count, func(i int) []byte { return spam("load", first+i) })
}

// The collector, the broker and Dovecot are killed at random under load, and nothing is lost.
func TestKilledAtRandom(t *testing.T) {
	t.Parallel()
	broker, d := rig.OwnBroker(t), rig.OwnDovecot(t)
	users := make([]string, 4)
	boxes := make([]mailbox, len(users))
	for i := range users {
		users[i] = d.User("load")
		boxes[i] = entry(d, fmt.Sprintf("load-%d", i), users[i], "check_cert: false")
	}
	arrived := newSink(t, broker)
	env := settings(t, broker.URL(), mailboxes(t, boxes...), "AMQP_CONFIRM_TIMEOUT=5s", "AMQP_HEARTBEAT=2s")
	collector := launch(t, program(t), env)
	load := new(feeder)
	faults := 0
	hurt := func(times int, what func()) {
		for range times {
			load.feed(d, users, 60+rand.IntN(100))
			<-time.After(rand.N(800 * time.Millisecond)) // at any moment of its work
			what()
			faults++
		}
	}
	hurt(campaign(4, 200), func() {
		collector.kill()
		collector = launch(t, program(t), env)
	})
	hurt(campaign(1, 20), func() {
		broker.Kill()
		broker.Start()
	})
	hurt(campaign(1, 20), func() {
		d.Kill()
		d.Start()
	})
	load.feed(d, users, 50)
	rig.Eventually(t, 3*time.Minute, "all mail arrives", func() bool { return arrived.contents() >= load.delivered })
	for _, user := range users {
		seenAll(t, d, user)
	}
	mails, duplicates := arrived.count()
	t.Logf("%d mails, %d duplicates after %d faults", mails, duplicates, faults)
	if arrived.contents() != load.delivered || duplicates > window*faults {
		t.Errorf("%d of %d mails, %d duplicates after %d faults", arrived.contents(), load.delivered, duplicates, faults)
	}
	arrived.check()
}

// A mailbox with many mails is emptied in bounded memory.
func TestLargeMailbox(t *testing.T) {
	t.Parallel()
	broker, d := rig.SharedBroker(t), rig.OwnDovecot(t)
	user := d.User("large")
	count := campaign(5_000, 100_000)
	d.Import(user, "INBOX", count, func(i int) []byte { return spam("large", i) })
	arrived := newSink(t, broker)
	collector := launch(t, program(t), settings(t, broker.URL(), mailboxes(t, entry(d, "large", user)), "IMAP_MEMORY=32MiB", "LOG_LEVEL=info"))
	rig.Eventually(t, 10*time.Minute, "all mail arrives", func() bool { return arrived.contents() >= count })
	seenAll(t, d, user)
	peak := collector.memory("VmHWM")
	mails, duplicates := arrived.count()
	t.Logf("%d mails, %d duplicates, %d MiB of memory at the height", mails, duplicates, peak>>20)
	if mails != count || duplicates > 0 || peak > 32<<20+overIdle {
		t.Errorf("%d mails, %d duplicates, %d MiB of memory", mails, duplicates, peak>>20)
	}
	arrived.check()
}

// Many mails of 10 MiB need the budget, and 64 MiB for all the rest.
func TestLargeMails(t *testing.T) {
	t.Parallel()
	broker := rig.SharedBroker(t)
	count := campaign(12, 200)
	const budget = 40 << 20
	box := func(s *hostile.Server) {
		s.Fill("INBOX", 1, count/4)
		for uid := range count / 4 {
			s.Size("INBOX", uint32(uid+1), 10<<20)
		}
	}
	var plays []*play
	var boxes []mailbox
	for i := range 4 {
		p := startPlay(t, fmt.Sprintf("large-%d", i), hostile.Scenario{Setup: box, Want: hostile.Want{Faults: -1}})
		plays, boxes = append(plays, p), append(boxes, p.mailbox())
	}
	arrived := newSink(t, broker)
	collector := launch(t, program(t), settings(t, broker.URL(), mailboxes(t, boxes...), fmt.Sprintf("IMAP_MEMORY=%d", budget)))
	for _, p := range plays {
		rig.Eventually(t, 5*time.Minute, p.name+" is done", func() bool { return p.waiting(arrived) == "" })
	}
	peak := collector.memory("VmHWM")
	t.Logf("%d mails of 10 MiB, %d MiB of memory at the height", count, peak>>20)
	if peak > budget+64<<20 {
		t.Errorf("%d MiB of memory", peak>>20)
	}
	arrived.check()
}

// Many mailboxes in IDLE over TLS need little memory and next to no time, and each is heard.
func TestThousandIdleMailboxes(t *testing.T) {
	t.Parallel()
	// Hibernated, or each mailbox would take an inotify instance, of which a user has 128.
	broker, d := rig.SharedBroker(t), rig.OwnDovecot(t, rig.WithEnv("DOVECOT_CONFIG=imap_hibernate_timeout = 1s"))
	count := campaign(100, 1000)
	users := make([]string, count)
	boxes := make([]mailbox, count)
	for i := range count {
		users[i] = fmt.Sprintf("idle-%d@trap.example", i)
		boxes[i] = entry(d, fmt.Sprintf("idle-%d", i), users[i], "poll_interval: 10m")
	}
	arrived := newSink(t, broker)
	collector := launch(t, program(t), settings(t, broker.URL(), mailboxes(t, boxes...), "LOG_LEVEL=info"))
	rig.Eventually(t, 3*time.Minute, "all mailboxes are waited on", func() bool { return d.Connections() >= count })
	rig.Eventually(t, 3*time.Minute, "the beginning is over", func() bool { // nothing is done any more
		before := collector.cpu()
		<-time.After(time.Second)
		return collector.cpu()-before <= 20*time.Millisecond
	})
	before, began := collector.cpu(), time.Now()
	<-time.After(time.Duration(campaign(10, 60)) * time.Second)
	share := float64(collector.cpu()-before) / float64(time.Since(began))
	resident := collector.memory("VmRSS")
	t.Logf("%d mailboxes: %d MiB of memory, %.2f %% of a processor", count, resident>>20, share*100)
	if most := 40<<20 + count*80<<10; resident > most || share > 0.02 {
		t.Errorf("%d mailboxes: %d MiB of memory, %.2f %% of a processor", count, resident>>20, share*100)
	}
	for _, i := range rand.Perm(count)[:10] {
		d.Deliver(users[i], "INBOX", spam("idle", i))
		arrivesAll(t, arrived, fmt.Sprintf("idle-%d", i), 1)
	}
	arrived.check()
}
