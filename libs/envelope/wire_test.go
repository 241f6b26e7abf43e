package envelope_test

import (
	"bytes"
	"encoding/binary"
	"maps"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/libs/envelope"
	"spamtraps.internal/libs/rig"
)

// TestWire sends messages through a real broker: their headers take on the wire what was counted, the broker takes even
// the largest, and what a consumer gets parses to what was sent.
func TestWire(t *testing.T) {
	mostElements := fullList(func(int) string { return "" })
	largest := worst(mostElements.List())
	sent := append(slices.Collect(maps.Values(samples())), worst(nil), largest)

	wire, channel := dialTapped(t, rig.SharedBroker(t).URL())
	queue, err := channel.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	deliveries, err := channel.Consume(queue.Name, "", true, true, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	wire.reset()
	for _, e := range sent {
		if err := channel.PublishWithContext(t.Context(), "", queue.Name, true, false, publishing(t, e)); err != nil {
			t.Fatal(err)
		}
	}

	for i, e := range sent {
		got := receive(t, deliveries)
		if got.MessageId != e.MessageID || got.AppId != e.App || got.Timestamp.Unix() != e.ReceivedAt.Unix() ||
			got.ContentType != "message/rfc822" || got.Type != "mail" || got.DeliveryMode != 2 || string(got.Body) != body {
			t.Errorf("message %d arrived as %+v", i, got)
		}
		before, err := envelope.Parse(delivery(publishing(t, e)))
		if err != nil {
			t.Fatal(err)
		}
		after, err := envelope.Parse(got)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(before, after) {
			t.Errorf("message %d arrived as %+v, want %+v", i, after, before)
		}
	}

	sizes := wire.tableSizes(t)
	if len(sizes) != len(sent) {
		t.Fatalf("%d header frames were sent, want %d", len(sizes), len(sent))
	}
	for i, e := range sent {
		if counted := envelope.TableSize(publishing(t, e).Headers); counted != sizes[i] {
			t.Errorf("message %d: headers take %d bytes on the wire, counted were %d", i, sizes[i], counted)
		}
	}
}

func receive(t *testing.T, deliveries <-chan amqp091.Delivery) *amqp091.Delivery {
	t.Helper()
	select {
	case d, open := <-deliveries:
		if !open {
			t.Fatal("the broker closed the channel")
		}
		return &d
	case <-time.After(30 * time.Second):
		t.Fatal("no delivery within 30 s")
	}
	return nil
}

// tap keeps what was written to a connection.
type tap struct {
	net.Conn
	mu   sync.Mutex
	sent bytes.Buffer
}

func dialTapped(t *testing.T, url string) (*tap, *amqp091.Channel) {
	t.Helper()
	wire := new(tap)
	connection, err := amqp091.DialConfig(url, amqp091.Config{Dial: func(network, addr string) (net.Conn, error) {
		conn, err := amqp091.DefaultDial(10*time.Second)(network, addr)
		wire.Conn = conn
		return wire, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	channel, err := connection.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return wire, channel
}

func (c *tap) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.sent.Write(p)
	c.mu.Unlock()
	return c.Conn.Write(p)
}

func (c *tap) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent.Reset()
}

// tableSizes returns the size of the header table of each message that was published since reset.
func (c *tap) tableSizes(t *testing.T) []int {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	// AMQP 0-9-1 §4.2.3: type, channel, size, payload, end. §4.2.6.1: in a header frame come class, weight, body size and
	// flags, then the properties, of which content type is the first and headers are the third; the second is not set.
	const frameHead, headerFrame, contentHead = 7, 2, 2 + 2 + 8 + 2
	var sizes []int
	for rest := c.sent.Bytes(); len(rest) > frameHead; {
		end := frameHead + int(binary.BigEndian.Uint32(rest[3:]))
		if rest[0] == headerFrame {
			payload := rest[frameHead:end]
			if !strings.HasPrefix(string(payload[contentHead+1:]), envelope.ContentType) {
				t.Fatalf("the header frame starts with %q", payload[:40])
			}
			table := payload[contentHead+1+len(envelope.ContentType):]
			sizes = append(sizes, 4+int(binary.BigEndian.Uint32(table)))
		}
		rest = rest[end+1:]
	}
	return sizes
}
