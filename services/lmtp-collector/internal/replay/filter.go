package replay

import (
	"slices"
	"strings"
	"time"

	"spamtraps.internal/lmtp-collector/internal/maildir"
)

// Filter says which mails are replayed. The zero value takes all.
type Filter struct {
	Since, Until time.Time // when it was received: not before the one, and before the other; the zero time is no limit
	Domains      []string  // one recipient is at one of these, whatever the case of letters
	SHA256       []string  // its sha256 begins with one of these, in lower case hex
}

// takesRecord judges a mail by its envelope. One that cannot be read is judged to pass: it is up to a person.
func (f *Filter) takesRecord(record *maildir.Record) bool {
	known, err := record.Envelope()
	if err != nil {
		return true
	}
	return f.takes(known.ReceivedAt, record.Digest(), func() []string {
		if known.LMTP == nil {
			return nil
		}
		domains := make([]string, len(known.LMTP.RcptTo))
		for i, address := range known.LMTP.RcptTo {
			domains[i] = strings.ToLower(address[strings.LastIndexByte(address, '@')+1:])
		}
		return domains
	})
}

func (f *Filter) takes(at time.Time, digest string, domains func() []string) bool {
	switch {
	case !f.Since.IsZero() && at.Before(f.Since), !f.Until.IsZero() && !at.Before(f.Until):
		return false
	case len(f.SHA256) > 0 && !slices.ContainsFunc(f.SHA256, func(start string) bool { return strings.HasPrefix(digest, start) }):
		return false
	case len(f.Domains) == 0:
		return true
	}
	return slices.ContainsFunc(domains(), func(domain string) bool {
		return slices.ContainsFunc(f.Domains, func(wanted string) bool { return strings.EqualFold(domain, wanted) })
	})
}
