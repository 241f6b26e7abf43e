package contract_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/libs/envelope"
	"spamtraps.internal/libs/rig"
)

const python = "/usr/bin/python3"

func sha256Hex(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// mail is the line that a consumer prints.
type mail struct {
	MessageID string   `json:"message_id"`
	Intact    bool     `json:"intact"`
	MailFrom  string   `json:"mail_from"`
	RcptTo    []string `json:"rcpt_to"`
}

// stage is a vhost with the exchange, and the page's two programs waiting there, each at its own queue, as the image's user reader.
type stage struct {
	channel   *amqp091.Channel
	consumers map[string]*consumer // by the name of their queue
}

func newStage(t *testing.T) *stage {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), python, "-c", "import pika").CombinedOutput(); err != nil {
		t.Fatalf("%s cannot import pika: run `make deps`, which installs python3-pika: %v\n%s", python, err, out)
	}
	binary := filepath.Join(t.TempDir(), "consumer")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./consumer").CombinedOutput(); err != nil {
		t.Fatalf("build the Go consumer: %v\n%s", err, out)
	}
	broker := rig.SharedBroker(t)
	channel := dial(t, broker)
	if err := channel.ExchangeDeclare("spam", "topic", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	reader := readerURL(t, broker)
	return &stage{channel, map[string]*consumer{
		"reader.python": startConsumer(t, reader, python, filepath.Join(rig.Root(t), pythonConsumer), "reader.python"),
		"reader.go":     startConsumer(t, reader, binary, "reader.go"),
	}}
}

func (s *stage) publish(t *testing.T, messages ...amqp091.Publishing) {
	t.Helper()
	for _, m := range messages {
		if err := s.channel.PublishWithContext(t.Context(), "spam", "spam.mails", true, false, m); err != nil {
			t.Fatal(err)
		}
	}
}

// TestConsumers: each program gets every mail once, decoded, also more mails than its prefetch: it would not if it did not
// acknowledge.
func TestConsumers(t *testing.T) {
	s := newStage(t)
	normal := message(t, "Subject: you won\r\n\r\n", "bounce@spam.example", "trap@example.org", "Büro@müller.example")
	hostile := message(t, "\x00\xff\r\n", "<\"\x1b[2J\xff>@spam.example", "trap@example.org", "\x80@example.org")
	altered := message(t, "Subject: whole\r\n\r\n", "", "trap@example.org")
	altered.Body = altered.Body[:10]
	want := []mail{
		{normal.MessageId, true, "bounce@spam.example", []string{"trap@example.org", "Büro@müller.example"}},
		{hostile.MessageId, true, "<\"\x1b[2J\ufffd>@spam.example", []string{"trap@example.org", "\ufffd@example.org"}},
		{altered.MessageId, false, "", []string{"trap@example.org"}},
	}
	s.publish(t, normal, normal, hostile, altered)
	for i := range 20 {
		m := message(t, fmt.Sprintf("Subject: %d\r\n\r\n", i), "", "trap@example.org")
		want = append(want, mail{m.MessageId, true, "", []string{"trap@example.org"}})
		s.publish(t, m)
	}
	for name, c := range s.consumers {
		for i := range want {
			var got mail
			if line := next(t, c.stdout); json.Unmarshal([]byte(line), &got) != nil || !reflect.DeepEqual(got, want[i]) {
				t.Fatalf("%s, mail %d: got %s, want %+v", name, i, line, want[i])
			}
		}
	}
}

// TestConsumersStopAtAnotherContract: a message of a version to come ends the program and stays in its queue.
func TestConsumersStopAtAnotherContract(t *testing.T) {
	s := newStage(t)
	m := message(t, "Subject: you won\r\n\r\n", "bounce@spam.example", "trap@example.org")
	m.Headers["contract"] = int64(envelope.Contract + 1)
	s.publish(t, m)
	for name, c := range s.consumers {
		if said := next(t, c.stderr); !strings.Contains(said, "contract that is not known") {
			t.Errorf("%s says %q", name, said)
		}
		if printed := next(t, c.stdout); printed != "" {
			t.Errorf("%s printed %q", name, printed)
		}
		rig.Eventually(t, 30*time.Second, name+" holds the message again", func() bool {
			queue, err := s.channel.QueueDeclarePassive(name, true, false, false, false, nil)
			return err == nil && queue.Messages == 1
		})
	}
}

func dial(t *testing.T, broker *rig.Broker) *amqp091.Channel {
	t.Helper()
	connection, err := amqp091.Dial(broker.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	channel, err := connection.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return channel
}

// readerURL gives the image's user reader the same rights in the test's vhost that the image gives it in /, and returns
// the URL that it connects with.
func readerURL(t *testing.T, broker *rig.Broker) string {
	t.Helper()
	var rights struct{ Configure, Write, Read string }
	broker.API(http.MethodGet, "/api/permissions/%2F/reader", nil, &rights)
	broker.Permit("reader", broker.VHost, rights.Configure, rights.Write, rights.Read)
	u, err := url.Parse(broker.URL())
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("reader", broker.UserPassword("reader"))
	return u.String()
}

// consumer is a running program of the page.
type consumer struct {
	stdout, stderr <-chan string // its lines; closed when it has ended
}

// startConsumer returns when the program's queue is bound. The program is killed when the test ends.
func startConsumer(t *testing.T, brokerURL string, command ...string) *consumer {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "AMQP_URL="+brokerURL)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() }) // the test's context has ended by now, which killed it
	c := &consumer{stdout: lines(stdout), stderr: lines(stderr)}
	if line := next(t, c.stderr); !strings.HasPrefix(line, "waiting for mail in ") {
		t.Fatalf("%s says %q", command, line)
	}
	return c
}

// lines returns a channel of the lines that r has; it has room for more than any test here makes.
func lines(r io.Reader) <-chan string {
	found := make(chan string, 1000)
	go func() {
		defer close(found)
		for scanner := bufio.NewScanner(r); scanner.Scan(); {
			found <- scanner.Text()
		}
	}()
	return found
}

// next returns the next line, "" when the program has ended.
func next(t *testing.T, lines <-chan string) string {
	t.Helper()
	select {
	case line := <-lines:
		return line
	case <-time.After(30 * time.Second):
		t.Fatal("the consumer printed nothing for 30 s")
	}
	return ""
}
