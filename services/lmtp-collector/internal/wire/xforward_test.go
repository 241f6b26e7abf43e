package wire_test

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"spamtraps.internal/lmtp-collector/internal/wire"
)

// ask sends commands that the Conn answers itself, with one behind them that go-smtp gets, and returns the replies.
func ask(t *testing.T, conn *wire.Conn, peer net.Conn, commands ...string) []string {
	t.Helper()
	send(t, peer, strings.Join(commands, "\r\n")+"\r\nNOOP\r\n")
	got := make(chan []string, 1)
	go func() {
		in := bufio.NewReader(peer)
		var lines []string
		for range commands {
			line, _ := in.ReadString('\n')
			lines = append(lines, strings.TrimSuffix(line, "\r\n"))
		}
		got <- lines
	}()
	if line := read(t, conn); line != "NOOP\r\n" {
		t.Errorf("go-smtp got %q", line)
	}
	return <-got
}

func TestXForward(t *testing.T) {
	whole := wire.Origin{
		Addr: netip.MustParseAddr("2001:db8::1"), Port: 52144, Name: "host.example", HELO: "a b+c", Proto: "ESMTP", QueueID: "4QhX2j0Zq5z1B",
	}
	const ok, bad = "250 2.0.0 OK", "501 5.5.4 Bad XFORWARD attribute"
	tests := []struct {
		name    string
		sent    []string
		replies []string
		want    wire.Origin
	}{
		{"as Postfix sends it", []string{
			"XFORWARD NAME=host.example ADDR=IPV6:2001:db8::1 PORT=52144",
			"XFORWARD PROTO=ESMTP HELO=a+20b+2Bc IDENT=4QhX2j0Zq5z1B SOURCE=REMOTE",
		}, []string{ok, ok}, whole},
		{"what is not known", []string{
			"xforward name=[UNAVAILABLE] addr=[UNAVAILABLE] port=[UNAVAILABLE] helo=[TEMPUNAVAIL] source=[UNAVAILABLE] ident=1",
		}, []string{ok}, wire.Origin{QueueID: "1"}},
		{"taken back", []string{
			"XFORWARD ADDR=192.0.2.1 PORT=1 IDENT=1", "XFORWARD ADDR=[UNAVAILABLE] PORT=[UNAVAILABLE] IDENT=[UNAVAILABLE]",
		}, []string{ok, ok}, wire.Origin{}},
		{"IPv4 in IPv6", []string{"XFORWARD ADDR=IPv6:::ffff:192.0.2.1"}, []string{ok}, wire.Origin{Addr: netip.MustParseAddr("192.0.2.1")}},
		{"local mail", []string{"XFORWARD SOURCE=LOCAL"}, []string{ok}, wire.Origin{}},
		{"bytes", []string{"XFORWARD HELO=+00+ff+E4"}, []string{ok}, wire.Origin{HELO: "\x00\xff\xe4"}},
		{"bad ones add nothing, and others stay", []string{
			"XFORWARD IDENT=1", "XFORWARD", "XFORWARD NAME", "XFORWARD NAME=x COLOUR=red", "XFORWARD NAME=x ADDR=300.1.1.1",
			"XFORWARD NAME=x ADDR=host", "XFORWARD PORT=0", "XFORWARD PORT=65536", "XFORWARD PORT=-1", "XFORWARD SOURCE=MARS",
			"XFORWARD HELO=+", "XFORWARD HELO=+4", "XFORWARD HELO=+zz", "XFORWARD HELO=++41",
		}, append([]string{ok}, repeat(bad, 13)...), wire.Origin{QueueID: "1"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			conn, peer := pairWith(t, true)
			got := ask(t, conn, peer, test.sent...)
			for i := range got {
				if got[i] != test.replies[i] {
					t.Errorf("%s: got %q", test.sent[i], got[i])
				}
			}
			if conn.Origin() != test.want {
				t.Errorf("got %+v, want %+v", conn.Origin(), test.want)
			}
		})
	}
}

func repeat(text string, n int) []string {
	return strings.Split(strings.Repeat(text+"|", n-1)+text, "|")
}

func TestXForwardIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, peer := pairWith(t, true)
		ask(t, conn, peer, "XFORWARD IDENT=1")
		go func() { _, _ = io.Copy(io.Discard, peer) }()
		step := func(command, reply string) {
			t.Helper()
			send(t, peer, command+"\r\n")
			read(t, conn)
			write(t, conn, reply+"\r\n")
		}
		want := func(id string) {
			t.Helper()
			if got := conn.Origin().QueueID; got != id {
				t.Errorf("the queue id is %q, want %q", got, id)
			}
		}
		want("1")
		step("NOOP", "250 yes")
		step("MAIL FROM:<a@b>", "451 later")
		want("1")
		step("RSET", "250 yes")
		want("")
		step("XFORWARD IDENT=2\r\nMAIL FROM:<a@b>", "250 yes")
		want("2")
		step("XFORWARD IDENT=3\r\nNOOP", "250 yes")
		want("2")
		step("DATA", "354 go")
		send(t, peer, ".\r\n")
		if got := read(t, conn); got != ".\r\n" {
			t.Errorf("got %q", got)
		}
		write(t, conn, "250 yes\r\n")
		want("")
		step("XFORWARD IDENT=4\r\nNOOP", "250 yes")
		want("4")
		step("LHLO x", "250 yes")
		want("")
	})
}

func TestXForwardWithinATransaction(t *testing.T) {
	conn, peer := pairWith(t, true)
	send(t, peer, "MAIL FROM:<>\r\n")
	read(t, conn)
	go func() { _, _ = io.WriteString(conn, "250 yes\r\n") }()
	_, _ = bufio.NewReaderSize(peer, 16).ReadString('\n')
	if got := ask(t, conn, peer, "XFORWARD IDENT=1"); got[0] != "503 5.5.1 MAIL transaction in progress" {
		t.Errorf("got %q", got)
	}
}

func TestXForwardIsOfferedToThoseWhoAreBelieved(t *testing.T) {
	const offer = "250-XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE\r\n"
	for _, believed := range []bool{true, false} {
		conn, peer := pairWith(t, believed)
		told := replies(peer)
		send(t, peer, "LHLO a\r\n")
		read(t, conn)
		write(t, conn, "250-PIPELINING\r\n")
		write(t, conn, "250 LIMITS\r\n")
		want := "250-PIPELINING\r\n" + offer + "250 LIMITS\r\n"
		if !believed {
			send(t, peer, "XFORWARD IDENT=1\r\nNOOP\r\n")
			if got := read(t, conn); got != "NOOP\r\n" || conn.Origin() != (wire.Origin{}) {
				t.Errorf("a stranger's XFORWARD: go-smtp got %q, the origin is %+v", got, conn.Origin())
			}
			want = "250-PIPELINING\r\n250 LIMITS\r\n500 5.5.2 Command unrecognized\r\n"
		}
		_ = conn.Close()
		if got := <-told; got != want {
			t.Errorf("believed %v: got %q", believed, got)
		}
	}
}
