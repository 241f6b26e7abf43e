package envelope

import (
	"net/netip"
	"strings"
)

// CanonicalAddr returns an IP address in the one form that messages and logs use: no port, no brackets, no "IPv6:" in front
// (RFC 5321 §4.1.3, and XFORWARD), no zone, IPv4 where an IPv6 address only wraps it, IPv6 as by RFC 5952. It takes what MTAs and
// net.Addr write. What is no address, such as a unix socket's name, is returned as it is.
func CanonicalAddr(text string) string {
	bare := strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")
	if len(bare) > len("IPv6:") && strings.EqualFold(bare[:len("IPv6:")], "IPv6:") {
		bare = bare[len("IPv6:"):]
	}
	if addr, err := netip.ParseAddr(bare); err == nil {
		return canonical(addr)
	}
	if withPort, err := netip.ParseAddrPort(text); err == nil {
		return canonical(withPort.Addr())
	}
	return text
}

func canonical(addr netip.Addr) string { return addr.Unmap().WithZone("").String() }
