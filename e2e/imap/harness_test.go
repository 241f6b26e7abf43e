// Package imap holds the tests of imap-collector as its users have it: the built program, real brokers, a real Dovecot, and servers
// that go wrong.
package imap

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
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

	"spamtraps.internal/libs/envelope"
	"spamtraps.internal/libs/rig"
)

// campaign returns how often something is tried: a few times, or often when CAMPAIGN=full.
func campaign(few, often int) int {
	if os.Getenv("CAMPAIGN") == "full" {
		return often
	}
	return few
}

// programs are built once, each when the first test wants it.
var programs struct {
	plain, race sync.Once
	dir         string
	problem     map[string]error
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "imap-collector")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	programs.dir, programs.problem = dir, make(map[string]error)
	return m.Run()
}

// program returns the path of the program as it is shipped: measurements are of this one.
func program(t testing.TB) string {
	t.Helper()
	programs.plain.Do(func() { build(t, "plain") })
	return built(t, "plain")
}

// racing returns the path of the program with the race detector in it, which ends it with a code of its own.
func racing(t testing.TB) string {
	t.Helper()
	programs.race.Do(func() { build(t, "race", "-race") })
	return built(t, "race")
}

func build(t testing.TB, name string, flags ...string) {
	t.Helper()
	args := append([]string{"build", "-C", filepath.Join(rig.Root(t), "services", "imap-collector"), "-o", filepath.Join(programs.dir, name)}, flags...)
	if out, err := exec.CommandContext(context.Background(), "go", append(args, ".")...).CombinedOutput(); err != nil {
		programs.problem[name] = fmt.Errorf("%w: %s", err, out)
	}
}

func built(t testing.TB, name string) string {
	t.Helper()
	if err := programs.problem[name]; err != nil {
		t.Fatalf("go build: %v", err)
	}
	return filepath.Join(programs.dir, name)
}

// mailbox is an entry of mailboxes.yml, line by line without indentation.
type mailbox []string

// mailboxes writes a mailboxes.yml and returns its path.
func mailboxes(t testing.TB, boxes ...mailbox) string {
	t.Helper()
	var text strings.Builder
	text.WriteString("---\n")
	for _, box := range boxes {
		text.WriteString("- " + strings.Join(box, "\n  ") + "\n")
	}
	path := filepath.Join(t.TempDir(), "mailboxes.yml")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// settings are those of a collector that works on the mailboxes of a file until it is told to stop. Everything is on one host here, so that
// the bounds for one host are wide.
func settings(t testing.TB, url, mailboxes string, more ...string) []string {
	t.Helper()
	return append([]string{
		"AMQP_URL=" + url, "MAILBOX_CONFIG=" + mailboxes, "IMAP_CONTINUOUS=true", "IMAP_STATE=" + t.TempDir(), "IMAP_MAX_PER_HOST=0", "IMAP_LOGIN_RATE=10000",
		"IMAP_POLL_INTERVAL=10s", "ADMIN_ADDR=127.0.0.1:0", "SENSOR=sensor-1", "SHUTDOWN_TIMEOUT=10s", "LOG_LEVEL=debug",
	}, more...)
}

// console is what a program writes, readable while it does.
type console struct {
	mu     sync.Mutex
	all    bytes.Buffer
	parsed []event // of the first lines
	upTo   int     // where the next one begins
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

// event is one line of the log.
type event map[string]any

func (e event) text(field string) string {
	text, _ := e[field].(string)
	return text
}

// events returns what was logged, of one mailbox if mailbox is not empty. A line is parsed once, however often it is asked for.
func (c *console) events(mailbox string) []event {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := c.all.Bytes()[c.upTo:]
	text = text[:bytes.LastIndexByte(text, '\n')+1]
	for line := range bytes.Lines(text) {
		var e event
		if json.Unmarshal(line, &e) == nil {
			c.parsed = append(c.parsed, e)
		}
	}
	c.upTo += len(text)
	var found []event
	for _, e := range c.parsed {
		if mailbox == "" || e["mailbox"] == mailbox {
			found = append(found, e)
		}
	}
	return found
}

// process is a collector in a process of its own.
type process struct {
	t   testing.TB
	cmd *exec.Cmd
	log *console
	end chan struct{} // closed when it has ended
}

// launch starts a program with these settings. It is killed at the end of the test if it still runs then.
func launch(t testing.TB, program string, env []string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.CommandContext(context.Background(), program), log: new(console), end: make(chan struct{})}
	p.cmd.Env, p.cmd.Stderr, p.cmd.Stdout = env, p.log, p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // the exit code says it
		close(p.end)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			text := p.log.String()
			t.Logf("the end of the collector's log:\n%s", text[max(0, len(text)-6000):])
		}
		if strings.Contains(p.log.String(), "DATA RACE") {
			t.Errorf("the race detector has found something:\n%.8000s", afterText(p.log.String(), "WARNING: DATA RACE"))
		}
	})
	return p
}

