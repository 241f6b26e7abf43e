package envelope

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/rabbitmq/amqp091-go"
)

// ErrContract is the error of Parse for a message that has another version of the contract, or none: it is not ours to read.
var ErrContract = errors.New("envelope: unknown contract")

// Parse returns the envelope of a message that Publishing made; the body stays with d. Text comes back as the bytes that it
// was before it was encoded, less what was cut. Headers that it does not know, and properties that a broker or another
// publisher added, are passed over. A header of the wrong type or with an impossible value is an error that names it, since a
// guess would be taken for evidence.
func Parse(d *amqp091.Delivery) (*Envelope, error) {
	if version, _ := integer(d.Headers["contract"]); version != Contract { // 0 when there is none
		return nil, fmt.Errorf("%w: version %d, known is %d", ErrContract, version, Contract)
	}
	f := fields{headers: d.Headers}
	f.encoded = f.texts("base64")
	e := &Envelope{
		MessageID:     d.MessageId,
		App:           d.AppId,
		Sensor:        f.text("sensor"),
		Collector:     f.text("collector"),
		SHA256:        f.text("sha256"),
		ContentHash:   f.text("content_hash"),
		Size:          f.integer("size", math.MaxInt64),
		ReceivedAt:    f.time("received_at"),
		MTAReceivedAt: f.time("mta_received_at"),
		MailID:        f.text("mail_id"),
		Replayed:      f.boolean(HeaderReplayed),
		LMTP:          f.lmtp(),
		IMAP:          f.imap(),
	}
	if e.LMTP != nil && e.IMAP != nil {
		f.fail("uid", errors.New("a mail came by LMTP or by IMAP, not by both"))
	}
	if f.err != nil {
		return nil, f.err
	}
	return e, nil
}

// fields reads headers of known types. The first fault is kept and everything after it reads as absent or whatever it is:
// the caller looks at err once, at the end.
type fields struct {
	headers amqp091.Table
	encoded []string // names of the headers in base64
	err     error
}

func (f *fields) fail(name string, err error) {
	if f.err == nil {
		f.err = fmt.Errorf("envelope: header %s: %w", name, err)
	}
}

// lmtp returns nil for a mail that has no recipients: each that came by LMTP has.
func (f *fields) lmtp() *LMTP {
	if f.headers["rcpt_to"] == nil {
		return nil
	}
	return &LMTP{
		MailFrom:    f.text("mail_from"),
		RcptTo:      f.texts("rcpt_to"),
		LHLO:        f.text("lhlo"),
		Peer:        f.text("peer"),
		ClientAddr:  f.text("client_addr"),
		ClientPort:  int(f.integer("client_port", math.MaxUint16)),
		ClientName:  f.text("client_name"),
		ClientHELO:  f.text("client_helo"),
		ClientProto: f.text("client_proto"),
		QueueID:     f.text("queue_id"),
	}
}

// imap returns nil for a mail that has no UID: each that came by IMAP has.
func (f *fields) imap() *IMAP {
	if f.headers["uid"] == nil {
		return nil
	}
	return &IMAP{
		Mailbox:      f.text("mailbox"),
		Host:         f.text("imap_host"),
		Folder:       f.text("folder"),
		Junk:         f.boolean("junk"),
		UID:          uint32(f.integer("uid", math.MaxUint32)),
		UIDValidity:  uint32(f.integer("uidvalidity", math.MaxUint32)),
		Flags:        f.texts("flags"),
		InternalDate: f.time("internal_date"),
	}
}

func (f *fields) text(name string) string {
	value := f.headers[name]
	if value == nil {
		return ""
	}
	return f.decode(name, value)
}

func (f *fields) texts(name string) []string {
	value := f.headers[name]
	if value == nil {
		return nil
	}
	items, ok := value.([]any)
	if !ok {
		f.fail(name, fmt.Errorf("want an array, not %T", value))
		return nil
	}
	texts := make([]string, len(items))
	for i, item := range items {
		texts[i] = f.decode(name, item)
	}
	return texts
}

// decode returns one text of the header name. Some AMQP clients that pass a message on write text as a byte array.
func (f *fields) decode(name string, value any) string {
	var text string
	switch v := value.(type) {
	case string:
		text = v
	case []byte:
		text = string(v)
	default:
		f.fail(name, fmt.Errorf("want text, not %T", value))
	}
	if !slices.Contains(f.encoded, name) {
		return text
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		f.fail(name, err)
	}
	return string(raw)
}

func (f *fields) integer(name string, largest int64) int64 {
	value := f.headers[name]
	if value == nil {
		return 0
	}
	n, ok := integer(value)
	if !ok {
		f.fail(name, fmt.Errorf("want an integer, not %T", value))
	}
	if n < 0 || n > largest {
		f.fail(name, fmt.Errorf("%d is not between 0 and %d", n, largest))
	}
	return n
}

func (f *fields) boolean(name string) bool {
	value := f.headers[name]
	if value == nil {
		return false
	}
	truth, ok := value.(bool)
	if !ok {
		f.fail(name, fmt.Errorf("want a boolean, not %T", value))
	}
	return truth
}

func (f *fields) time(name string) time.Time {
	text := f.text(name)
	if text == "" {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		f.fail(name, err)
	}
	return at.UTC()
}

// integer returns an AMQP integer of any width: a message that another client passed on may come back narrower.
func integer(value any) (n int64, ok bool) {
	switch v := value.(type) {
	case int64:
		return v, true
	case int32:
		return int64(v), true
	case int16:
		return int64(v), true
	case int8:
		return int64(v), true
	case uint32:
		return int64(v), true
	case uint16:
		return int64(v), true
	case uint8:
		return int64(v), true
	}
	return 0, false
}
