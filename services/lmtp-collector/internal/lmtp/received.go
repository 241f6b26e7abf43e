package lmtp

import (
	"bytes"
	"net/mail"
	"slices"
	"strings"
	"time"
)

// maxTrace is how far into a mail its topmost Received line is looked for, and how long it may be, in bytes.
const maxTrace = 16 << 10

// mtaReceivedAt returns when the MTA took the mail: the time in the topmost Received line, provided that the line carries the
// queue id, which a sender cannot know. Else it returns zero.
func mtaReceivedAt(body []byte, queueID string) time.Time {
	if queueID == "" {
		return time.Time{}
	}
	for field := range fields(body[:min(len(body), maxTrace)]) {
		name, value, _ := strings.Cut(field, ":")
		if !strings.EqualFold(strings.TrimSpace(name), "Received") {
			continue
		}
		semicolon := strings.LastIndexByte(value, ';')
		if semicolon < 0 || !carries(value[:semicolon], queueID) {
			return time.Time{}
		}
		at, err := mail.ParseDate(strings.TrimSpace(value[semicolon+1:]))
		if err != nil {
			return time.Time{}
		}
		return at
	}
	return time.Time{}
}

// carries tells whether a Received line has the clause "id QUEUEID" (RFC 5321 §4.4).
func carries(received, queueID string) bool {
	words := strings.Fields(received)
	at := slices.Index(words, "id")
	for at >= 0 && at+1 < len(words) {
		if words[at+1] == queueID {
			return true
		}
		words = words[at+1:]
		at = slices.Index(words, "id")
	}
	return false
}

// fields yields the header fields of a mail, unfolded. One that is not there whole is not yielded.
func fields(header []byte) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for len(header) > 0 {
			end := fieldEnd(header)
			if end < 0 || bytes.HasPrefix(header, []byte("\r\n")) {
				return
			}
			if !yield(strings.ReplaceAll(string(header[:end]), "\r\n", "")) {
				return
			}
			header = header[end:]
		}
	}
}

// fieldEnd returns where the first field ends: behind the first line end that no space or tab follows. -1: not here.
func fieldEnd(header []byte) int {
	for at := 0; ; {
		length := bytes.Index(header[at:], []byte("\r\n"))
		if length < 0 {
			return -1
		}
		at += length + len("\r\n")
		if at < len(header) && header[at] != ' ' && header[at] != '\t' {
			return at
		}
		if at == len(header) {
			return -1
		}
	}
}
