package lmtp

import (
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/rs/zerolog"
)

// Peers are MTAs by where they connect from: an address, a network, or any of this host through the unix socket. Its text is
// one of 192.0.2.1, 192.0.2.0/24 and unix.
type Peers struct {
	network netip.Prefix // zero: the unix socket
}

// unixPeers is the text of those who come through the unix socket.
const unixPeers = "unix"

// UnmarshalText reads an address, a network or the word unix.
func (p *Peers) UnmarshalText(text []byte) error {
	if string(text) == unixPeers {
		*p = Peers{}
		return nil
	}
	if addr, err := netip.ParseAddr(string(text)); err == nil {
		addr = addr.Unmap().WithZone("")
		p.network = netip.PrefixFrom(addr, addr.BitLen())
		return nil
	}
	network, err := netip.ParsePrefix(string(text))
	if err != nil || network.Addr().Is4In6() {
		return fmt.Errorf("want an address, a network like 192.0.2.0/24, or %s", unixPeers)
	}
	p.network = network.Masked()
	return nil
}

// MarshalText is the way back.
func (p Peers) MarshalText() ([]byte, error) {
	switch {
	case !p.network.IsValid():
		return []byte(unixPeers), nil
	case p.network.IsSingleIP():
		return p.network.Addr().MarshalText()
	}
	return p.network.MarshalText()
}

// has tells whether a connection from remote is one of theirs.
func (p Peers) has(remote net.Addr) bool {
	tcp, ok := remote.(*net.TCPAddr)
	if !ok {
		return !p.network.IsValid()
	}
	return p.network.Contains(tcp.AddrPort().Addr().Unmap().WithZone(""))
}

// gatewayAfter is how many mails in a row with one private client address look like a mistake.
const gatewayAfter = 20

// gatewayWatch warns once when all mail seems to come from one private address: as a rule that is the gateway of a container
// network, and the senders' own addresses are lost on the way to the MTA. It looks at the first mails only.
type gatewayWatch struct {
	log zerolog.Logger

	mu    sync.Mutex
	first netip.Addr
	seen  int
	done  bool
}

// see looks at the client address of one mail, which is zero when it is not known.
func (w *gatewayWatch) see(client netip.Addr) {
	if !client.IsValid() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done {
		return
	}
	if w.seen == 0 {
		w.first = client
	}
	w.seen++
	private := client.IsPrivate() || client.IsLoopback() || client.IsLinkLocalUnicast()
	switch {
	case client != w.first || !private:
		w.done = true
	case w.seen == gatewayAfter:
		w.done = true
		w.log.Warn().Stringer("client_addr", client).Int("mails", w.seen).
			Msg("all mail comes from one private address: the MTA seems to see the gateway of its network in place of the senders")
	}
}
