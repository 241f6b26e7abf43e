package wire

import (
	"net/netip"
	"strconv"
	"strings"
)

// Origin is what an MTA tells by XFORWARD of the mail that comes next: the SMTP client that it took it from, and its own id
// of it. What it did not tell is zero. Text may hold any bytes.
type Origin struct {
	Addr    netip.Addr
	Port    int // 1 to 65535
	Name    string
	HELO    string
	Proto   string
	QueueID string
}

// Origin returns what the peer has told by XFORWARD since the last transaction. It is for the session's Mail only: it is
// forgotten with the end of the transaction.
func (c *Conn) Origin() Origin { return c.origin }

// The extension of Postfix's XFORWARD_README: the line in the reply to LHLO, and what a command is answered.
const (
	xforwardOffer = "250-XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE\r\n"
	xforwardTaken = "250 2.0.0 OK"
	xforwardBad   = "501 5.5.4 Bad XFORWARD attribute"
	replyNested   = "503 5.5.1 MAIL transaction in progress"
)

// forwarded takes one XFORWARD command and returns the reply. Each adds to those before it. One that is not understood as a
// whole adds nothing, and the mail comes without it.
func (c *Conn) forwarded(line string) string {
	if !c.offer.XForward {
		return replyUnknown
	}
	if c.inTransaction() {
		return replyNested
	}
	origin := c.origin
	attributes := strings.Fields(line)[1:]
	for _, attribute := range attributes {
		name, value, ok := strings.Cut(attribute, "=")
		if !ok || !origin.set(strings.ToUpper(name), value) {
			return xforwardBad
		}
	}
	if len(attributes) == 0 {
		return xforwardBad
	}
	c.origin = origin
	return xforwardTaken
}

// set notes one attribute, and tells whether it is known and makes sense.
func (o *Origin) set(name, encoded string) bool {
	value, ok := decodeXtext(encoded)
	if !ok {
		return false
	}
	if strings.EqualFold(value, "[UNAVAILABLE]") || strings.EqualFold(value, "[TEMPUNAVAIL]") {
		value = ""
	}
	switch name {
	case "NAME":
		o.Name = value
	case "HELO":
		o.HELO = value
	case "PROTO":
		o.Proto = value
	case "IDENT":
		o.QueueID = value
	case "SOURCE": // whether the MTA took the mail from a host or made it; Addr tells the same
		return value == "" || strings.EqualFold(value, "LOCAL") || strings.EqualFold(value, "REMOTE")
	case "ADDR":
		return o.setAddr(value)
	case "PORT":
		return o.setPort(value)
	default:
		return false
	}
	return true
}

func (o *Origin) setAddr(value string) bool {
	o.Addr = netip.Addr{}
	if value == "" {
		return true
	}
	const v6 = "IPV6:"
	if len(value) > len(v6) && strings.EqualFold(value[:len(v6)], v6) {
		value = value[len(v6):]
	}
	addr, err := netip.ParseAddr(value)
	o.Addr = addr.Unmap()
	return err == nil
}

func (o *Origin) setPort(value string) bool {
	o.Port = 0
	if value == "" {
		return true
	}
	port, err := strconv.ParseUint(value, 10, 16)
	o.Port = int(port)
	return err == nil && port > 0
}

// decodeXtext decodes what RFC 3461 §4 encodes: +XX is the byte of that number.
func decodeXtext(encoded string) (string, bool) {
	var decoded strings.Builder
	for {
		text, rest, more := strings.Cut(encoded, "+")
		decoded.WriteString(text)
		if !more {
			return decoded.String(), true
		}
		if len(rest) < 2 {
			return "", false
		}
		char, err := strconv.ParseUint(rest[:2], 16, 8)
		if err != nil {
			return "", false
		}
		decoded.WriteByte(byte(char))
		encoded = rest[2:]
	}
}
