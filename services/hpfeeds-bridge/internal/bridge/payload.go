package bridge

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/libs/envelope"
)

// payloadVersion is the number in each JSON payload. It grows when a reader of the version before would misread one.
const payloadVersion = 1

// wrapping is a JSON payload; docs/hpfeeds.md tells readers of it. The headers are those of the message on the queue, in the forms of docs/contract.md.
type wrapping struct {
	Version   int            `json:"version"`
	MessageID string         `json:"message_id"`
	App       string         `json:"app_id"`
	Headers   amqp091.Table  `json:"headers"`
	Mail      base64Encoding `json:"mail"`
}

// base64Encoding is bytes on their way into JSON.
type base64Encoding []byte

// MarshalJSON returns the standard base64 with padding (RFC 4648 §4), as a JSON string.
func (b base64Encoding) MarshalJSON() ([]byte, error) {
	out := make([]byte, 0, base64.StdEncoding.EncodedLen(len(b))+2)
	out = append(out, '"')
	out = base64.StdEncoding.AppendEncode(out, b)
	return append(out, '"'), nil
}

// errEmpty is the fate of a message without a body: a mail has bytes, and two of three brokers refuse to carry none.
var errEmpty = errors.New("the message is empty")

// payload returns what is published for a delivery. An error means that there will never be anything. The headers matter only to who gets to see them: a raw
// body is a whole mail whatever is beside it.
func (b *Bridge) payload(d *amqp091.Delivery) ([]byte, error) {
	if len(d.Body) == 0 {
		return nil, errEmpty
	}
	if b.cfg.Payload == payloadRaw {
		return d.Body, nil
	}
	e, err := envelope.Parse(d)
	if err != nil {
		return nil, err
	}
	// Written anew, so that a reader gets the headers of the contract and nothing that somebody else has put beside them.
	m, err := e.Publishing(d.Body)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(wrapping{
		Version: payloadVersion, MessageID: m.MessageId, App: m.AppId, Headers: m.Headers, Mail: d.Body,
	})
	if err != nil {
		return nil, fmt.Errorf("write JSON: %w", err)
	}
	return text, nil
}
