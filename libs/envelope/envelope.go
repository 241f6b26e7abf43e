// Package envelope is the contract between the collectors and whoever consumes their mail: it turns what is known about one
// mail into an AMQP message's properties and headers, and back. It knows nothing of connections, queues or retries;
// docs/contract.md tells consumers the same in their words.
package envelope

import (
	"errors"
	"fmt"
	"time"

	"github.com/rabbitmq/amqp091-go"
)

// Contract is the version of the message's shape, written as the header `contract`. It grows when a consumer of the version
// before would misread a message; a further header alone is no new version.
const Contract = 1

// Properties that are the same on every message.
const (
	ContentType = "message/rfc822"
	Type        = "mail"
)

// HeaderReplayed is the header that marks a mail which somebody has fed in again.
const HeaderReplayed = "replayed"

// Caps on what a message carries. They keep the header table far below an AMQP frame: one that does not fit in a frame makes
// the broker close the whole connection, with everybody's mail on it.
const (
	// MaxTableBytes is the largest header table, as encoded on the wire, its length field included.
	MaxTableBytes = 64 << 10
	// MaxValueBytes is the most that is kept of one text, four times the longest path of RFC 5321 §4.5.3.1.3.
	MaxValueBytes = 1024
	// MaxFlags and MaxFlagBytes cap the list of IMAP flags and each of them.
	MaxFlags     = 100
	MaxFlagBytes = 128
	// MaxRecipientsBytes is the share of the table that is kept for recipients, as Recipients counts them. The rest holds
	// every other header at its worst. A recipient costs at least 5 bytes, so there are never more than 8192: amqp091
	// refuses to read a longer array, and with it every Go consumer would lose its connection.
	MaxRecipientsBytes = 40 << 10
)

// maxPropertyBytes is what an AMQP short string holds. A longer one makes the broker close the connection.
const maxPropertyBytes = 255

// Envelope is everything that is known about one mail beside its bytes. A zero field is unknown and is not written, except
// where its comment says otherwise. Text may hold any bytes.
type Envelope struct {
	MessageID     string    // LMTPMessageID or IMAPMessageID, the same for every try; required, printable, at most 255 bytes
	App           string    // service/version, as in lmtp-collector/1.4.0; printable, at most 255 bytes
	Sensor        string    // name of the installation that took the mail
	Collector     string    // name of the service that took the mail
	SHA256        string    // of the body, lower case hex
	ContentHash   string    // ContentHash: what the mails of one campaign share
	Size          int64     // of the body, bytes; always written
	ReceivedAt    time.Time // when the collector had the whole mail. All times are kept to the millisecond, in UTC
	MTAReceivedAt time.Time // when the MTA took the mail: earlier by as long as it waited in the MTA's queue
	MailID        string    // MailID: the same for all messages that one mail was cut into
	Replayed      bool      // somebody has fed the mail in again, out of a backup or an archive; written when it is so

	// At most one of the two is set: the way that the mail came. Neither, when all that is known of it is its bytes.
	LMTP *LMTP
	IMAP *IMAP
}

// LMTP is the envelope of a mail that an MTA handed over. ClientAddr and what follows tell of the SMTP client before the MTA.
type LMTP struct {
	MailFrom    string   // "" is the null sender; always written
	RcptTo      []string // at least one; never dropped or left out, see Recipients
	LHLO        string   // what the MTA called itself
	Peer        string   // address of the MTA, made canonical by Publishing
	ClientAddr  string   // made canonical by Publishing
	ClientPort  int      // 1 to 65535
	ClientName  string   // verified host name
	ClientHELO  string
	ClientProto string
	QueueID     string // the MTA's id of the mail
}

// IMAP tells where in a mailbox a mail lay.
type IMAP struct {
	Mailbox      string // the configured id of the mailbox
	Host         string
	Folder       string
	Junk         bool   // the folder is the mailbox's junk folder; always written
	UID          uint32 // always written
	UIDValidity  uint32 // always written
	Flags        []string
	InternalDate time.Time
}

