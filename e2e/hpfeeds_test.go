package e2e

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/libs/rig"
)

// bridgeEnv is how Compose tells hpfeeds-bridge where its mails come from.
func bridgeEnv(t *testing.T, broker *rig.Broker) []string {
	t.Helper()
	return []string{"AMQP_HOST=rabbitmq", "AMQP_TLS=false", "AMQP_IDENT=bridge", "AMQP_SECRET=" + broker.UserPassword("bridge")}
}

// volume makes a volume that goes with the test.
func volume(t *testing.T) string {
	t.Helper()
	name := rig.Docker(t, "volume", "create")
	t.Cleanup(func() { rig.Docker(t, "volume", "rm", "-f", name) })
	return name
}

// bridgeQueues returns which queues the exchange of mails leads to.
func bridgeQueues(broker *rig.Broker) (bound []string) {
	var bindings []struct{ Destination string }
	broker.API(http.MethodGet, "/api/exchanges/%2F/spam/bindings/source", nil, &bindings)
	for _, b := range bindings {
		bound = append(bound, b.Destination)
	}
	return bound
}

// TestBridgeImageWithoutABroker: it says once that it is not configured, is healthy and touches nothing.
func TestBridgeImageWithoutABroker(t *testing.T) {
	network := rig.NewNetwork(t)
	broker := rig.OwnBroker(t, rig.WithNetwork(network))
	bridge := rig.Run(t, rig.Image(t, "hpfeeds-bridge"), rig.Options{Network: network, Args: hardened, Env: bridgeEnv(t, broker)})
	healthy(t, bridge)
	log, err := exec.CommandContext(t.Context(), "docker", "logs", bridge.Name).CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(log), "no hpfeeds broker is configured"); n != 1 {
		t.Errorf("it says so %d times:\n%s", n, log)
	}
	if bound := bridgeQueues(broker); slices.Contains(bound, "spam.hpfeeds") {
		t.Errorf("it has bound a queue: %v", bound)
	}
}

// TestFeedFromQueueToSubscriber: the images as Compose puts them together, with the secrets that the small broker makes.
func TestFeedFromQueueToSubscriber(t *testing.T) {
	network := rig.NewNetwork(t)
	rabbit := rig.OwnBroker(t, rig.WithNetwork(network))
	writer, reader := volume(t), volume(t)
	// Compose may create the bridge first: the volume is then the broker's to write all the same.
	first := rig.Docker(t, "create", "-v", writer+":/run/secrets/hpfeeds:ro", rig.Image(t, "hpfeeds-bridge"))
	t.Cleanup(func() { rig.Docker(t, "rm", "-f", "-v", first) })
	broker := rig.Run(t, rig.Image(t, "hpfeeds-broker"), rig.Options{
		Network: network, Alias: "hpfeeds-broker", Args: append(slices.Clone(hardened), "-v", writer+":/secrets/writer", "-v", reader+":/secrets/reader"),
		Env: []string{"BROKER_EXACT=true", "BROKER_HOLD=1"},
	})
	healthy(t, broker)
	feed := []string{"HPFEEDS_HOST=hpfeeds-broker", "HPFEEDS_SECRET_FILE=/run/secrets/hpfeeds/password"}
	tail := rig.Run(t, rig.Image(t, "hpfeeds-bridge"), rig.Options{
		Network: network, Args: append(slices.Clone(hardened), "-v", reader+":/run/secrets/hpfeeds:ro"),
		Env: append(slices.Clone(feed), "HPFEEDS_IDENT=reader"), Command: []string{"tail"},
	})
	env := append(append(bridgeEnv(t, rabbit), feed...), "BRIDGE_FENCE_CHANNEL=spam.fence", "BRIDGE_CONFIRM=fence")
	args := append(slices.Clone(hardened), "-v", writer+":/run/secrets/hpfeeds:ro")
	bridge := rig.Run(t, rig.Image(t, "hpfeeds-bridge"), rig.Options{Network: network, Args: args, Env: env})
	healthy(t, bridge)
	rig.Eventually(t, time.Minute, "the bridge's queue is bound", func() bool { return slices.Contains(bridgeQueues(rabbit), "spam.hpfeeds") })

	const mails = 300
	var want []string
	conn, err := amqp091.Dial(rabbit.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	for i := range mails {
		body := fmt.Appendf(nil, "Subject: mail %d\r\n\r\n%s\r\n", i, strings.Repeat("x", 10_000))
		want = append(want, fmt.Sprintf("%x  mail %d", sha256.Sum256(body), i))
		m := amqp091.Publishing{Body: body, DeliveryMode: amqp091.Persistent, MessageId: fmt.Sprint("id-", i), ContentType: "message/rfc822"}
		if err := ch.PublishWithContext(t.Context(), "spam", "spam.mails", true, false, m); err != nil {
			t.Fatal(err)
		}
		switch i {
		case 100:
			bridge.Kill()
			bridge.Start()
		case 200:
			broker.Kill()
			broker.Start()
		}
	}
	line := regexp.MustCompile(`[0-9a-f]{64}  mail \d+`)
	var got []string
	rig.Eventually(t, time.Minute, "all mails come to the subscriber", func() bool {
		got = line.FindAllString(tail.Logs(), -1)
		slices.Sort(got)
		got = slices.Compact(got)
		return len(got) >= mails
	})
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%d mails came, and they are not those that were sent", len(got))
	}

	check := []string{"run", "--rm", "--network", network, "-v", writer + ":/run/secrets/hpfeeds:ro"}
	for _, e := range env {
		check = append(check, "-e", e)
	}
	said := rig.Docker(t, append(check, rig.Image(t, "hpfeeds-bridge"), "check", "--publish")...)
	for _, want := range []string{`ok    rabbitmq: queue "spam.hpfeeds" is there`, "ok    fence: ", `ok    channel "spam.mails": a test message was taken`} {
		if !strings.Contains(said, want) {
			t.Errorf("check does not say %q:\n%s", want, said)
		}
	}
}
