package wire

import (
	"math"
	"math/big"
	"strings"
	"unicode/utf8"
)

// placeholder is what go-smtp gets for an address that it would refuse or change, and what its replies then name.
const placeholder = "address@invalid"

// Address returns the address of the MAIL or RCPT that go-smtp is busy with, exactly as it stands between < and >, quotes,
// source route and all; "" is the null sender. What go-smtp hands to the session may be another. It is for the session's Mail
// and Rcpt only.
func (c *Conn) Address() string { return c.address }

// addressed notes the address in a MAIL or RCPT and returns the command as go-smtp shall see it. One that has no address comes
// out as one that go-smtp refuses with 501, so that it never takes an address that is not noted.
func (c *Conn) addressed(text, verb, keyword string) string {
	argument := strings.TrimSpace(text[len(verb):])
	if len(argument) < len(keyword) || !strings.EqualFold(argument[:len(keyword)], keyword) {
		return verb + " " + keyword
	}
	address, parameters, ok := cutAddress(strings.TrimSpace(argument[len(keyword):]))
	if !ok || (address == "" && verb == "RCPT") {
		return verb + " " + keyword
	}
	c.address = address
	if !ordinary(address) {
		address = placeholder
	}
	return verb + " " + keyword + "<" + address + ">" + sized(parameters)
}

// sized returns the parameters with a SIZE of no more than 32 bits, because go-smtp takes a larger number for no number. Such
// a mail is too large whichever of the two it says.
func sized(parameters string) string {
	fields := strings.Split(parameters, " ")
	for i, field := range fields {
		const keyword = "SIZE="
		if len(field) <= len(keyword) || !strings.EqualFold(field[:len(keyword)], keyword) {
			continue
		}
		if n, ok := new(big.Int).SetString(field[len(keyword):], 10); ok && n.Cmp(mostSize) > 0 {
			fields[i] = keyword + mostSize.String()
		}
	}
	return strings.Join(fields, " ")
}

// mostSize is the largest SIZE that go-smtp reads.
var mostSize = big.NewInt(math.MaxUint32)

// cutAddress splits what follows FROM: or TO: behind the address, which as a rule stands between < and >.
func cutAddress(text string) (address, parameters string, ok bool) {
	if !strings.HasPrefix(text, "<") {
		end := strings.IndexAny(text, " \t")
		if end < 0 {
			end = len(text)
		}
		return text[:end], text[end:], end > 0
	}
	end := closing(text)
	if end < 0 {
		return "", "", false
	}
	address, parameters = text[1:end], text[end+1:]
	return address, parameters, parameters == "" || parameters[0] == ' ' || parameters[0] == '\t'
}

// closing returns where the > is that ends the address, or -1. One in a quoted local part does not; a quote that is never
// closed quotes nothing.
func closing(text string) int {
	quoted := false
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '"':
			quoted = !quoted
		case text[i] == '\\' && quoted:
			i++
		case text[i] == '>' && !quoted:
			return i
		}
	}
	return strings.IndexByte(text, '>')
}

// ordinary tells whether go-smtp takes the address and leaves it as it is.
func ordinary(address string) bool {
	if address == "" {
		return true
	}
	local, domain, _ := strings.Cut(address, "@")
	odd := func(r rune) bool { return r <= ' ' || r == 0x7f }
	return local != "" && domain != "" && utf8.ValidString(address) && !strings.ContainsFunc(address, odd) &&
		!strings.ContainsAny(local, `()<>[]:;\,"`) && !strings.ContainsAny(domain, `@<>"`)
}
