package amqp

import (
	"fmt"

	"github.com/rabbitmq/amqp091-go"
)

// maxTable is the most that the header table may weigh on the wire. All properties have to fit into one frame, and one that
// does not tears down the connection for everybody.
const maxTable = 64 << 10

// check refuses what AMQP cannot carry, before it is sent: the library would end the whole connection over it.
func check(m *amqp091.Publishing) error {
	if m.MessageId == "" {
		return invalid("it has no message id")
	}
	for _, property := range []struct{ name, value string }{
		{"message_id", m.MessageId},
		{"content_type", m.ContentType},
		{"content_encoding", m.ContentEncoding},
		{"correlation_id", m.CorrelationId},
		{"reply_to", m.ReplyTo},
		{"expiration", m.Expiration},
		{"type", m.Type},
		{"user_id", m.UserId},
		{"app_id", m.AppId},
	} {
		if len(property.value) > maxShortString {
			return invalid("its property %s has %d bytes, and AMQP carries %d", property.name, len(property.value), maxShortString)
		}
	}
	if err := m.Headers.Validate(); err != nil {
		return invalid("its headers hold what AMQP has no type for: %w", err)
	}
	size, err := tableSize(m.Headers)
	if err != nil {
		return err
	}
	if size > maxTable {
		return invalid("its headers weigh %d bytes, and at most %d fit", size, maxTable)
	}
	return nil
}

func invalid(format string, args ...any) error {
	return &Error{Permanent: true, Reason: ReasonInvalid, Err: fmt.Errorf("amqp: the message cannot be published: "+format, args...)}
}

// tableSize returns the bytes of a table on the wire (AMQP 0-9-1 §4.2.5.5), its length field included.
func tableSize(t amqp091.Table) (int, error) {
	total := 4
	for key, value := range t {
		if len(key) > maxShortString {
			return 0, invalid("the name of a header has %d bytes, and AMQP carries %d", len(key), maxShortString)
		}
		size, err := fieldSize(value)
		if err != nil {
			return 0, err
		}
		total += 1 + len(key) + size
	}
	return total, nil
}

// fieldSize returns the bytes of a value with its type; for numbers the most that any has.
func fieldSize(value any) (int, error) {
	const number = 1 + 8
	switch v := value.(type) {
	case string:
		return 1 + 4 + len(v), nil
	case []byte:
		return 1 + 4 + len(v), nil
	case amqp091.Table:
		size, err := tableSize(v)
		return 1 + size, err
	case []any:
		total := 1 + 4
		for _, element := range v {
			size, err := fieldSize(element)
			if err != nil {
				return 0, err
			}
			total += size
		}
		return total, nil
	}
	return number, nil
}
