package maildir

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/libs/envelope"
)

// recordVersion is the version of the envelope files. A newer one is left alone.
const recordVersion = 1

// Record is an envelope file: everything about a mail but its bytes, as it will be published. It is JSON, for people too.
type Record struct {
	Version   int            `json:"version"`
	MessageID string         `json:"message_id"`
	App       string         `json:"app_id"`
	Timestamp time.Time      `json:"timestamp"`
	Headers   map[string]any `json:"headers"` // text, int64, bool, and lists of these

	// Why the mail was set aside, and when; absent elsewhere.
	Aside   string     `json:"aside,omitempty"`
	AsideAt *time.Time `json:"aside_at,omitempty"`
}

// newRecord returns the record of a message that libs/envelope has made.
func newRecord(m *amqp091.Publishing) *Record {
	return &Record{Version: recordVersion, MessageID: m.MessageId, App: m.AppId, Timestamp: m.Timestamp.UTC(), Headers: m.Headers}
}

// encode returns the record as it is written. It is the same for the same record.
func (r *Record) encode() ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(r); err != nil {
		return nil, fmt.Errorf("maildir: write the envelope of %s: %w", r.MessageID, err)
	}
	return out.Bytes(), nil
}

// Decode reads an envelope file back. Its error matches ErrVersion when the file is of a newer version, and ErrDamaged when it is no
// envelope at all.
func Decode(data []byte) (*Record, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	r := new(Record)
	if err := decoder.Decode(r); err != nil || r.Version != recordVersion {
		return nil, undecoded(data, err)
	}
	for name, value := range r.Headers {
		plain, err := plainValue(value)
		if err != nil {
			return nil, fmt.Errorf("maildir: %w: the header %s of the envelope: %w", ErrDamaged, name, err)
		}
		r.Headers[name] = plain
	}
	if r.MessageID == "" || r.Headers == nil {
		return nil, fmt.Errorf("maildir: %w: the envelope has no message id or no headers", ErrDamaged)
	}
	return r, nil
}

// undecoded says why an envelope file is none of this version.
func undecoded(data []byte, why error) error {
	var version struct {
		Version int `json:"version"`
	}
	switch err := json.Unmarshal(data, &version); {
	case err != nil || version.Version < 1:
		return fmt.Errorf("maildir: %w: the envelope cannot be read", ErrDamaged)
	case version.Version > recordVersion:
		return fmt.Errorf("maildir: %w (%d)", ErrVersion, version.Version)
	}
	return fmt.Errorf("maildir: %w: %w", ErrDamaged, why)
}

// plainValue returns what AMQP gets for a value that came out of JSON.
func plainValue(value any) (any, error) {
	switch v := value.(type) {
	case json.Number:
		return v.Int64()
	case []any:
		for i, element := range v {
			plain, err := plainValue(element)
			if err != nil {
				return nil, err
			}
			v[i] = plain
		}
		return v, nil
	case string, bool:
		return v, nil
	}
	return nil, fmt.Errorf("a value of type %T", value)
}

// Message returns what is published, with the record's own headers.
func (r *Record) Message(body []byte) amqp091.Publishing {
	return amqp091.Publishing{
		ContentType:  envelope.ContentType,
		DeliveryMode: amqp091.Persistent,
		MessageId:    r.MessageID,
		Timestamp:    r.Timestamp,
		Type:         envelope.Type,
		AppId:        r.App,
		Headers:      r.Headers,
		Body:         body,
	}
}

// Digest returns what the mail's sha256 must be, in hex; "" when the record does not say.
func (r *Record) Digest() string {
	digest, _ := r.Headers["sha256"].(string)
	return digest
}

// Envelope returns what is known of the mail, as it was before it was made into headers.
func (r *Record) Envelope() (*envelope.Envelope, error) {
	return envelope.Parse(&amqp091.Delivery{MessageId: r.MessageID, AppId: r.App, Headers: r.Headers})
}
