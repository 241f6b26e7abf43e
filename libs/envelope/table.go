package envelope

import (
	"encoding/base64"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/rabbitmq/amqp091-go"
)

// timeFormat is RFC 3339 with milliseconds. AMQP's own timestamp has whole seconds only.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// table gathers the headers of one message, and the names of those that had to be encoded or cut.
type table struct {
	headers          amqp091.Table
	encoded, trimmed []any
}

// finish adds what was recorded and returns the headers.
func (t *table) finish() amqp091.Table {
	if t.encoded != nil {
		t.headers["base64"] = t.encoded
	}
	if t.trimmed != nil {
		t.headers["truncated"] = t.trimmed
	}
	return t.headers
}

func (t *table) text(name, value string) {
	if value != "" {
		t.headers[name] = t.fit(name, MaxValueBytes, value)[0]
	}
}

func (t *table) flags(flags []string) {
	if len(flags) == 0 {
		return
	}
	kept := flags[:min(len(flags), MaxFlags)]
	t.headers["flags"] = t.fit("flags", MaxFlagBytes, kept...)
	if len(kept) < len(flags) && !slices.Contains(t.trimmed, any("flags")) {
		t.trimmed = append(t.trimmed, "flags")
	}
}

// time leaves out what the format cannot say: Received lines and IMAP servers may name any year.
func (t *table) time(name string, at time.Time) {
	at = at.UTC()
	if at.IsZero() || at.Year() < 0 || at.Year() > 9999 {
		return
	}
	t.headers[name] = at.Format(timeFormat)
}

// fit returns the values of one header as they are written: each cut to limit bytes, and all in base64 when one of them is
// not valid UTF-8, so that a consumer decodes a header as a whole or not at all.
func (t *table) fit(name string, limit int, values ...string) []any {
	fitted := make([]any, len(values))
	valid, whole := true, true
	for i, value := range values {
		kept := cut(value, limit)
		fitted[i] = kept
		valid = valid && utf8.ValidString(kept)
		whole = whole && len(kept) == len(value)
	}
	if !valid {
		t.encoded = append(t.encoded, name)
		for i := range fitted {
			fitted[i] = base64.StdEncoding.EncodeToString([]byte(fitted[i].(string)))
		}
	}
	if !whole {
		t.trimmed = append(t.trimmed, name)
	}
	return fitted
}

// cut returns the start of text, at most limit bytes, not ending within a character.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	end := limit
	for end > limit-utf8.UTFMax+1 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}

// Sizes on the wire: a value's type octet, and the length in front of a long string, an array or a table.
const (
	typeSize   = 1
	lengthSize = 4
)

// tableSize returns how many bytes a header table takes on the wire, the length in front of it included (AMQP 0-9-1 §4.2.5.5).
// It knows the types that this package writes.
func tableSize(headers amqp091.Table) int {
	size := lengthSize
	for name, value := range headers {
		size += 1 + len(name) + valueSize(value)
	}
	return size
}

func valueSize(value any) int {
	switch v := value.(type) {
	case bool:
		return typeSize + 1
	case int64:
		return typeSize + 8
	case string:
		return textSize(len(v))
	case []any:
		size := typeSize + lengthSize
		for _, item := range v {
			size += valueSize(item)
		}
		return size
	}
	panic("envelope: a header of a type that is never written") // a fault of this package, whatever the mail
}

func textSize(length int) int { return typeSize + lengthSize + length }
