package amqp

import (
	"fmt"
	"strings"
	"testing"

	"github.com/rabbitmq/amqp091-go"
)

type badMessage struct {
	name    string
	message amqp091.Publishing
	says    string
}

func badMessages() []badMessage {
	with := func(headers amqp091.Table) amqp091.Publishing {
		m := message("a", 10)
		m.Headers = headers
		return m
	}
	var many []any
	for i := range 2000 {
		many = append(many, fmt.Sprintf("%070d", i))
	}
	long := strings.Repeat("x", 256)
	return []badMessage{
		{"no id", message("", 10), "no message id"},
		{"long id", message(long, 10), "message_id has 256 bytes"},
		{"long type", amqp091.Publishing{MessageId: "a", Type: long}, "type has 256 bytes"},
		{"long name of a header", with(amqp091.Table{long: 1}), "the name of a header has 256 bytes"},
		{"long name deep down", with(amqp091.Table{"a": []any{amqp091.Table{long: 1}}}), "the name of a header has 256 bytes"},
		{"foreign type", with(amqp091.Table{"a": uint64(1)}), "AMQP has no type for"},
		{"large headers", with(amqp091.Table{"rcpt_to": many}), "at most 65536 fit"},
		{"large header", with(amqp091.Table{"a": strings.Repeat("x", 64<<10)}), "at most 65536 fit"},
		{"large body", message("a", 1001), "the message has 1001 bytes, and the broker takes 1000"},
	}
}

// The size that is checked is never below what the library writes.
func TestTableSize(t *testing.T) {
	for _, table := range []amqp091.Table{
		nil,
		{"a": "b"},
		{"a": []any{"x", "yy", int32(1)}, "b": amqp091.Table{"c": []byte("raw")}, "d": int64(5), "e": true, "f": nil},
	} {
		got, err := tableSize(table)
		if err != nil {
			t.Fatal(err)
		}
		if want := encodedSize(t, table); got < want || got > want+8*len(table)+8*4 {
			t.Errorf("%v: %d bytes, and the library writes %d", table, got, want)
		}
	}
}

// encodedSize lets the library write a table, as the headers of a message to a scripted broker.
func encodedSize(t *testing.T, table amqp091.Table) int {
	t.Helper()
	sizes := make(chan int, 1)
	broker := newPeer(t, func(c *peerConn, channel uint16, tag uint64) { c.ack(channel, tag) })
	broker.header = func(payload []byte) { sizes <- len(payload) }
	p := run(t, broker.settings())
	p.waitReady(testPatience)
	plain, headed := message("a", 10), message("a", 10)
	plain.Headers, headed.Headers = amqp091.Table{"": nil}, table
	size := func(m amqp091.Publishing) int {
		if err := p.Publish(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		return <-sizes
	}
	if len(table) == 0 {
		return 4
	}
	return size(headed) - size(plain) + 4 + 1 + 1 // a table of one empty name and void
}

func FuzzCheck(f *testing.F) {
	f.Add("id", "key", "value", 3)
	f.Add("", strings.Repeat("k", 300), "v", 1)
	f.Fuzz(func(t *testing.T, id, key, value string, repeat int) {
		m := amqp091.Publishing{MessageId: id, Headers: amqp091.Table{key: value}}
		var list []any
		for range min(max(repeat, 0), 1000) {
			list = append(list, value)
		}
		m.Headers["list"] = list
		if check(&m) != nil {
			return
		}
		if len(id) > maxShortString || len(key) > maxShortString || len(list)*len(value) > maxTable {
			t.Errorf("%d bytes of id, %d of key, %d × %d of values were let through", len(id), len(key), len(list), len(value))
		}
	})
}
