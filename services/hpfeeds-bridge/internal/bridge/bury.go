package bridge

import (
	"context"
	"encoding/hex"
	"errors"
	"maps"
	"strings"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/libs/amqp"
)

// The headers that a dead letter has beside its own. `hpfeeds-bridge deadletter` takes them away again.
const (
	HeaderPrefix = "bridge_"
	HeaderReason = HeaderPrefix + "reason" // one word
	HeaderDetail = HeaderPrefix + "detail" // a sentence
	HeaderQueue  = HeaderPrefix + "queue"  // where it was
	HeaderAt     = HeaderPrefix + "at"     // when it came here, RFC 3339
)

// The reasons that there are.
const (
	ReasonOversize = "oversize" // larger than the hpfeeds broker takes
	ReasonEmpty    = "empty"    // no body
	ReasonEnvelope = "envelope" // BRIDGE_PAYLOAD=json, and its headers are not those of a mail
	ReasonRefused  = "refused"  // the hpfeeds broker drops the connection over it
)

const (
	// maxBurials is how many dead letters may be on their way at once.
	maxBurials = 8
	// firstBurialPause and longestBurialPause are between two tries.
	firstBurialPause, longestBurialPause = time.Second, 30 * time.Second
	// maxDetail keeps what somebody else said within bounds.
	maxDetail = 500
)

// verdict is why a mail cannot be published.
type verdict struct{ reason, detail string }

// burial is a mail on its way to the dead-letter queue.
type burial struct {
	stint *amqp.Stint
	id    string
	tag   uint64
	body  []byte
	verdict
}

// bury publishes a dead letter until the broker has it or ctx ends; then it is in done. A nack to the dead-letter exchange would be simpler, but could
// not say why, and the broker may lose it on the way.
func (b *Bridge) bury(ctx context.Context, stint *amqp.Stint, d *amqp091.Delivery, v verdict, done chan<- burial) {
	m := letter(d, v, b.cfg.Queue, time.Now())
	for pause := firstBurialPause; ; pause = min(2*pause, longestBurialPause) {
		err := b.morgue.Publish(ctx, m)
		if err == nil {
			break
		}
		var failure *amqp.Error
		if errors.As(err, &failure) && failure.Reason == amqp.ReasonInvalid && len(m.Headers) > 4 {
			m.Headers = bare(m.Headers) // headers that no frame carries; the mail is worth more than they are
			continue
		}
		if ctx.Err() != nil {
			return
		}
		b.log.Warn().Err(err).Str("message_id", d.MessageId).Str("reason", v.reason).Msg("a mail that cannot be published cannot be put into the dead-letter queue either, and stays where it is")
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
	select {
	case done <- burial{stint, m.MessageId, d.DeliveryTag, d.Body, v}:
	case <-ctx.Done():
	}
}

// letter returns the message for the dead-letter queue: the mail as it is, with the reason.
func letter(d *amqp091.Delivery, v verdict, queue string, now time.Time) amqp091.Publishing {
	headers := maps.Clone(d.Headers)
	if headers == nil {
		headers = amqp091.Table{}
	}
	maps.DeleteFunc(headers, func(name string, _ any) bool {
		return strings.HasPrefix(name, HeaderPrefix) || strings.HasPrefix(name, "x-") // the broker's own counts, and those of an earlier burial
	})
	headers[HeaderReason], headers[HeaderDetail] = v.reason, clip(v.detail)
	headers[HeaderQueue], headers[HeaderAt] = queue, now.UTC().Format(time.RFC3339)
	id := d.MessageId
	if id == "" { // a dead letter needs one
		sum := Key(d.Body)
		id = "dead-" + hex.EncodeToString(sum[:])
	}
	return amqp091.Publishing{
		Headers: headers, ContentType: d.ContentType, ContentEncoding: d.ContentEncoding, DeliveryMode: amqp091.Persistent,
		MessageId: id, Timestamp: d.Timestamp, Type: d.Type, AppId: d.AppId, Body: d.Body,
	}
}

// bare returns the headers that are ours.
func bare(headers amqp091.Table) amqp091.Table {
	ours := amqp091.Table{}
	for name, value := range headers {
		if strings.HasPrefix(name, HeaderPrefix) {
			ours[name] = value
		}
	}
	return ours
}

func clip(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) > maxDetail {
		text = strings.ToValidUTF8(text[:maxDetail], "")
	}
	return text
}