// Publishing returns the message that carries body with e. Mail data goes into headers and message_id only, never to where a
// broker acts on it (expiration, user id, priority, reply to). Text that is not valid UTF-8 is written in base64 and what is
// longer than its cap is cut, both recorded in the headers `base64` and `truncated`.
//
// The message shares body's memory; e is not changed. An error means that e was filled in wrongly: no message id, a body of
// another size than e says, a recipient list that Recipients would not have taken.
func (e *Envelope) Publishing(body []byte) (amqp091.Publishing, error) {
	if err := e.check(body); err != nil {
		return amqp091.Publishing{}, err
	}
	headers := e.headers()
	if size := tableSize(headers); size > MaxTableBytes {
		return amqp091.Publishing{}, fmt.Errorf("envelope: headers take %d bytes, more than %d", size, MaxTableBytes)
	}
	return amqp091.Publishing{
		ContentType:  ContentType,
		DeliveryMode: amqp091.Persistent,
		MessageId:    e.MessageID,
		Timestamp:    e.ReceivedAt,
		Type:         Type,
		AppId:        e.App,
		Headers:      headers,
		Body:         body,
	}, nil
}

func (e *Envelope) check(body []byte) error {
	switch {
	case e.MessageID == "" || !isProperty(e.MessageID):
		return fmt.Errorf("envelope: message id %.300q is not 1 to %d printable characters", e.MessageID, maxPropertyBytes)
	case !isProperty(e.App):
		return fmt.Errorf("envelope: app %.300q is not at most %d printable characters", e.App, maxPropertyBytes)
	case e.Size != int64(len(body)):
		return fmt.Errorf("envelope: size says %d bytes, the body has %d", e.Size, len(body))
	case e.LMTP != nil && e.IMAP != nil:
		return errors.New("envelope: a mail came by LMTP or by IMAP, not by both")
	case e.LMTP != nil && len(e.LMTP.RcptTo) == 0:
		return errors.New("envelope: no recipient")
	}
	return nil
}

// isProperty tells whether text can be an AMQP property as it is.
func isProperty(text string) bool {
	if len(text) > maxPropertyBytes {
		return false
	}
	for _, c := range []byte(text) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

func (e *Envelope) headers() amqp091.Table {
	t := table{headers: make(amqp091.Table, 24)} // as many as a mail by LMTP has, so that the map never grows
	t.headers["contract"] = int64(Contract)
	t.headers["size"] = e.Size
	t.text("sensor", e.Sensor)
	t.text("collector", e.Collector)
	t.text("sha256", e.SHA256)
	t.text("content_hash", e.ContentHash)
	t.text("mail_id", e.MailID)
	t.time("received_at", e.ReceivedAt)
	t.time("mta_received_at", e.MTAReceivedAt)
	if e.Replayed {
		t.headers[HeaderReplayed] = true
	}
	if e.LMTP != nil {
		e.LMTP.fill(&t)
	}
	if e.IMAP != nil {
		e.IMAP.fill(&t)
	}
	return t.finish()
}

func (l *LMTP) fill(t *table) {
	t.headers["mail_from"] = t.fit("mail_from", MaxValueBytes, l.MailFrom)[0]
	t.headers["rcpt_to"] = t.fit("rcpt_to", MaxValueBytes, l.RcptTo...)
	t.text("lhlo", l.LHLO)
	t.text("peer", CanonicalAddr(l.Peer))
	t.text("client_addr", CanonicalAddr(l.ClientAddr))
	if l.ClientPort != 0 {
		t.headers["client_port"] = int64(l.ClientPort)
	}
	t.text("client_name", l.ClientName)
	t.text("client_helo", l.ClientHELO)
	t.text("client_proto", l.ClientProto)
	t.text("queue_id", l.QueueID)
}

func (i *IMAP) fill(t *table) {
	t.text("mailbox", i.Mailbox)
	t.text("imap_host", i.Host)
	t.text("folder", i.Folder)
	t.headers["junk"] = i.Junk
	t.headers["uid"] = int64(i.UID) // AMQP's unsigned 32 bits are not read by every client
	t.headers["uidvalidity"] = int64(i.UIDValidity)
	t.flags(i.Flags)
	t.time("internal_date", i.InternalDate)
}
