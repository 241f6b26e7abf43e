package main

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/libs/amqp/amqptest"
	"spamtraps.internal/libs/daemon"
	"spamtraps.internal/libs/hpfeeds/hpfeedstest"
	"spamtraps.internal/libs/rig"
)

// deadletter runs the subcommand, and returns its exit code and what it printed.
func deadletter(env []string, args ...string) (code int, stdout, stderr string) {
	var out, problem console
	code = daemon.Main(service(), daemon.Process{Args: append([]string{"deadletter"}, args...), Env: env, Stdout: &out, Stderr: &problem})
	return code, out.String(), problem.String()
}

// A mail that was too large is listed, shown, exported and requeued, by a user with the rights of our image, and published when the limit is higher.
func TestDeadletter(t *testing.T) {
	t.Parallel()
	broker := rig.SharedBroker(t)
	feed := hpfeedstest.Start(t, hpfeedstest.Config{Users: users(), Manners: hpfeedstest.HPFBroker})
	a := listen(t, feed.Port, "spam.mails")
	env := settings(broker.URL(), feed.Port, "BRIDGE_FENCE_CHANNEL="+fenceChannel)
	in := boot(t, append(env, "HPFEEDS_MAX_PAYLOAD=1000"))
	in.log.awaitReady(t, 30*time.Second)
	s := newSender(t, broker.URL())
	large := body("large", 2000)
	s.send(t.Context(), "large", large)
	s.send(t.Context(), "../odd\x1b", body("odd", 3000))
	rig.Eventually(t, 20*time.Second, "both are dead-lettered", func() bool { return depth(t, broker, "spam.dead") == 2 && depth(t, broker, "spam.hpfeeds") == 0 })
	in.stop()

	user := "bridge-" + broker.VHost
	broker.MakeUser(user, password)
	broker.Permit(user, broker.VHost, `^spam\.hp`, `^spam\.(hp|dead$)`, `^spam($|\.hp|\.dead$)`) // as in docker/rabbitmq/entrypoint
	least := (&url.URL{Scheme: "amqp", User: url.UserPassword(user, password), Host: fmt.Sprintf("%s:%d", broker.Host, broker.Port)}).String() + "/" + url.PathEscape(broker.VHost)
	env[0] = "AMQP_URL=" + least

	for range 25 { // more looks than a quorum queue has deliveries
		code, out, _ := deadletter(env)
		if code != daemon.ExitOK || !strings.Contains(out, "oversize") || !strings.Contains(out, "large") || strings.Contains(out, "\x1b") || strings.Count(out, "\n") != 3 {
			t.Fatalf("list: %d\n%s", code, out)
		}
	}
	if n := depth(t, broker, "spam.dead"); n != 2 {
		t.Fatalf("%d dead letters are left after looking", n)
	}
	if code, out, _ := deadletter(env, "show", "large"); code != daemon.ExitOK || !strings.Contains(out, `"bridge_reason": "oversize"`) || !strings.Contains(out, `"size": 2000`) {
		t.Errorf("show: %d\n%s", code, out)
	}
	if code, _, problem := deadletter(env, "show", "nothing"); code != daemon.ExitFailed || !strings.Contains(problem, "nothing: there is no such mail in queue \"spam.dead\"") {
		t.Errorf("show: %d %s", code, problem)
	}
	folder := filepath.Join(t.TempDir(), "out")
	if code, _, problem := deadletter(env, "export", folder); code != daemon.ExitOK || !strings.Contains(problem, "2 mails copied") {
		t.Errorf("export: %d %s", code, problem)
	}
	if got, err := os.ReadFile(filepath.Join(folder, "large.eml")); err != nil || !bytes.Equal(got, large) {
		t.Errorf("exported: %v, %d bytes", err, len(got))
	}
	if files, _ := filepath.Glob(filepath.Join(folder, "*")); len(files) != 4 {
		t.Errorf("files: %v", files)
	}
	if code, _, problem := deadletter(env, "export", folder); code != daemon.ExitFailed || !strings.Contains(problem, "file exists") {
		t.Errorf("export over files that exist: %d %s", code, problem)
	}
	if code, out, _ := deadletter(env, "export", "-", "large"); code != daemon.ExitOK || out != string(large) {
		t.Errorf("export -: %d", code)
	}
	for _, args := range [][]string{{"eat"}, {"requeue"}, {"requeue", "all", "x"}, {"show"}, {"export"}, {"export", "-"}, {"list", "x"}} {
		if code, _, problem := deadletter(env, args...); code != daemon.ExitRefused || strings.Count(problem, "\n") != 1 {
			t.Errorf("%v: %d %s", args, code, problem)
		}
	}

	if code, _, problem := deadletter(env, "requeue", "large"); code != daemon.ExitOK || !strings.Contains(problem, `1 mails are in queue "spam.hpfeeds" again`) {
		t.Errorf("requeue: %d %s", code, problem)
	}
	if code, _, problem := deadletter(env, "requeue", "all"); code != daemon.ExitOK || !strings.Contains(problem, "1 mails are") {
		t.Errorf("requeue: %d %s", code, problem)
	}
	if n := depth(t, broker, "spam.dead"); n != 0 {
		t.Errorf("%d dead letters are left", n)
	}
	for _, d := range amqptest.Queue(broker.URL(), "spam.hpfeeds").Messages(t) {
		for name := range d.Headers {
			if strings.HasPrefix(name, "bridge_") {
				t.Errorf("%s has the header %s", d.MessageId, name)
			}
		}
		if err := s.Publish(t.Context(), amqp091.Publishing{MessageId: d.MessageId, DeliveryMode: amqp091.Persistent, Body: d.Body}); err != nil {
			t.Fatal(err)
		}
	}
	boot(t, append(env, "HPFEEDS_MAX_PAYLOAD=10000")).log.awaitReady(t, 30*time.Second)
	rig.Eventually(t, 20*time.Second, "they come after all", func() bool { return a.count() == 2 })
}
