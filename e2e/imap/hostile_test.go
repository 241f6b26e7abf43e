package imap

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"spamtraps.internal/e2e/imap/hostile"
	"spamtraps.internal/libs/rig"
)

// overIdle is how much memory hostile servers may make a collector take, all of them together.
const overIdle = 64 << 20

// play is a scenario in a test: its server, and a mailbox of the same name.
type play struct {
	name     string
	scenario hostile.Scenario
	server   *hostile.Server
	first    []uint32 // the mails of INBOX that were unseen at the start
}

func startPlay(t testing.TB, name string, scenario hostile.Scenario) *play {
	t.Helper()
	p := &play{name: name, scenario: scenario, server: hostile.Start(t, name, scenario)}
	for _, uid := range p.server.UIDs("INBOX") {
		if !strings.Contains(p.server.FlagsOf("INBOX", uid), `\Seen`) {
			p.first = append(p.first, uid)
		}
	}
	return p
}

func (p *play) mailbox() mailbox {
	box := mailbox{
		"name: " + p.name, "id: " + p.name, "username: " + p.server.User, "password: " + p.server.Password, "host: 127.0.0.1",
		"port: " + strconv.Itoa(p.server.Port),
	}
	if !strings.Contains(p.scenario.Account, "tls:") {
		box = append(box, "tls: none")
	}
	if p.scenario.Account != "" {
		box = append(box, p.scenario.Account)
	}
	return box
}

// wanted are the mails that must arrive.
func (p *play) wanted() []uint32 {
	switch w := p.scenario.Want; {
	case w.Nothing || w.AtLeast > 0:
		return nil
	case w.Mails != nil:
		return w.Mails
	}
	return p.first
}

// waiting says what is still to come, "" when the scenario has played out.
func (p *play) waiting(arrived *sink) string {
	w := p.scenario.Want
	if faults := p.server.Times("fault"); w.Faults >= 0 && faults < max(1, w.Faults) {
		return fmt.Sprintf("the fault has struck %d times", faults)
	}
	got := make(map[uint32]bool)
	for from := range arrived.of(p.name) {
		if from.folder == "INBOX" {
			got[from.uid] = true
		}
	}
	if len(got) < w.AtLeast {
		return fmt.Sprintf("%d mails have arrived", len(got))
	}
	taken := make(map[uint32]bool)
	for key := range p.server.Taken() {
		taken[key.UID] = true
	}
	for _, uid := range p.wanted() {
		if !got[uid] {
			return fmt.Sprintf("mail %d has not arrived", uid)
		}
		if !taken[uid] && !w.Unmarked {
			return fmt.Sprintf("mail %d is not marked", uid)
		}
	}
	return ""
}

// judge compares what came of the scenario with what must come of it.
func (p *play) judge(t *testing.T, arrived *sink, log *console) {
	t.Helper()
	w := p.scenario.Want
	mails := arrived.of(p.name)
	p.judgeMails(t, mails)
	for key, what := range p.server.Taken() {
		if _, there := mails[origin{p.name, key.Folder, key.UIDValidity, key.UID}]; !there && len(p.server.Body(key)) > 0 {
			t.Errorf("mail %d of %s was %s and never published", key.UID, key.Folder, what)
		}
	}
	logins := len(p.server.Logins())
	if w.Logins < 0 && logins > 0 || w.Logins > 0 && logins > w.Logins {
		t.Errorf("%d logins", logins)
	}
	for _, times := range [][]time.Time{p.server.Logins(), p.server.When(`UID FETCH .*BODY`)} {
		for i := 1; i < len(times) && w.Apart > 0; i++ {
			if apart := times[i].Sub(times[i-1]); apart < w.Apart && apart > time.Second { // what is pipelined is one try
				t.Errorf("tried again after %s", apart)
			}
		}
	}
	if fetches := p.server.Asked(`UID FETCH .*BODY`); w.Fetches > 0 && fetches > w.Fetches {
		t.Errorf("%d FETCHes of bodies", fetches)
	}
	if w.Check != nil {
		if err := w.Check(p.server); err != nil {
			t.Error(err)
		}
	}
	if problems := p.server.Problems(); len(problems) > 0 {
		t.Errorf("the server did not understand: %q", problems)
	}
	events := log.events(p.name)
	if len(events) == 0 {
		t.Error("nothing is logged of the mailbox")
	}
	if w.Log != "" && !slices.ContainsFunc(events, func(e event) bool { return strings.Contains(fmt.Sprint(e), w.Log) && e.text("level") != "debug" }) {
		t.Errorf("nothing that is logged says %q:\n%.3000v", w.Log, events)
	}
}

func (p *play) judgeMails(t *testing.T, mails map[origin]arrival) {
	t.Helper()
	w := p.scenario.Want
	if w.Nothing && len(mails) > 0 {
		t.Errorf("%d mails arrived", len(mails))
	}
	for from, mail := range mails {
		key := hostile.Key{Folder: from.folder, UIDValidity: from.uidValidity, UID: from.uid}
		if mail.sha256 != hashOf(p.server.Body(key)) {
			t.Errorf("mail %d of %s (UIDVALIDITY %d) arrived with %d bytes that are not its own", from.uid, from.folder, from.uidValidity, mail.size)
		}
		if mail.copies > max(1, w.Copies) {
			t.Errorf("mail %d arrived %d times", from.uid, mail.copies)
		}
		if wanted := p.wanted(); w.AtLeast == 0 && from.folder == "INBOX" && !slices.Contains(wanted, from.uid) && !slices.Contains(w.MayAlso, from.uid) {
			t.Errorf("mail %d arrived", from.uid)
		}
	}
}