func afterText(text, mark string) string {
	_, after, _ := strings.Cut(text, mark)
	return mark + after
}

// kill ends it as a power cut would, and waits for its end.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.end
}

// terminate sends SIGTERM and returns the exit code.
func (p *process) terminate() int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	return p.exit(30 * time.Second)
}

// exit waits for the end and returns the exit code.
func (p *process) exit(limit time.Duration) int {
	p.t.Helper()
	select {
	case <-p.end:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(limit):
		p.t.Fatalf("the collector has not ended after %s", limit)
		return -1
	}
}

// get returns a page of the admin port, and its status.
func (p *process) get(page string) (int, string) {
	p.t.Helper()
	addr := ""
	rig.Eventually(p.t, 30*time.Second, "the collector listens on its admin port", func() bool {
		for _, e := range p.log.events("") {
			if e.text("message") == "listening" {
				addr = e.text("addr")
			}
		}
		return addr != ""
	})
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+addr+page, http.NoBody)
	if err != nil {
		p.t.Fatal(err)
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// memory returns the resident memory of the process, now ("VmRSS") or at its height ("VmHWM"), in bytes.
func (p *process) memory(which string) int {
	p.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), which+":")
	var kib int
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		p.t.Fatal(err)
	}
	return kib << 10
}

// cpu returns the processor time that the process has had.
func (p *process) cpu() time.Duration {
	p.t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	words := strings.Fields(rest)
	ticks := 0
	for _, word := range words[11:13] { // utime and stime, proc(5)
		n, err := strconv.Atoi(word)
		if err != nil {
			p.t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100
}

// origin is where a mail came from.
type origin struct {
	mailbox, folder  string
	uidValidity, uid uint32
}

// arrival is what came of one mail.
type arrival struct {
	copies    int
	sha256    string
	size      int
	messageID string
	junk      bool
	last      time.Time
}

// sink takes mails out of the backlog queue as they come, and remembers them.
type sink struct {
	t testing.TB

	mu       sync.Mutex
	mails    map[origin]arrival
	hashes   map[string]int // how often each content came
	copies   int
	problems []string
}

// newSink consumes the backlog queue of the broker's vhost, which it makes as the collector would, until the test ends.
func newSink(t testing.TB, broker *rig.Broker) *sink {
	t.Helper()
	s := &sink{t: t, mails: make(map[origin]arrival), hashes: make(map[string]int)}
	stop := make(chan struct{})
	ended := make(chan struct{})
	conn, deliveries := consume(t, broker)
	go func() {
		defer close(ended)
		for {
			for delivery := range deliveries {
				s.take(&delivery)
				_ = delivery.Ack(false) // if it fails, the mail comes again
			}
			_ = conn.Close()
			var err error
			for conn, deliveries, err = subscribe(broker); err != nil; conn, deliveries, err = subscribe(broker) {
				select {
				case <-stop:
					return
				case <-time.After(100 * time.Millisecond):
				}
			}
			select {
			case <-stop:
				_ = conn.Close()
				return
			default:
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		_ = conn.Close()
		<-ended
	})
	return s
}

func consume(t testing.TB, broker *rig.Broker) (*amqp091.Connection, <-chan amqp091.Delivery) {
	t.Helper()
	conn, deliveries, err := subscribe(broker)
	if err != nil {
		t.Fatal(err)
	}
	return conn, deliveries
}

func subscribe(broker *rig.Broker) (*amqp091.Connection, <-chan amqp091.Delivery, error) {
	conn, err := amqp091.Dial(broker.URL())
	if err != nil {
		return nil, nil, err
	}
	deliveries, err := bind(conn)
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	return conn, deliveries, nil
}

func bind(conn *amqp091.Connection) (<-chan amqp091.Delivery, error) {
	channel, err := conn.Channel()
	if err != nil {
		return nil, err
	}
	// An existing queue is taken as it is; a refused declaration would close the channel, so it is asked for on one of its own.
	if _, err := channel.QueueDeclarePassive("spam.mails", true, false, false, false, nil); err != nil {
		if channel, err = conn.Channel(); err != nil {
			return nil, err
		}
		if err := declare(channel, amqp091.Table{"x-queue-type": "quorum"}); err != nil {
			return nil, err
		}
	}
	if err := channel.Qos(500, 0, false); err != nil {
		return nil, err
	}
	return channel.Consume("spam.mails", "", false, false, false, false, nil)
}

func (s *sink) take(delivery *amqp091.Delivery) {
	e, err := envelope.Parse(delivery)
	sum := sha256.Sum256(delivery.Body)
	hash := hex.EncodeToString(sum[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		s.problem("%v", err)
		return
	case e.IMAP == nil:
		s.problem("a mail that came by something else: %s", e.MessageID)
		return
	case e.SHA256 != hash || e.Size != int64(len(delivery.Body)):
		s.problem("%s is not what its headers say", e.MessageID)
	}
	if delivery.Redelivered {
		// Once more from the broker, after our own connection has ended: the collector has no part in it.
		if known, there := s.mails[from(e)]; there && known.sha256 == hash {
			return
		}
	}
	known := s.mails[from(e)]
	if known.copies > 0 && (known.messageID != e.MessageID || known.sha256 != hash) {
		s.problem("%v came as %s (%s) and as %s (%s)", from(e), known.messageID, known.sha256, e.MessageID, hash)
	}
	s.mails[from(e)] = arrival{copies: known.copies + 1, sha256: hash, size: len(delivery.Body), messageID: e.MessageID, junk: e.IMAP.Junk, last: time.Now()}
	s.hashes[hash]++
	s.copies++
}

func from(e *envelope.Envelope) origin {
	return origin{mailbox: e.IMAP.Mailbox, folder: e.IMAP.Folder, uidValidity: e.IMAP.UIDValidity, uid: e.IMAP.UID}
}

// problem notes what is wrong with what arrived. The mutex is held.
func (s *sink) problem(format string, args ...any) {
	if len(s.problems) < 20 {
		s.problems = append(s.problems, fmt.Sprintf(format, args...))
	}
}

// of returns what came from one mailbox.
func (s *sink) of(mailbox string) map[origin]arrival {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := make(map[origin]arrival)
	for from, mail := range s.mails {
		if from.mailbox == mailbox {
			found[from] = mail
		}
	}
	return found
}

// count returns how many different mails came, and how many copies of them were too many.
func (s *sink) count() (mails, duplicates int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mails), s.copies - len(s.mails)
}

// contents returns how many different contents came.
func (s *sink) contents() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.hashes)
}

// check fails the test if anything that came was not as it should be.
func (s *sink) check() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, problem := range s.problems {
		s.t.Error(problem)
	}
}

func hashOf(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// declareFull makes the backlog queue one that refuses what is more than a few mails.
func declareFull(t testing.TB, broker *rig.Broker, most int) {
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
	if err := declare(channel, amqp091.Table{"x-queue-type": "quorum", "x-max-length": most, "x-overflow": "reject-publish"}); err != nil {
		t.Fatal(err)
	}
}

// declare makes exchange, queue and binding. A queue that is there is taken as it is.
func declare(channel *amqp091.Channel, args amqp091.Table) error {
	if err := channel.ExchangeDeclare("spam", amqp091.ExchangeTopic, true, false, false, false, nil); err != nil {
		return err
	}
	if _, err := channel.QueueDeclare("spam.mails", true, false, false, false, args); err != nil {
		return err
	}
	return channel.QueueBind("spam.mails", "spam.mails", "spam", false, nil)
}
