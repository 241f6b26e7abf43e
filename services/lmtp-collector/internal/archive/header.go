package archive

import (
	"bytes"
	"net/mail"
	"regexp"
	"strings"
	"time"
)

// receivedAt returns when a mail was received, by its topmost Received line, else its Date, else what is said otherwise.
func receivedAt(body []byte, otherwise time.Time) time.Time {
	var date time.Time
	for name, value := range fields(body) {
		switch strings.ToLower(name) {
		case "received":
			if _, stamp, found := lastCut(value, ";"); found {
				if at, err := mail.ParseDate(strings.TrimSpace(stamp)); err == nil {
					return at.UTC()
				}
			}
		case "date":
			if at, err := mail.ParseDate(strings.TrimSpace(value)); err == nil && date.IsZero() {
				date = at.UTC()
			}
		}
	}
	if date.IsZero() {
		return otherwise.UTC()
	}
	return date
}

func lastCut(text, sep string) (before, after string, found bool) {
	at := strings.LastIndex(text, sep)
	if at < 0 {
		return text, "", false
	}
	return text[:at], text[at+len(sep):], true
}

// AddressDomains returns the domains of all addresses that a mail's header names as its recipients, in lower case. Without an envelope it
// is the best that is known of them.
func AddressDomains(body []byte) []string {
	var domains []string
	for name, value := range fields(body) {
		switch strings.ToLower(name) {
		case "x-original-to", "delivered-to", "envelope-to", "x-envelope-to", "to", "cc", "bcc":
			for _, found := range domainPattern.FindAllStringSubmatch(value, -1) {
				domains = append(domains, strings.ToLower(found[1]))
			}
		}
	}
	return domains
}

var domainPattern = regexp.MustCompile(`@([^\s<>@",;:()]+)`)

// fields calls yield with the fields of a mail's header, unfolded. It takes whatever lines look like fields: spam is malformed.
func fields(body []byte) func(yield func(name, value string) bool) {
	return func(yield func(string, string) bool) {
		var name string
		var value []byte
		for len(body) > 0 {
			line, rest, _ := bytes.Cut(body, []byte("\n"))
			body = rest
			line = bytes.TrimRight(line, "\r")
			switch {
			case len(line) == 0:
				body = nil
			case line[0] == ' ' || line[0] == '\t':
				value = append(append(value, ' '), bytes.TrimSpace(line)...)
				continue
			}
			if name != "" && !yield(name, string(value)) {
				return
			}
			before, after, found := bytes.Cut(line, []byte(":"))
			name, value = "", nil
			if found {
				name, value = strings.TrimSpace(string(before)), bytes.Clone(bytes.TrimSpace(after))
			}
		}
		if name != "" {
			yield(name, string(value))
		}
	}
}