// perform lets one collector work on the mailboxes of many scenarios at once until each has played out.
func perform(t *testing.T, program string, plays []*play, limit time.Duration, more ...string) (*process, *sink) {
	t.Helper()
	broker := rig.SharedBroker(t)
	arrived := newSink(t, broker)
	boxes := make([]mailbox, 0, len(plays))
	for _, p := range plays {
		boxes = append(boxes, p.mailbox())
	}
	more = append(more, "IMAP_MAX_MESSAGE_BYTES=8MiB", "IMAP_MEMORY=16MiB")
	collector := launch(t, program, settings(t, broker.URL(), mailboxes(t, boxes...), more...))
	began := time.Now()
	left := slices.Clone(plays)
	var slowest []string // the last to play out
	for len(left) > 0 && time.Since(began) < limit {
		left = slices.DeleteFunc(left, func(p *play) bool {
			if p.waiting(arrived) != "" {
				return false
			}
			slowest = append(slowest, fmt.Sprintf("%s %s", p.name, time.Since(began).Round(time.Second/10)))
			return true
		})
		<-time.After(250 * time.Millisecond)
	}
	for _, p := range left {
		t.Errorf("%s: after %s %s", p.name, limit, p.waiting(arrived))
	}
	t.Logf("%d scenarios in %s; the last were %s", len(plays), time.Since(began).Round(time.Millisecond), strings.Join(slowest[max(0, len(slowest)-8):], ", "))
	return collector, arrived
}

// only names one scenario, for work on it.
var only = os.Getenv("SCENARIO")

func choose(t *testing.T, silent bool) []*play {
	t.Helper()
	var plays []*play
	for name, scenario := range hostile.Scenarios() {
		if silent == scenario.Want.Silent && (only == "" || only == name) {
			plays = append(plays, startPlay(t, name, scenario))
		}
	}
	return plays
}

// All servers that go wrong, in one process, which is measured. What is published is whole, what is marked is published, nobody's
// trouble is another's, and memory is bounded whatever they send.
func TestHostileServers(t *testing.T) {
	t.Parallel()
	plays := append(choose(t, false), startPlay(t, "honest", hostile.Scenario{Want: hostile.Want{Faults: -1}}))
	idle := idleMemory(t)
	collector, arrived := perform(t, program(t), plays, 2*time.Minute)
	peak := collector.memory("VmHWM")
	t.Logf("%d MiB of memory at the height, %d MiB with nothing to do", peak>>20, idle>>20)
	if peak > idle+overIdle {
		t.Errorf("%d MiB of memory, %d MiB more than with nothing to do", peak>>20, (peak-idle)>>20)
	}
	conclude(t, collector, plays, arrived)
}

// The same under the race detector, without those that are about memory.
func TestHostileServersUnderTheRaceDetector(t *testing.T) {
	t.Parallel()
	plays := choose(t, false)
	collector, arrived := perform(t, racing(t), plays, 3*time.Minute)
	conclude(t, collector, plays, arrived)
}

// Servers that fall silent are given up when they have owed an answer for IMAP_TIMEOUT, which is a minute unless it is set.
func TestSilentServers(t *testing.T) {
	t.Parallel()
	plays := append(choose(t, true), startPlay(t, "honest", hostile.Scenario{Want: hostile.Want{Faults: -1}}))
	collector, arrived := perform(t, program(t), plays, time.Minute, "IMAP_TIMEOUT=3s")
	conclude(t, collector, plays, arrived)
}

func conclude(t *testing.T, collector *process, plays []*play, arrived *sink) {
	t.Helper()
	_, ready := collector.get("/readyz")
	_, metrics := collector.get("/metrics")
	if code := collector.terminate(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, p := range plays {
		t.Run(p.name, func(t *testing.T) { p.judge(t, arrived, collector.log) })
	}
	arrived.check()
	for page, text := range map[string]string{"the log": collector.log.String(), "/readyz": ready, "/metrics": metrics} {
		if i := strings.Index(text, "geheim"); i >= 0 {
			t.Errorf("%s shows a password: %.300s", page, text[max(0, i-150):])
		}
	}
}

// idleMemory is what a collector takes that has one empty mailbox.
func idleMemory(t *testing.T) int {
	t.Helper()
	empty := startPlay(t, "empty", hostile.Scenario{Setup: func(*hostile.Server) {}, Want: hostile.Want{Nothing: true, Faults: -1}})
	collector, _ := perform(t, program(t), []*play{empty}, time.Minute)
	rig.Eventually(t, time.Minute, "the empty mailbox is waited on", func() bool { return empty.server.Asked("IDLE") > 0 })
	defer collector.kill()
	return collector.memory("VmHWM")
}
